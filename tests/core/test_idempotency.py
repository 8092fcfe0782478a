"""Which requests are the same, and how a reply is kept for the next of them."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.caller import Caller
from app.errors import BadRequest
from app.guardrails.resources.idempotency import (
    claim_for,
    decode_reply,
    encode_reply,
    fingerprint_of,
)
from app.messages import ChatReply, TokenUsage, ToolCall
from app.storage.base import Claim

pytestmark = pytest.mark.promise("R6")

FromBody = Literal["retries", "always", "off"]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(max_size=6), json_values, max_size=5)


def caller(
    *,
    name: str = "ada",
    route: str = "POST /v1/chat/completions",
    body: bytes = b'{"messages": []}',
    key: str | None = None,
    authenticated: bool = True,
    retry: bool = False,
) -> Caller:
    return Caller(
        name,
        authenticated,
        request_id="request-1",
        route=route,
        body=body,
        idempotency_key=key,
        is_retry=retry,
    )


def claim(from_body: FromBody = "retries", **of: Any) -> Claim | None:
    return claim_for(caller(**of), from_body, lease_seconds=10)


def key_of(from_body: FromBody = "retries", **of: Any) -> str:
    made = claim(from_body, **of)
    assert made is not None
    return made.key


def _reordered(value: Any) -> Any:
    match value:
        case dict():
            return {name: _reordered(value[name]) for name in reversed(value)}
        case list():
            return [_reordered(item) for item in value]
        case _:
            return value


@given(bodies)
def test_order_and_spacing_do_not_matter(body: dict[str, Any]) -> None:
    """Nested members in another order, and other spacing, make the same fingerprint."""
    compact = json.dumps(body).encode()
    spread = json.dumps(_reordered(body), indent=3, ensure_ascii=False).encode()
    assert fingerprint_of(compact) == fingerprint_of(spread)


@given(bodies, st.sampled_from([True, False, None]))
def test_the_form_does_not_matter(body: dict[str, Any], stream: bool | None) -> None:
    """`stream` and `stream_options` choose the form of the answer and are left out."""
    plain = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
    formed = {**plain, "stream": stream, "stream_options": {"include_usage": True}}
    assert fingerprint_of(json.dumps(plain).encode()) == fingerprint_of(json.dumps(formed).encode())


def test_the_form_matters_inside() -> None:
    """Only the outermost `stream` is left out: a tool's argument of that name is part of it."""
    with_inner = b'{"tools": [{"stream": true}]}'
    assert fingerprint_of(with_inner) != fingerprint_of(b'{"tools": [{"stream": false}]}')


@given(bodies, bodies)
def test_different_bodies_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bodies with other values, or the same values in another order, are other requests."""
    form = ("stream", "stream_options")
    one, other = ({k: v for k, v in b.items() if k not in form} for b in (one, other))
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    equal = fingerprint_of(json.dumps(one).encode()) == fingerprint_of(json.dumps(other).encode())
    assert equal is same


def test_lists_keep_their_order() -> None:
    """The order of messages is part of the request."""
    assert fingerprint_of(b'{"messages": [1, 2]}') != fingerprint_of(b'{"messages": [2, 1]}')


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'"text"', b"[1]", b"[" * 500 + b"]" * 500, b'{"a": NaN}', b"1" * 99],
    ids=lambda body: repr(body[:8]),
)
def test_any_body_has_a_fingerprint(body: bytes) -> None:
    """What is no JSON object, or nested too deeply for one, is told apart by its bytes."""
    assert fingerprint_of(body) == fingerprint_of(body)
    assert fingerprint_of(body) != fingerprint_of(body + b"?")


def test_a_claim_is_the_callers_own() -> None:
    """The same key of another caller, or at another route, is another claim."""
    key = key_of(key="payment-1")
    assert key == key_of(key="payment-1")
    assert key != key_of(key="payment-2")
    assert key != key_of(key="payment-1", name="grace")
    assert key != key_of(key="payment-1", route="POST /v1/summaries")
    assert key != key_of("always")


def test_names_and_keys_do_not_run_together() -> None:
    """Where a name ends and a key begins is part of the claim."""
    assert key_of(name="ab", key="c") != key_of(name="a", key="bc")


def test_each_call_of_a_request_has_its_claim() -> None:
    """A route that calls a model twice claims twice, the same two for a repeat of the request."""

    def two() -> list[Claim | None]:
        one = caller(key="payment-1")
        return [claim_for(one, "retries", 10), claim_for(one, "retries", 10)]

    first, second = two()
    assert first is not None and second is not None
    assert first.key != second.key
    assert two() == [first, second]


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\tin it", "new\nline", "\x00"])
def test_a_bad_key_is_refused(key: str) -> None:
    """An empty, too long or unprintable key is refused by name."""
    with pytest.raises(BadRequest) as refusal:
        claim(key=key)
    assert refusal.value.param == "Idempotency-Key"


def test_a_retry_finds_the_request_that_it_repeats() -> None:
    """An SDK's first try, which says nothing, leaves the claim that its retry asks for."""
    first, retry = claim(), claim(retry=True)
    assert first is not None and retry is not None
    assert first.key == retry.key
    assert first.takes_over and not retry.takes_over


@pytest.mark.parametrize("retry", [False, True])
def test_an_equal_body_is_a_repeat_if_wanted(retry: bool) -> None:
    """With `always` any equal body asks for the reply of the one before."""
    made = claim("always", retry=retry)
    assert made is not None
    assert made.key == key_of("always")
    assert not made.takes_over


@pytest.mark.parametrize("retry", [False, True])
def test_bodies_do_not_count_when_off(retry: bool) -> None:
    """With `off`, and for callers without a key of the service, only the header claims."""
    assert claim("off", retry=retry) is None
    assert claim("always", retry=retry, authenticated=False) is None
    assert claim("retries", retry=retry, authenticated=False) is None
    assert claim("off", retry=retry, key="payment-1") is not None
    assert claim("off", retry=retry, key="payment-1", authenticated=False) is not None


def test_a_key_never_takes_over() -> None:
    """With the header every request is bound by the one before it."""
    made = claim(key="payment-1")
    assert made is not None
    assert not made.takes_over


texts = st.text(max_size=20)
replies = st.builds(
    ChatReply,
    id=texts,
    model=texts,
    text=texts,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    usage=st.none() | st.builds(TokenUsage, *[st.integers(0, 10**6)] * 5),
    tool_calls=st.lists(
        st.builds(ToolCall, texts, texts, texts, st.none() | texts), max_size=3
    ).map(tuple),
    refusal=st.none() | texts,
)


@given(replies, texts)
def test_a_kept_reply_comes_back_whole(reply: ChatReply, provider: str) -> None:
    """A reply that was stored is the same when read, with the provider that gave it."""
    assert decode_reply(encode_reply(reply, provider)) == (reply, provider)
