"""What the OpenAPI document says beyond what a framework finds out by itself."""

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from .problems import MEDIA_TYPE
from .schemas import ChatCompletionRequest

DESCRIPTION: Final = (
    "A guarded LLM service. `POST /v1/chat/completions` speaks OpenAI's format: point any OpenAI"
    " client at `/v1`."
)

_REF: Final = "#/components/schemas/{model}"
_ERRORS: Final = {
    "400": "A parameter is wrong or not supported; `error.param` names it.",
    "401": "The API key is missing or not known.",
    "404": "There is no such model.",
    "409": "The same request is still running, or its reply was too large to keep.",
    "413": "The body or the input is too long.",
    "422": "The `Idempotency-Key` came with another body before.",
    "429": "The caller's rate limit or daily budget is used up.",
    "503": "No provider, no budget or no store; `Retry-After` says when to come back.",
}
_PROBLEM: Final = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457, with OpenAI's `error` member.",
    "required": ["type", "title", "status", "detail", "request_id", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        },
    },
}


def chat_completions_docs() -> dict[str, Any]:
    """The request's body (it is parsed by hand) and the answers of the chat endpoint."""
    problem = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    success = {
        "description": "A completion; with `stream: true` its pieces as server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
    request_schema = {"$ref": _REF.format(model="ChatCompletionRequest")}
    return {
        "summary": "Create a chat completion",
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": request_schema}},
            },
            "parameters": [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "required": False,
                    "description": "A repeat with the same key and body gets the same reply.",
                    "schema": {"type": "string", "maxLength": 255},
                }
            ],
            "responses": {
                "200": success,
                **{
                    status: {"description": text, "content": problem}
                    for status, text in _ERRORS.items()
                },
            },
        },
    }


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """Adds the schemas that the framework did not see, and how callers authenticate."""
    _, schemas = models_json_schema([(ChatCompletionRequest, "validation")], ref_template=_REF)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas["$defs"], Problem=_PROBLEM)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    return document
