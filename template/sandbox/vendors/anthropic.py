"""Stand-in of Anthropic's Messages API.

It refuses what Anthropic refuses. Parameters that could change nothing in a stand-in's answer are
accepted and ignored, and any model name is taken.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn

from sandbox.model import Completion, Finish, Prompt, Reply, Turn, complete, words
from sandbox.vendors import (
    Answer,
    ErrorName,
    Piece,
    Request,
    Vendor,
    VendorError,
    json_answer,
    text_of,
    to_json,
)

PARAMETERS = """
    cache_control container diagnostics inference_geo max_tokens messages metadata model
    output_config service_tier speed stop_sequences stream system thinking tool_choice tools
"""
SAMPLING = ("temperature", "top_p", "top_k")
API_VERSIONS = ("2023-06-01", "2026-10-21")
MODELS = ("claude-haiku-5-5", "claude-sonnet-5", "claude-haiku-4-5")
MODEL_VERSION = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d{1,2}))?(?:-|$)")
INVALID = "invalid_request_error"
ERROR_TYPES = {
    402: "billing_error",
    409: "conflict_error",
    413: "request_too_large",
    504: "timeout_error",
}
STOP_REASONS: Mapping[Finish, str] = {
    "end": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_calls": "tool_use",
    "refusal": "refusal",
}


class StandIn(Vendor):
    name: ClassVar[str] = "anthropic"
    prefix: ClassVar[str] = "/anthropic"
    api_key: ClassVar[str] = "sandbox-anthropic-8d24c7f3e05b"
    errors: ClassVar[Mapping[ErrorName, VendorError]] = {
        "invalid_request": VendorError(400, INVALID, "Invalid request."),
        "invalid_api_key": VendorError(401, "authentication_error", "invalid x-api-key"),
        "permission_denied": VendorError(403, "permission_error", "No access to it."),
        "model_not_found": VendorError(404, "not_found_error", "model: no such model"),
        "rate_limited": VendorError(429, "rate_limit_error", "Rate limit exceeded."),
        # Two refusals of the account that look like a fault of the request but for their words.
        "quota_exhausted": VendorError(
            400, INVALID, "Your credit balance is too low to access the Anthropic API."
        ),
        "spend_limit": VendorError(
            400, INVALID, "You have reached your specified API usage limits."
        ),
        "context_too_long": VendorError(
            400, INVALID, "prompt is too long: 205351 tokens > 200000 maximum"
        ),
        "content_policy": VendorError(400, INVALID, "Output blocked by content filtering policy"),
        "server_error": VendorError(500, "api_error", "Internal server error"),
        "overloaded": VendorError(529, "overloaded_error", "Overloaded"),
    }

    def environment(self, origin: str) -> dict[str, str]:
        return {"ANTHROPIC_API_KEY": self.api_key, "ANTHROPIC_BASE_URL": origin + self.prefix}

    def answer(self, request: Request, reply: Reply) -> Answer:
        self._authenticate(request.headers)
        if request.headers.get("anthropic-version") not in API_VERSIONS:
            _reject("anthropic-version: a valid version is required")
        match request.method, request.path:
            case "GET", "/v1/models":
                return json_answer(200, _models(), _headers(request))
            case "POST", "/v1/messages":
                return _messages(request, reply)
            case _:
                raise VendorError(404, "not_found_error", "Not found")

    def error_type(self, status: int) -> str:
        return ERROR_TYPES.get(status, "api_error" if status >= 500 else INVALID)

    def error_answer(self, error: VendorError, request: Request) -> Answer:
        may_pass = error.status in (408, 409, 429) or error.status >= 500
        headers = _headers(request) | {"x-should-retry": "true" if may_pass else "false"}
        return json_answer(error.status, _error_body(error, request), headers)

    def error_event(self, error: VendorError, request: Request) -> bytes:
        return _event(_error_body(error, request))

    def _authenticate(self, headers: Mapping[str, str]) -> None:
        # Either header will do; where both are sent the vendor reads x-api-key.
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        key = headers.get("x-api-key", bearer)
        if key != self.api_key:
            message = "invalid x-api-key" if key else "x-api-key header is required"
            raise VendorError(401, "authentication_error", message)


def _messages(request: Request, reply: Reply) -> Answer:
    _check(request.body, request.headers["anthropic-version"])
    completion = complete(_prompt(request.body), reply)
    if not request.body.get("stream"):
        return json_answer(200, _message(request, completion, reply), _headers(request))
    pieces = tuple(_stream(request, completion, reply))
    return Answer(200, "text/event-stream; charset=utf-8", pieces, _headers(request))


def _reject(message: str) -> NoReturn:
    raise VendorError(400, INVALID, message)


def _check(body: Any, api_version: str) -> None:
    if not isinstance(body, dict):
        _reject("The request body is not valid JSON")
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            _reject(f"{name}: Field required")
    # https://platform.claude.com/docs/en/api/migration-2026-10-21
    known = {*PARAMETERS.split(), *(SAMPLING if api_version == "2023-06-01" else ())}
    if unknown := sorted(body.keys() - known):
        _reject(f"{unknown[0]}: Extra inputs are not permitted")
    if body["max_tokens"] < 1:
        _reject("max_tokens: Input should be greater than or equal to 1")
    if not all(stop.strip() for stop in body.get("stop_sequences", ())):
        _reject("stop_sequences: each stop sequence must contain non-whitespace")
    if "tool_choice" in body and not body.get("tools"):
        _reject("tool_choice: may only be specified while providing tools")
    for index, tool in enumerate(body.get("tools", ())):
        if "input_schema" not in tool:
            _reject(f"tools.{index}.custom.input_schema: Field required")
    _check_model(body)
    _check_messages(body["messages"])


def _check_model(body: dict[str, Any]) -> None:
    """Refuses what the model at hand does not take, though others do."""
    version = MODEL_VERSION.match(body["model"])
    number = (int(version[1]), int(version[2] or 0)) if version else (0, 0)
    sampling = [name for name in SAMPLING if name in body]
    if sampling and number >= (4, 7):
        _reject(f"`{sampling[0]}` is deprecated for this model.")
    if {"temperature", "top_p"} <= set(sampling) and number >= (4, 1):
        _reject("`temperature` and `top_p` cannot both be specified for this model.")
    if not 0 <= body.get("temperature", 1) <= 1:
        _reject("temperature: Input should be between 0 and 1")
    if body["messages"] and body["messages"][-1]["role"] == "assistant" and number >= (4, 6):
        _reject("This model does not support assistant message prefill.")


def _check_messages(messages: list[dict[str, Any]]) -> None:
    """Roles, no empty content, and every tool call answered at once in the next turn."""
    if not messages:
        _reject("messages: at least one message is required")
    for index, message in enumerate(messages):
        if message["role"] == "system":
            _reject('messages: Unexpected role "system". Use the top-level `system` parameter.')
        if message["role"] not in ("user", "assistant"):
            _reject(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        if not message["content"]:
            _reject(f"messages.{index}: all messages must have non-empty content")
        if any(block.get("text") == "" for block in _blocks(message)):
            _reject("messages: text content blocks must be non-empty")
    turns = _merged(messages)
    if turns[0][0] != "user":
        _reject('messages: first message must use the "user" role')
    called: set[str] = set()
    for index, (_, blocks) in enumerate([*turns, ("user", [])]):
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        leading = {block.get("tool_use_id") for block in blocks[: len(answered)]}
        if extra := answered - called:
            _reject(f"messages.{index}: unexpected `tool_use_id` found: {', '.join(extra)}")
        if missing := called - leading:
            _reject(
                f"messages.{index}: `tool_use` ids were found without `tool_result` blocks "
                f"immediately after: {', '.join(missing)}"
            )
        called = {block["id"] for block in blocks if block["type"] == "tool_use"}


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _merged(messages: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Consecutive messages of one role are one turn to the vendor."""
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(_blocks(message))
        else:
            turns.append((message["role"], list(_blocks(message))))
    return turns


def _prompt(body: dict[str, Any]) -> Prompt:
    choice = body.get("tool_choice", {"type": "auto"})
    choices = {"any": "required", "tool": f"tool:{choice.get('name')}"}
    output_format = body.get("output_config", {}).get("format") or {}
    system = [Turn("system", text_of(body["system"]))] if body.get("system") else []
    return Prompt(
        turns=[*system, *(turn for message in body["messages"] for turn in _turns(message))],
        max_tokens=body["max_tokens"],
        stop=body.get("stop_sequences", ()),
        tools={tool["name"]: tool["input_schema"] for tool in body.get("tools", ())},
        tool_choice=choices.get(choice["type"], choice["type"]),
        json_schema=output_format.get("schema"),
    )


def _turns(message: dict[str, Any]) -> Iterator[Turn]:
    """A user message may hold results of tools and text: each is a turn to the model."""
    for block in _blocks(message):
        if block["type"] == "tool_result":
            yield Turn("tool", text_of(block.get("content")))
    text = text_of(message["content"])
    if message["role"] == "assistant":
        yield Turn("assistant", text)
    elif text:
        yield Turn("user", text)


def _message(request: Request, completion: Completion, reply: Reply) -> dict[str, Any]:
    text = [{"type": "text", "text": completion.text}] if completion.text else []
    return {
        "id": f"msg_sandbox{request.number}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or request.body["model"],
        "content": [*text, *_tool_uses(request, completion)],
        **_stop(completion),
    } | _usage(completion)


def _stop(completion: Completion) -> dict[str, Any]:
    return {
        "stop_reason": STOP_REASONS[completion.finish],
        "stop_sequence": completion.stop_sequence,
    }


def _tool_uses(request: Request, completion: Completion) -> list[dict[str, Any]]:
    return [
        {
            "type": "tool_use",
            "id": f"toolu_sandbox{request.number}_{index}",
            "name": call.name,
            "input": call.arguments,
        }
        for index, call in enumerate(completion.tool_calls)
    ]


def _stream(request: Request, completion: Completion, reply: Reply) -> Iterator[Piece]:
    message = _message(request, completion, reply)
    blocks = message["content"]
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    if completion.usage:
        start["usage"] = message["usage"] | {"output_tokens": 1}
    yield Piece(_event({"type": "message_start", "message": start}))
    yield Piece(_event({"type": "ping"}))
    for index, block in enumerate(blocks):
        yield from _stream_block(index, block, completion)
    delta = {"type": "message_delta", "delta": _stop(completion)}
    # The counts are running totals, not what this event adds.
    yield Piece(_event(delta | _usage(completion)))
    yield Piece(_event({"type": "message_stop"}))


def _stream_block(index: int, block: dict[str, Any], completion: Completion) -> Iterator[Piece]:
    place = {"index": index}
    if block["type"] == "text":
        empty: dict[str, Any] = {"text": ""}
        deltas = [{"type": "text_delta", "text": text} for text in completion.pieces]
    else:
        empty = {"input": {}}
        # The first piece of the arguments is always empty.
        parts = ["", *words(json.dumps(block["input"], ensure_ascii=False))]
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    opening = {"type": "content_block_start", **place, "content_block": block | empty}
    yield Piece(_event(opening))
    for delta in deltas:
        data = {"type": "content_block_delta", **place, "delta": delta}
        yield Piece(_event(data), is_chunk=True)
    yield Piece(_event({"type": "content_block_stop", **place}))


def _usage(completion: Completion) -> dict[str, Any]:
    """Cached tokens come beside `input_tokens`, not within it."""
    usage = completion.usage
    if usage is None:
        return {}
    cached = usage.cached_input_tokens + usage.cache_write_tokens
    return {
        "usage": {
            "input_tokens": usage.input_tokens - cached,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cached_input_tokens,
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        }
    }


def _models() -> dict[str, Any]:
    created = {"type": "model", "created_at": "2025-01-01T00:00:00Z", "lifecycle": "active"}
    data = [{"id": model, "display_name": model, **created} for model in MODELS]
    return {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def _headers(request: Request) -> dict[str, str]:
    return {"request-id": f"req_sandbox{request.number}"}


def _error_body(error: VendorError, request: Request) -> dict[str, Any]:
    detail = {"type": error.type, "message": error.message}
    return {"type": "error", "error": detail, "request_id": f"req_sandbox{request.number}"}


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\n".encode() + b"data: " + to_json(data) + b"\n\n"
