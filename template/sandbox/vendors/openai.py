"""Stand-in of OpenAI's Chat Completions API.

It refuses what OpenAI refuses. Parameters that could change nothing in a stand-in's answer are
accepted and ignored, and any model name is taken.
"""

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn

from sandbox.model import Completion, Finish, Prompt, Reply, Role, Turn, complete, words
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
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction
    presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort
    response_format safety_identifier seed service_tier stop store stream stream_options temperature
    tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
MODELS = ("gpt-6-luna", "gpt-5.4-mini", "gpt-4.1-mini")
INVALID = "invalid_request_error"
CAN_REASON = re.compile(r"o\d|gpt-[5-9]")
ALWAYS_REASONS = re.compile(r"o\d|gpt-5(-mini|-nano)?(-\d{4}-\d\d-\d\d)?$")
FINISH_REASONS: Mapping[Finish, str] = {"length": "length", "tool_calls": "tool_calls"}


class StandIn(Vendor):
    name: ClassVar[str] = "openai"
    prefix: ClassVar[str] = "/openai/v1"
    api_key: ClassVar[str] = "sandbox-openai-5f0c6e1b9a7d"
    errors: ClassVar[Mapping[ErrorName, VendorError]] = {
        "invalid_request": VendorError(400, INVALID, "Invalid request."),
        "invalid_api_key": VendorError(401, INVALID, "Incorrect API key.", "invalid_api_key"),
        "permission_denied": VendorError(403, INVALID, "No access to it.", "model_not_found"),
        "model_not_found": VendorError(404, INVALID, "No such model.", "model_not_found"),
        "rate_limited": VendorError(429, "requests", "Rate limit reached.", "rate_limit_exceeded"),
        "quota_exhausted": VendorError(
            429, "insufficient_quota", "You exceeded your current quota.", "insufficient_quota"
        ),
        "spend_limit": VendorError(
            400, INVALID, "Billing hard limit has been reached", "billing_hard_limit_reached"
        ),
        "context_too_long": VendorError(
            400, INVALID, "Input tokens exceed the limit.", "context_length_exceeded", "messages"
        ),
        "content_policy": VendorError(400, INVALID, "Your prompt was flagged.", "invalid_prompt"),
        "server_error": VendorError(500, "server_error", "The server had an error."),
        "overloaded": VendorError(503, "server_error", "The engine is currently overloaded."),
    }

    def environment(self, origin: str) -> dict[str, str]:
        return {"OPENAI_API_KEY": self.api_key, "OPENAI_BASE_URL": origin + self.prefix}

    def answer(self, request: Request, reply: Reply) -> Answer:
        self._authenticate(request.headers.get("authorization", ""))
        match request.method, request.path:
            case "GET", "/models":
                return json_answer(200, _models(), _headers(request))
            case "POST", "/chat/completions":
                return _chat(request, reply)
            case method, path:
                raise VendorError(404, INVALID, f"Invalid URL ({method} {path})")

    def error_type(self, status: int) -> str:
        return "server_error" if status >= 500 else INVALID

    def error_answer(self, error: VendorError, request: Request) -> Answer:
        return json_answer(error.status, _error_body(error), _headers(request))

    def error_event(self, error: VendorError, request: Request) -> bytes:
        # OpenAI has been seen to end such a stream as if it were whole:
        # https://github.com/sashabaranov/go-openai/pull/396
        return _event(_error_body(error)) + b"data: [DONE]\n\n"

    def _authenticate(self, authorization: str) -> None:
        key = authorization.removeprefix("Bearer ").strip()
        if not key:
            raise VendorError(401, INVALID, "You didn't provide an API key.")
        if key != self.api_key:
            # The vendor repeats both ends of the key that it refuses.
            message = f"Incorrect API key provided: {key[:8]}****{key[-4:]}."
            raise VendorError(401, INVALID, message, "invalid_api_key")


def _chat(request: Request, reply: Reply) -> Answer:
    _check(request.body)
    completion = complete(_prompt(request.body), reply)
    if not request.body.get("stream"):
        return json_answer(200, _completion(request, completion, reply), _headers(request))
    pieces = tuple(_stream(request, completion, reply))
    return Answer(200, "text/event-stream; charset=utf-8", pieces, _headers(request))


def _reject(message: str, code: str | None = None, param: str | None = None) -> NoReturn:
    raise VendorError(400, INVALID, message, code, param)


def _check(body: Any) -> None:
    if not isinstance(body, dict):
        _reject("We could not parse the JSON body of your request.")
    if unknown := sorted(body.keys() - set(PARAMETERS.split())):
        _reject(f"Unrecognized request argument supplied: {unknown[0]}")
    if not body.get("model"):
        _reject("you must provide a model parameter")
    if "messages" not in body:
        _reject("Missing required parameter: 'messages'.", "missing_required_parameter", "messages")
    if not body["messages"]:
        _reject("Invalid 'messages': empty array.", "empty_array", "messages")
    _check_numbers(body)
    _check_model(body)
    _check_messages(body["messages"])
    for name, needs in (
        ("tool_choice", "tools"),
        ("parallel_tool_calls", "tools"),
        ("stream_options", "stream"),
    ):
        if body.get(name) is not None and not body.get(needs):
            _reject(f"'{name}' is only allowed when '{needs}' is specified.", None, name)
    kind = (body.get("response_format") or {}).get("type")
    if kind == "json_object" and "json" not in str(body["messages"]).lower():
        _reject("'messages' must contain the word 'json' in some form.", None, "messages")


def _check_numbers(body: dict[str, Any]) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and body[name] < 1:
            message = f"Invalid '{name}': integer below minimum value."
            _reject(message, "integer_below_min_value", name)
    for name, maximum in (("temperature", 2), ("top_p", 1)):
        if body.get(name) is not None and body[name] > maximum:
            message = f"Invalid '{name}': decimal above maximum value."
            _reject(message, "decimal_above_max_value", name)


def _check_model(body: dict[str, Any]) -> None:
    """Refuses what the model at hand does not take, though others do."""
    effort = body.get("reasoning_effort")
    always = ALWAYS_REASONS.match(body["model"])
    unsupported = {"stop"} if always else set()
    if CAN_REASON.match(body["model"]):
        unsupported.add("max_tokens")
    elif effort is not None:
        _reject("Unrecognized request argument supplied: reasoning_effort")
    if always or effort not in (None, "none"):
        unsupported.add("top_p")
        if body.get("temperature") not in (None, 1):
            message = "Unsupported value: only the default (1) value is supported."
            _reject(message, "unsupported_value", "temperature")
    for name in sorted(unsupported):
        if body.get(name) is not None:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            _reject(message, "unsupported_parameter", name)


def _check_messages(messages: list[dict[str, Any]]) -> None:
    """Roles, and every tool call answered by the tool messages right behind it."""
    open_calls: set[str] = set()
    for index, message in enumerate([*messages, {"role": "user"}]):
        param = f"messages.[{index}].role"
        role = message.get("role")
        if role not in ROLES:
            _reject(f"Invalid value: '{role}'.", "invalid_value", param)
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                _reject("Role 'tool' must be a response to 'tool_calls'.", None, param)
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            missing = ", ".join(sorted(open_calls))
            _reject(f"These tool_call_ids did not have response messages: {missing}", None, param)
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}


def _prompt(body: dict[str, Any]) -> Prompt:
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


def _completion(request: Request, completion: Completion, reply: Reply) -> dict[str, Any]:
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
    choice = {"index": 0, "message": message, "logprobs": None}
    choice["finish_reason"] = _finish_reason(request, completion)
    whole = {**_head(request, reply, "chat.completion"), "choices": [choice]}
    return whole | ({"usage": _usage(completion)} if completion.usage else {})


def _stream(request: Request, completion: Completion, reply: Reply) -> Iterator[Piece]:
    head = _head(request, reply, "chat.completion.chunk")
    options = request.body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage")) and completion.usage is not None

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        # With include_usage every chunk has the member, null in all but the last.
        return _event({**head, "choices": [choice]} | ({"usage": None} if with_usage else {}))

    yield Piece(chunk({"role": "assistant", "content": "", "refusal": None}))
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
        yield Piece(_event({**head, "choices": [], "usage": _usage(completion)}))
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


def _models() -> dict[str, Any]:
    entry = {"object": "model", "created": 1735689600, "owned_by": "sandbox"}
    return {"object": "list", "data": [{"id": model, **entry} for model in MODELS]}


def _headers(request: Request) -> dict[str, str]:
    return {"x-request-id": f"req_sandbox{request.number}"}


def _error_body(error: VendorError) -> dict[str, Any]:
    members = {"message": error.message, "type": error.type, "param": error.param}
    return {"error": members | {"code": error.code}}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + to_json(data) + b"\n\n"
