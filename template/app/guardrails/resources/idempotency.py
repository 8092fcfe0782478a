"""Recognises a repeated request, and keeps replies in a form that answers it again.

The claim on a request is taken by the store, in the same step as rate limit and budget.
"""

import hashlib
from typing import Literal

import orjson

from ...caller import Caller
from ...errors import BadRequest
from ...messages import ChatReply, TokenUsage, ToolCall
from ...storage.base import Claim

MAX_KEY_LENGTH = 255
FORM_FIELDS = ("stream", "stream_options")
"""They choose the form of an answer, not the answer."""


def claim_for(
    caller: Caller, from_body: Literal["retries", "always", "off"], lease_seconds: float
) -> Claim | None:
    """The claim that `caller`'s request needs, or `None` when each request stands for itself.

    Without an `Idempotency-Key` the body stands for the key as `IDEMPOTENCY_FROM_BODY` says, for
    authenticated callers only. With `retries` a request that is no retry runs in any case, and its
    claim is there for the retry that may follow. Raises `BadRequest` for a key that is too long or
    not printable.
    """
    call = caller.next_call()
    fingerprint = fingerprint_of(caller.body)
    key = caller.idempotency_key
    if key is not None:
        if not key or len(key) > MAX_KEY_LENGTH or not key.isprintable():
            raise BadRequest(
                f"Idempotency-Key has {len(key)} characters; use 1 to {MAX_KEY_LENGTH} printable"
                " ones.",
                param="Idempotency-Key",
            )
        return Claim(
            _hash(caller.name, caller.route, "key", key, str(call)), fingerprint, lease_seconds
        )
    if from_body == "off" or not caller.authenticated:
        return None
    return Claim(
        _hash(caller.name, caller.route, "body", fingerprint, str(call)),
        fingerprint,
        lease_seconds,
        takes_over=from_body == "retries" and not caller.is_retry,
    )


def fingerprint_of(body: bytes) -> str:
    """The hash of a JSON body whatever its spacing and the order of its members."""
    try:
        value = orjson.loads(body)
        if isinstance(value, dict):
            value = {name: member for name, member in value.items() if name not in FORM_FIELDS}
        canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        # No JSON, or nested more deeply than can be written again.
        canonical = body
    return hashlib.sha256(canonical).hexdigest()


def encode_reply(reply: ChatReply, provider: str) -> bytes:
    return orjson.dumps({"provider": provider, "reply": reply})


def decode_reply(stored: bytes) -> tuple[ChatReply, str]:
    """The reply and the provider that gave it."""
    document = orjson.loads(stored)
    fields = document["reply"]
    fields["tool_calls"] = tuple(ToolCall(**call) for call in fields["tool_calls"])
    fields["usage"] = TokenUsage(**fields["usage"]) if fields["usage"] else None
    return ChatReply(**fields), document["provider"]


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
