"""No secret of the service and no word of a prompt gets through to what is written."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.guardrails.visibility.redaction import MIN_PROMPT_LENGTH, Redactor, without_prompt

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


def test_a_secret_within_another_is_no_loophole() -> None:
    """Of two secrets of which one begins the other, the longer is replaced as a whole."""
    redact = Redactor(["sk-secret", "sk-secret-and-more"])
    assert redact("key sk-secret-and-more, sk-secret.") == "key [secret], [secret]."


def test_short_and_empty_secrets_blank_out_nothing() -> None:
    """An empty or very short secret would be found everywhere, and is not looked for."""
    assert Redactor(["", "a", "key"])("a key to everything") == "a key to everything"
    assert Redactor([])("a key") == "a key"


prompts = st.text(min_size=MIN_PROMPT_LENGTH, max_size=40).filter(
    lambda text: (
        len(text.splitlines()) == 1
        and len(text.splitlines()[0]) >= MIN_PROMPT_LENGTH
        and text not in "[prompt]"
    )
)


@given(prompts, st.sampled_from([str, repr, json.dumps]))
def test_a_prompt_is_replaced_however_it_is_quoted(prompt: str, quote: Any) -> None:
    """A prompt is gone from an error's text, plain, as Python quotes it, or as JSON does."""
    body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
    quoted = prompt if quote is str else quote(prompt)[1:-1]
    assert quoted not in without_prompt(f"cannot read <{quoted}> here", body)


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
            without_prompt("the provider said nothing of it", body)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
