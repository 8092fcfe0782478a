"""Replies in OpenAI's wire format, whole and in pieces."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from ..caller import Caller
from ..chat import Completion
from ..errors import InternalError, ServiceError
from ..messages import Chunk, TokenUsage, ToolCall
from ..reply_stream import ReplyStream
from .problems import error_member
from .tool_call_ids import signed_id

DONE: Final = b"data: [DONE]\n\n"


def completion_body(completion: Completion) -> bytes:
    reply = completion.reply
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.text or None if reply.tool_calls or reply.refusal else reply.text,
        "refusal": reply.refusal,
    }
    if reply.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in reply.tool_calls]
    return orjson.dumps(
        {
            "id": reply.id or _new_id(),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": reply.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": reply.finish_reason,
                    "logprobs": None,
                }
            ],
            "usage": _usage(reply.usage),
        }
    )


async def completion_events(
    stream: ReplyStream, caller: Caller, *, include_usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events. A stream that breaks off ends with an error event and no `[DONE]`."""
    head: dict[str, Any] = {
        "id": _new_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "",
    }
    usage: TokenUsage | None = None
    first = True
    try:
        async for chunk in stream:
            head |= {key: value for key in ("id", "model") if (value := getattr(chunk, key))}
            usage = chunk.usage or usage
            if first or _has_content(chunk):
                yield _event(head, _choices(chunk, first), None if include_usage else ...)
                first = False
        if include_usage:
            yield _event(head, [], _usage(usage))
        yield _standing(caller) + DONE
    except ServiceError as error:
        caller.record.outcome = "failed"
        caller.record.refusal = error.code
        caller.record.error = error
        yield _standing(caller) + _error_event(error)
    except Exception as error:
        caller.record.outcome = "crashed"
        caller.record.error = error
        yield _error_event(InternalError("The service failed; its log has the reason."))


def _has_content(chunk: Chunk) -> bool:
    return bool(chunk.text or chunk.refusal or chunk.tool_calls or chunk.finish_reason)


def _choices(chunk: Chunk, first: bool) -> list[dict[str, Any]]:
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
    if chunk.text:
        delta["content"] = chunk.text
    if chunk.refusal:
        delta["refusal"] = chunk.refusal
    if chunk.tool_calls:
        delta["tool_calls"] = [
            {
                "index": call.index,
                **(
                    {"id": signed_id(call.id, call.signature), "type": "function"}
                    if call.id
                    else {}
                ),
                "function": {
                    **({"name": call.name} if call.name else {}),
                    "arguments": call.arguments,
                },
            }
            for call in chunk.tool_calls
        ]
    return [{"index": 0, "delta": delta, "finish_reason": chunk.finish_reason, "logprobs": None}]


def _event(head: dict[str, Any], choices: list[dict[str, Any]], usage: Any) -> bytes:
    """One event; `...` leaves the usage member out, as OpenAI does unless it was asked for."""
    body = {**head, "choices": choices}
    if usage is not ...:
        body["usage"] = usage
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _error_event(error: ServiceError) -> bytes:
    return b"data: " + orjson.dumps({"error": error_member(error)}) + b"\n\n"


def _standing(caller: Caller) -> bytes:
    """What was settled after the headers had gone: a comment, which clients skip."""
    figures = "; ".join(f"{name}={value}" for name, value in caller.trailers.items())
    return f": {figures}\n".encode() if figures else b""


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": signed_id(call.id, call.signature),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _usage(usage: TokenUsage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(16)}"
