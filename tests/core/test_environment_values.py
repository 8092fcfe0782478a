"""Example values are told from real ones, and URLs are parsed rather than searched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.addresses import is_loopback
from app.guardrails.environment.values import (
    check_http_url,
    is_placeholder,
    production_problem,
)

PLACEHOLDERS = (
    "",
    "  ",
    '""',
    "sk-xxx",
    "sk-xxxxxxxxxxxxxxxx",
    "SK-XXX",
    "xxx",
    "***",
    "...",
    "---",
    "changeme",
    "change-me",
    "CHANGE_THIS_KEY",
    "replace-me-please",
    "todo",
    "TBD",
    "dummy",
    "none",
    "null",
    "placeholder",
    "example",
    "your-key-here",
    "your_api_key",
    "insert-key",
    "key-goes-here",
    "<your key>",
    "<...>",
    "{{ api_key }}",
    "${OPENAI_API_KEY}",
    "$OPENAI_API_KEY",
    "[key]",
    "'sk-xxx'",
)
REAL = (
    "sk-proj-4mVQ0bJ8xx2tYwqzR1aK",
    "sk-ant-api03-xxQ9f8",
    "gsk_H3hereAndThere",
    "c0ffee1234",
    "nonesuch-key-91",
    "example-but-not-quite-9f3a",
    "todo-app-key-77aa",
)


@pytest.mark.promise("E2")
@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_what_stands_in_examples_is_a_placeholder(value: str) -> None:
    """Empty values and what people leave from a copied example are recognised."""
    assert is_placeholder(value)


@pytest.mark.parametrize("value", REAL)
def test_a_real_key_is_not_a_placeholder(value: str) -> None:
    """A key that only resembles an example in places is taken."""
    assert not is_placeholder(value)


@given(st.text("0123456789abcdef", min_size=32, max_size=64))
def test_a_random_key_is_not_a_placeholder(value: str) -> None:
    """Keys as services make them are never mistaken for examples."""
    assert not is_placeholder(value)


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://vllm:8000", "https://[::1]:8443/x"]
)
def test_a_url_with_a_host_is_well_formed(url: str) -> None:
    """http and https URLs with a host, a port and a path are taken."""
    check_http_url(url)


@pytest.mark.promise("E3")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com",
        "ftp://example.com/marked",
        "file:///etc/marked",
        "https://",
        "https:///marked",
        "https://example.com:marked",
        "https://example.com:99999/marked",
        "https://[::1/marked",
        "https://example.com/?key=marked",
        "https://example.com/#marked",
    ],
)
def test_a_bad_url_is_refused_without_its_value(url: str) -> None:
    """No scheme, no host, a bad port, a query or a fragment: refused, and never repeated."""
    with pytest.raises(ValueError, match=r"^(must|names|is not)") as refusal:
        check_http_url(url)
    assert "marked" not in str(refusal.value)


@pytest.mark.promise("E3")
@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("db.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("localhost.example.com", False),
        ("notlocalhost", False),
        ("192.0.2.1", False),
    ],
)
def test_loopback_is_a_host_and_not_a_substring(host: str, loopback: bool) -> None:
    """This machine is recognised by its names and addresses, not by a word inside another."""
    assert is_loopback(host) is loopback


@pytest.mark.promise("E3")
@pytest.mark.parametrize(
    ("url", "http_allowed", "refused"),
    [
        ("https://api.openai.com/v1", False, False),
        ("https://localhost.example.com", False, False),
        ("http://api.openai.com/v1", False, True),
        ("https://localhost/v1", False, True),
        ("http://127.0.0.1:9/v1", False, True),
        ("http://vllm.internal:8000", True, False),
        ("http://localhost:11434", True, False),
    ],
)
def test_production_wants_real_hosts(url: str, http_allowed: bool, refused: bool) -> None:
    """In production a vendor is reached by https at its real host; inside a cluster by http too."""
    assert (production_problem(url, http_allowed=http_allowed) is not None) is refused
