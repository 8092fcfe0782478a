"""Stand-in of a server that speaks OpenAI's chat completions, such as vLLM or Ollama.

It takes what all of them take and refuses what some of them refuse, and any model name is taken. It
asks for no key, but a wrong one is refused. A model whose reply has reasoning tokens shows its
thoughts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from sandbox.chat_completions import (
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
from sandbox.model import Completion, Reply, complete
from sandbox.vendors import (
    Answer,
    ErrorName,
    Piece,
    Request,
    Vendor,
    VendorError,
    find_error,
    json_answer,
)

PARAMETERS = """
    frequency_penalty max_tokens messages model n parallel_tool_calls presence_penalty
    response_format seed stop stream stream_options temperature tool_choice tools top_p
"""
MODEL = "sandbox/some-model:8b"
BAD_REQUEST = "BadRequestError"
USD_PER_MTOK = {"INPUT": "0.5", "OUTPUT": "1.5"}
"""Declared, as no list knows what such a server costs."""


class StandIn(Vendor):
    name: ClassVar[str] = "openai_compatible"
    prefix: ClassVar[str] = "/openai_compatible/v1"
    api_key: ClassVar[str] = "sandbox-compatible-2b7e4d90c1f6"
    # Where servers differ, an error here is worded as one of those that say the least.
    errors: ClassVar[Mapping[ErrorName, VendorError]] = {
        "invalid_request": VendorError(400, BAD_REQUEST, "Invalid request."),
        "invalid_api_key": VendorError(401, "AuthenticationError", "Unauthorized"),
        "permission_denied": VendorError(403, "PermissionDeniedError", "No access to it."),
        "model_not_found": VendorError(404, "NotFoundError", "The model does not exist."),
        "rate_limited": VendorError(429, "RateLimitError", "Too many requests."),
        "quota_exhausted": VendorError(402, "PaymentRequiredError", "Insufficient credits"),
        "spend_limit": VendorError(400, "budget_exceeded", "Budget has been exceeded!"),
        "context_too_long": VendorError(
            400,
            BAD_REQUEST,
            "This model's maximum context length is 8192 tokens. However, you requested 9000.",
        ),
        "content_policy": VendorError(
            400, BAD_REQUEST, "Your prompt was flagged.", "content_policy_violation"
        ),
        "server_error": VendorError(500, "InternalServerError", "The server had an error."),
        "overloaded": VendorError(503, "ServiceUnavailableError", "The server is overloaded."),
    }

    def environment(self, origin: str) -> dict[str, str]:
        return {
            "OPENAI_COMPATIBLE_API_KEY": self.api_key,
            "OPENAI_COMPATIBLE_BASE_URL": origin + self.prefix,
            "OPENAI_COMPATIBLE_MODEL": MODEL,
            **{
                f"OPENAI_COMPATIBLE_{direction}_USD_PER_MTOK": price
                for direction, price in USD_PER_MTOK.items()
            },
        }

    def answer(self, request: Request, reply: Reply) -> Answer:
        if request.headers.get("authorization", self._expected) != self._expected:
            raise find_error(self, "invalid_api_key", None, None)
        match request.method, request.path:
            case "GET", "/models":
                return json_answer(200, models([MODEL]), {})
            case "POST", "/chat/completions":
                return _chat(request, reply)
            case _:
                raise VendorError(404, "NotFoundError", "Not Found")

    @property
    def _expected(self) -> str:
        return f"Bearer {self.api_key}"

    def error_type(self, status: int) -> str:
        return "InternalServerError" if status >= 500 else BAD_REQUEST

    def error_answer(self, error: VendorError, request: Request) -> Answer:
        return json_answer(error.status, _error_body(error), {})

    def error_event(self, error: VendorError, request: Request) -> bytes:
        return event(_error_body(error)) + b"data: [DONE]\n\n"


def _chat(request: Request, reply: Reply) -> Answer:
    _check(request.body)
    completion = complete(prompt(request.body), reply)
    if not request.body.get("stream"):
        body = reply_body(request, completion, reply, thoughts=_thoughts(completion))
        return json_answer(200, body, {})
    return Answer(200, "text/event-stream", tuple(_stream(request, completion, reply)))


def _check(body: Any) -> None:
    if not isinstance(body, dict):
        reject("The body is no JSON object.")
    if unknown := sorted(body.keys() - set(PARAMETERS.split())):
        reject("Extra inputs are not permitted", "extra_forbidden", unknown[0])
    for name in ("model", "messages"):
        if not body.get(name):
            reject("Field required", "missing", name)
    check_numbers(body)
    check_companions(body)
    check_messages(body["messages"])
    if any(message["role"] in ("developer", "function") for message in body["messages"]):
        reject("Unexpected message role.", None, "messages")


def _stream(request: Request, completion: Completion, reply: Reply) -> Iterator[Piece]:
    first, *rest = reply_pieces(request, completion, reply, thoughts=_thoughts(completion))
    # Routers keep a connection open with comments while they look for somebody to answer.
    yield replace(first, data=b": PROCESSING\n\n" + first.data)
    yield from rest


def _thoughts(completion: Completion) -> str:
    return "Let me see." if completion.usage and completion.usage.reasoning_tokens else ""


def _error_body(error: VendorError) -> dict[str, Any]:
    return error_body(error, error.code or error.status)
