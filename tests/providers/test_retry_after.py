"""A vendor's wish to be asked later is read in every form in use."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.providers.retry_after import retry_after_seconds

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": "Sun, 15 Jun 2025 15:07:10 GMT"}, 30),
        ({"retry-after": "Sunday, 15-Jun-25 15:07:10 GMT"}, 30),
        ({"retry-after": "Sun, 15 Jun 2025 15:07:10 -0000"}, 30),
        ({"retry-after": "Sun, 15 Jun 2025 15:06:10 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Mon, 99 Foo 99999 99:99:99 GMT"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_every_form_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, fractions, milliseconds and dates are read; the past and nonsense are not."""
    assert retry_after_seconds(headers, lambda: NOW) == seconds


@given(st.text(max_size=60), st.text(max_size=60))
@example("0\x1f", "\x1c1 ")
def test_nonsense_raises_nothing(seconds: str, milliseconds: str) -> None:
    """No header breaks the reading, and no wait is negative."""
    headers = {"retry-after": seconds, "retry-after-ms": milliseconds}
    wait = retry_after_seconds(headers, lambda: NOW)
    assert wait is None or wait >= 0
