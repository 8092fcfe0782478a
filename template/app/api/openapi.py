"""The OpenAPI document: describes the service's own routes; the owner's are the framework's."""

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from .problems import MEDIA_TYPE
from .schemas import ChatCompletionRequest

DESCRIPTION: Final = (
    "A guarded LLM service. `POST /v1/chat/completions` speaks OpenAI's format: point any OpenAI"
    " client at `/v1`."
)

VERSION: Final = "0.1.0"
"""Of your API, as the document gives it."""

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


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """Adds to what a framework says of the owner's routes the service's own, the form of errors,
    and how callers authenticate."""
    _, schemas = models_json_schema([(ChatCompletionRequest, "validation")], ref_template=_REF)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas["$defs"], Problem=_PROBLEM)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    document["paths"] = {**_service_paths(), **document.get("paths", {})}
    return document


def _service_paths() -> dict[str, Any]:
    return {
        "/v1/chat/completions": {"post": _chat_completions()},
        "/v1/models": {
            "get": _operation("chat", "List models", _json("The ids `model` may have."))
        },
        "/livez": {"get": _probe("Live", "The process answers.")},
        "/readyz": {
            "get": _probe("Ready", "It takes requests; `store` says whether the store answers.")
            | {"responses": {"200": _json("Ready."), "503": _json("Draining.")}}
        },
        "/metrics": {
            "get": _operation(
                "operations",
                "Metrics",
                {"description": "In Prometheus' text format.", "content": {"text/plain": {}}},
            )
        },
    }


def _chat_completions() -> dict[str, Any]:
    success = {
        "description": "A completion; with `stream: true` its pieces as server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
    return {
        **_operation("chat", "Create a chat completion", success),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model="ChatCompletionRequest")}}
            },
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
            **{status: problem_response(text) for status, text in _ERRORS.items()},
        },
    }


def _operation(tag: str, summary: str, success: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": [tag],
        "summary": summary,
        "operationId": summary.lower().replace(" ", "_"),
        "responses": {"200": success, "default": problem_response()},
    }


def _probe(summary: str, text: str) -> dict[str, Any]:
    return {**_operation("operations", summary, _json(text)), "security": []}


def _json(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {}}}


def problem_response(text: str = "Any error.") -> dict[str, Any]:
    """An error, as a response of the document."""
    schema = {"$ref": _REF.format(model="Problem")}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}
