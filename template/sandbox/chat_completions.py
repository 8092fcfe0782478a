"""The chat completions format from a server's side, as several stand-ins speak it.

What one vendor alone takes, refuses or adds stands in that vendor's module.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from sandbox.model import Completion, Finish, Prompt, Reply, Role, Turn, words
from sandbox.vendors import Piece, Request, VendorError, text_of, to_json

INVALID = "invalid_request_error"
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
FINISH_REASONS: Mapping[Finish, str] = {"length": "length", "tool_calls": "tool_calls"}


def reject(message: str, code: str | None = None, param: str | None = None) -> NoReturn:
    raise VendorError(400, INVALID, message, code, param)


def check_numbers(body: dict[str, Any]) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and body[name] < 1:
            message = f"Invalid '{name}': integer below minimum value."
            reject(message, "integer_below_min_value", name)
    for name, maximum in (("temperature", 2), ("top_p", 1)):
        if body.get(name) is not None and body[name] > maximum:
            message = f"Invalid '{name}': decimal above maximum value."
            reject(message, "decimal_above_max_value", name)


def check_companions(body: dict[str, Any]) -> None:
    """Parameters that mean nothing without another."""
    for name, needs in (
        ("tool_choice", "tools"),
        ("parallel_tool_calls", "tools"),
        ("stream_options", "stream"),
    ):
        if body.get(name) is not None and not body.get(needs):
            reject(f"'{name}' is only allowed when '{needs}' is specified.", None, name)


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Roles, and every tool call answered by the tool messages right behind it."""
    open_calls: set[str] = set()
    for index, message in enumerate([*messages, {"role": "user"}]):
        param = f"messages.[{index}].role"
        role = message.get("role")
        if role not in ROLES:
            reject(f"Invalid value: '{role}'.", "invalid_value", param)
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                reject("Role 'tool' must be a response to 'tool_calls'.", None, param)
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            missing = ", ".join(sorted(open_calls))
            reject(f"These tool_call_ids did not have response messages: {missing}", None, param)
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}


def prompt(body: dict[str, Any]) -> Prompt:
    response_format = body.get("response_format") or {"type": "text"}
    choice = body.get("tool_choice") or "auto"
    stop = body.get("stop") or ()
    functions = [tool["function"] for tool in body.get("tools") or ()]
    wants_text = response_format["type"] == "text"
    return Prompt(
        turns=[Turn(ROLES[m["role"]], text_of(m.get("content"))) for m in body["messages"]],
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stop=[stop] if isinstance(stop, str) else stop,
        tools={function["name"]: function.get("parameters") or {} for function in functions},
        tool_choice=choice if isinstance(choice, str) else f"tool:{choice['function']['name']}",
        json_schema=None
        if wants_text
        else response_format.get("json_schema", {}).get("schema", {}),
    )


def reply_body(
    request: Request, completion: Completion, reply: Reply, *, thoughts: str = ""
) -> dict[str, Any]:
    """`thoughts` is what the model lets be seen of its thinking."""
    refused = completion.finish == "refusal"
    calls = _tool_calls(request, completion)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or (calls and not completion.text) else completion.text,
        "refusal": completion.text if refused else None,
        "annotations": [],
    }
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["reasoning_content"] = thoughts
    choice = {"index": 0, "message": message, "logprobs": None}
    choice["finish_reason"] = _finish_reason(request, completion)
    whole = {**_head(request, reply, "chat.completion"), "choices": [choice]}
    return whole | ({"usage": _usage(completion)} if completion.usage else {})


def reply_pieces(
    request: Request, completion: Completion, reply: Reply, *, thoughts: str = ""
) -> Iterator[Piece]:
    head = _head(request, reply, "chat.completion.chunk")
    options = request.body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage")) and completion.usage is not None

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        # With include_usage every chunk has the member, null in all but the last.
        return event({**head, "choices": [choice]} | ({"usage": None} if with_usage else {}))

    yield Piece(chunk({"role": "assistant", "content": "", "refusal": None}))
    for text in words(thoughts):
        yield Piece(chunk({"reasoning_content": text}))
    member = "refusal" if completion.finish == "refusal" else "content"
    for text in completion.pieces:
        yield Piece(chunk({member: text}), is_chunk=True)
    for index, call in enumerate(_tool_calls(request, completion)):
        function = call["function"]
        opening = {**call, "index": index, "function": {**function, "arguments": ""}}
        yield Piece(chunk({"tool_calls": [opening]}))
        for text in words(function["arguments"]):
            delta = {"index": index, "function": {"arguments": text}}
            yield Piece(chunk({"tool_calls": [delta]}), is_chunk=True)
    yield Piece(chunk({}, _finish_reason(request, completion)))
    if with_usage:
        yield Piece(event({**head, "choices": [], "usage": _usage(completion)}))
    yield Piece(b"data: [DONE]\n\n")


def _head(request: Request, reply: Reply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sandbox{request.number}",
        "object": kind,
        "created": int(time.time()),
        "model": reply.model or request.body["model"],
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _tool_calls(request: Request, completion: Completion) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_sandbox{request.number}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments_json},
        }
        for index, call in enumerate(completion.tool_calls)
    ]


def _finish_reason(request: Request, completion: Completion) -> str:
    # A call forced by name ends with "stop": https://github.com/vllm-project/vllm/pull/25054
    if completion.finish == "tool_calls" and isinstance(request.body.get("tool_choice"), dict):
        return "stop"
    return FINISH_REASONS.get(completion.finish, "stop")


def _usage(completion: Completion) -> dict[str, Any] | None:
    usage = completion.usage
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def models(names: Sequence[str]) -> dict[str, Any]:
    entry = {"object": "model", "created": 1735689600, "owned_by": "sandbox"}
    return {"object": "list", "data": [{"id": name, **entry} for name in names]}


def error_body(error: VendorError, code: str | int | None) -> dict[str, Any]:
    members = {"message": error.message, "type": error.type, "param": error.param}
    return {"error": members | {"code": code}}


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + to_json(data) + b"\n\n"
