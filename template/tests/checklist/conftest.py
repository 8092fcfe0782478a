"""What the checklist's tests have in common: a request, and a place to put the evidence."""

from collections.abc import Callable

import pytest

Evidence = Callable[[str], None]


@pytest.fixture
def evidence(record_property: Callable[[str, object], None]) -> Evidence:
    """Records one sentence that says what was seen."""

    def record(sentence: str) -> None:
        record_property("evidence", sentence)

    return record
