"""Stand-in of OpenAI's Chat Completions API.

It refuses what OpenAI refuses. Parameters that could change nothing in a stand-in's answer are
accepted and ignored, and any model name is taken.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from sandbox.chat_completions import (
    INVALID,
    check_companions,
    check_messages,
    check_numbers,
    error_body,
    event,
    models,
    prompt,
    reject,
    reply_body,
    reply_pieces,
)
from sandbox.model import Reply, complete
from sandbox.vendors import (
    Answer,
    ErrorName,
    Request,
    Vendor,
    VendorError,
    json_answer,
)

PARAMETERS = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction
    presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort
    response_format safety_identifier seed service_tier stop store stream stream_options temperature
    tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
MODELS = ("gpt-6-luna", "gpt-5.4-mini", "gpt-4.1-mini")
CAN_REASON = re.compile(r"o\d|gpt-[5-9]")
ALWAYS_REASONS = re.compile(r"o\d|gpt-5(-mini|-nano)?(-\d{4}-\d\d-\d\d)?$")


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
                return json_answer(200, models(MODELS), _headers(request))
            case "POST", "/chat/completions":
                return _chat(request, reply)
            case method, path:
                raise VendorError(404, INVALID, f"Invalid URL ({method} {path})")

    def error_type(self, status: int) -> str:
        return "server_error" if status >= 500 else INVALID

    def error_answer(self, error: VendorError, request: Request) -> Answer:
        return json_answer(error.status, error_body(error, error.code), _headers(request))

    def error_event(self, error: VendorError, request: Request) -> bytes:
        # OpenAI has been seen to end such a stream as if it were whole:
        # https://github.com/sashabaranov/go-openai/pull/396
        return event(error_body(error, error.code)) + b"data: [DONE]\n\n"

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
    completion = complete(prompt(request.body), reply)
    if not request.body.get("stream"):
        return json_answer(200, reply_body(request, completion, reply), _headers(request))
    pieces = tuple(reply_pieces(request, completion, reply))
    return Answer(200, "text/event-stream; charset=utf-8", pieces, _headers(request))


def _check(body: Any) -> None:
    if not isinstance(body, dict):
        reject("We could not parse the JSON body of your request.")
    if unknown := sorted(body.keys() - set(PARAMETERS.split())):
        reject(f"Unrecognized request argument supplied: {unknown[0]}")
    if not body.get("model"):
        reject("you must provide a model parameter")
    if "messages" not in body:
        reject("Missing required parameter: 'messages'.", "missing_required_parameter", "messages")
    if not body["messages"]:
        reject("Invalid 'messages': empty array.", "empty_array", "messages")
    check_numbers(body)
    _check_model(body)
    check_messages(body["messages"])
    check_companions(body)
    kind = (body.get("response_format") or {}).get("type")
    if kind == "json_object" and "json" not in str(body["messages"]).lower():
        reject("'messages' must contain the word 'json' in some form.", None, "messages")


def _check_model(body: dict[str, Any]) -> None:
    """Refuses what the model at hand does not take, though others do."""
    effort = body.get("reasoning_effort")
    always = ALWAYS_REASONS.match(body["model"])
    unsupported = {"stop"} if always else set()
    if CAN_REASON.match(body["model"]):
        unsupported.add("max_tokens")
    elif effort is not None:
        reject("Unrecognized request argument supplied: reasoning_effort")
    if always or effort not in (None, "none"):
        unsupported.add("top_p")
        if body.get("temperature") not in (None, 1):
            message = "Unsupported value: only the default (1) value is supported."
            reject(message, "unsupported_value", "temperature")
    for name in sorted(unsupported):
        if body.get(name) is not None:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            reject(message, "unsupported_parameter", name)


def _headers(request: Request) -> dict[str, str]:
    return {"x-request-id": f"req_sandbox{request.number}"}
