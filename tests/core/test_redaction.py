"""No secret of the service and no word of a prompt gets through to what is written."""

import json
import re
import tracemalloc
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.caller import Caller
from app.guardrails.visibility.redaction import (
    MIN_PROMPT_LENGTH,
    WITHHELD,
    Prompt,
    Redactor,
    url_secrets,
)

Quote = Callable[[str], str]


def _backwards(text: str) -> str:
    """A quotation in which the marks are escaped that Python would leave alone."""
    return repr(text + "'\"")[1:-4]


QUOTES: tuple[Quote, ...] = (
    str,
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: repr(text.encode(errors="surrogatepass"))[2:-1],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: urllib.parse.quote(text, errors="surrogatepass"),
    lambda text: urllib.parse.quote(text, safe="", errors="surrogatepass"),
    _backwards,
)
quotations = st.tuples(st.sampled_from(QUOTES), st.sampled_from(QUOTES[:6])).map(
    lambda both: lambda text: both[1](both[0](text))
)

secrets = st.lists(st.text(st.characters(codec="ascii"), min_size=6, max_size=20), max_size=4)
surroundings = st.text(max_size=20)


@given(secrets, surroundings, surroundings)
def test_secrets_are_replaced(secrets: list[str], before: str, after: str) -> None:
    """A secret is gone from any text, whatever stands around it and whatever it looks like."""
    redact = Redactor(secrets)
    for secret in secrets:
        assume(secret not in before and secret not in after and secret not in "[secret]")
        assert "[secret]" in redact(before + secret + after)
        assert secret not in redact(f"<{secret}>")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=20), quotations)
def test_a_secret_is_replaced_however_it_is_quoted(secret: str, quote: Quote) -> None:
    """By Python, JSON and URLs, and by one of them what another has quoted."""
    assert Redactor([secret])(f"<{quote(secret)}>") == "<[secret]>"


def test_a_secret_within_another_is_no_loophole() -> None:
    """Of two secrets of which one begins the other, the longer is replaced as a whole."""
    redact = Redactor(["sk-secret", "sk-secret-and-more"])
    assert redact("key sk-secret-and-more, sk-secret.") == "key [secret], [secret]."


def test_short_and_empty_secrets_blank_out_nothing() -> None:
    """An empty or very short secret would be found everywhere, and is not looked for."""
    assert Redactor(["", "a", "key"])("a key to everything") == "a key to everything"
    assert Redactor([])("a key") == "a key"


def without_prompt(text: str, body: bytes) -> str:
    return Prompt(body).remove_from(text)


# Of what looks like an escape sequence, or like bytes, less is left to be recognised by.
prompts = st.text(min_size=MIN_PROMPT_LENGTH, max_size=40).filter(
    lambda text: (
        len(text.splitlines()) == 1
        and len(re.sub(r"\\.?|%..|[\x80-\xbf]", "", text.splitlines()[0])) >= MIN_PROMPT_LENGTH
        and text not in "[prompt]"
    )
)


@given(prompts, quotations)
def test_a_prompt_is_replaced_however_it_is_quoted(prompt: str, quote: Quote) -> None:
    """A prompt is gone from an error's text, plain, as Python, JSON or a URL quotes it, or as one
    of them quotes what another has quoted."""
    body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
    quoted = quote(prompt)
    shown = without_prompt(f"cannot read <{quoted}> here", body)
    assert "[prompt]" in shown and quoted not in shown


@given(st.text(max_size=40), st.text(max_size=40), quotations)
def test_what_is_no_prompt_stays(text: str, prompt: str, quote: Quote) -> None:
    """Of a text that shares nothing with the request nothing is lost, whatever its escapes are."""
    text = quote(text)
    body = json.dumps({"content": prompt}).encode()
    shown = without_prompt(text, body)
    assert shown == text or "[prompt]" in shown
    assert without_prompt(text, b'{"content": "quite another matter"}') == text or len(text) > 11


@pytest.mark.parametrize(
    "body",
    [
        {"input": "the marked prompt"},
        {"messages": [{"content": [{"type": "text", "text": "the marked prompt"}]}]},
        {"a": {"b": [{"c": ["the marked prompt"]}]}},
        ["the marked prompt"],
        "the marked prompt",
    ],
    ids=repr,
)
def test_a_prompt_is_found_wherever_it_stands(body: Any) -> None:
    """Any text of a body counts as prompt, however deep it is nested."""
    text = "error in 'the marked prompt', line 1"
    assert "marked" not in without_prompt(text, json.dumps(body).encode())


def test_each_line_of_a_prompt_is_replaced() -> None:
    """A traceback shows single lines: each of a prompt's is replaced."""
    body = json.dumps({"content": "first line of it\nsecond line of it"}).encode()
    assert "line of it" not in without_prompt("> second line of it <", body)
    assert "line of it" not in without_prompt(repr("first line of it\nsecond line of it"), body)


def test_a_body_that_is_no_json_is_all_prompt() -> None:
    """What cannot be parsed is taken as text."""
    assert "marked" not in without_prompt("saw the marked prompt", b"the marked prompt")


def test_the_arguments_of_a_tool_are_prompt() -> None:
    """JSON within the body's JSON is read too, whoever has unpacked it by then."""
    arguments = json.dumps({"city": 'the "odd" \u9ce5 "one"', "days": ["Maundy"]})
    body = json.dumps({"tool_calls": [{"function": {"arguments": arguments}}]}).encode()
    shown = without_prompt('no city \'the "odd" \u9ce5 "one"\' on Maundy', body)
    assert shown == "no city '[prompt]' on [prompt]"


def test_what_is_said_as_a_name_is_prompt() -> None:
    """A member's name that no parameter could have; those that may be one stay readable."""
    body = json.dumps({"the marked words": {"response_format": 1}}).encode()
    assert without_prompt("no such thing: the marked words", body) == "no such thing: [prompt]"
    assert without_prompt("no response_format", body) == "no response_format"


def test_a_form_is_prompt() -> None:
    """As it came, and as it was meant."""
    body = b"text=the+marked%20words+%C3%A9t%C3%A9&n=1"
    for said in ("the marked words \u00e9t\u00e9", "the+marked%20words", body.decode()):
        assert without_prompt(f"cannot use <{said}>", body) == "cannot use <[prompt]>"


def test_the_callers_words_in_an_address_are_prompt() -> None:
    """Its query, and what the route leaves open of the path; the route itself stays readable."""
    caller = Caller(
        "a", True, "r", "GET /v1/search/the-marked-words", query="q=more%20marked+words"
    )
    prompt = Prompt.of(caller, "/v1/search/{text}")
    shown = prompt.remove_from("/v1/search: 'the-marked-words' and 'more marked words'")
    assert shown == "/v1/search: '[prompt]' and '[prompt]'"


def test_a_body_may_be_nested_deeply() -> None:
    """Deeper than Python calls itself."""
    body = b"[" * 1000 + b'"the marked prompt"' + b"]" * 1000
    assert without_prompt("it says the marked prompt", body) == "it says [prompt]"


def test_what_quotes_a_request_that_is_over_is_withheld() -> None:
    """Its words are not kept to be compared with."""
    prompt = Prompt(b'{"content": "the marked prompt"}', "q=marked")
    assert prompt.remove_from("no marked prompt") != "no marked prompt"
    prompt.forget()
    assert prompt.remove_from("no marked prompt") == WITHHELD
    assert prompt.remove_from("") == ""
    assert "marked" not in repr(vars(prompt))


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://hooks.example.com/services/T0/B0/a-long-key", {"/services/T0/B0/a-long-key"}),
        ("https://example.com/alerts", set()),
        ("https://key%40one:p%2Fw@example.com/1", {"key%40one", "key@one", "p%2Fw", "p/w"}),
    ],
)
def test_parts_of_an_address_are_secrets_too(url: str, secrets: set[str]) -> None:
    """A webhook's path, a DSN's key, a password, as they are written and as they are meant."""
    assert set(url_secrets(url)) == {url, *secrets}


def test_ordinary_words_stay() -> None:
    """Very short texts of a request, such as roles, are left in an error's text."""
    body = b'{"messages": [{"role": "user", "content": "Hi"}]}'
    assert without_prompt("the user says Hi", body) == "the user says Hi"
    assert without_prompt("no body", b"") == "no body"


def test_prompts_are_not_kept() -> None:
    """What is compared with a message is gone afterwards, also the traces of it."""
    tracemalloc.start()
    try:
        for number in range(20):
            body = json.dumps([f"prompt {number} " * 2_000]).encode()
            Prompt(body).remove_from("the provider said nothing of it")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
