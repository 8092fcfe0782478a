"""Errors as both kinds of client read them: RFC 9457, with OpenAI's `error` member inside."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from ..caller import Caller
from ..errors import EndpointError, MethodNotAllowed, NotFound, ServiceError

MEDIA_TYPE: Final = "application/problem+json"


def problem_document(error: ServiceError, request_id: str) -> dict[str, Any]:
    return {
        "type": f"urn:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "request_id": request_id,
        "error": error_member(error),
    }


def error_member(error: ServiceError) -> dict[str, Any]:
    """OpenAI's error object, which its SDKs turn into exceptions."""
    return {
        "message": error.detail,
        "type": error.error_type,
        "code": error.code,
        "param": error.param,
    }


def problem_body(error: ServiceError, caller: Caller) -> bytes:
    """The document as bytes; the caller's record keeps why, and for 5xx the error itself."""
    if caller.record.outcome == "ok":
        caller.record.outcome = "failed" if caller.record.attempts else "refused"
    caller.record.refusal = error.code
    caller.record.shortage = error.shortage
    caller.record.retry_after_seconds = error.retry_after_seconds
    if error.status >= 500 and caller.record.error is None:
        caller.record.error = error
        caller.record.traceback = error.__traceback__
    return orjson.dumps(problem_document(error, caller.request_id))


def problem_headers(error: ServiceError) -> dict[str, str]:
    headers = {"content-type": MEDIA_TYPE, **error.headers}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return headers


def framework_error(
    status: int, detail: str, headers: Mapping[str, str] | None, method: str
) -> ServiceError:
    """What a framework's own HTTP error becomes: no route, another method, or the owner's own."""
    kept = {name.lower(): value for name, value in (headers or {}).items()}
    match status:
        case 404 if detail == HTTPStatus.NOT_FOUND.phrase:
            return NotFound("There is no such route.", headers=kept)
        case 404:
            return NotFound(detail, headers=kept)
        case 405:
            allow = kept.get("allow", "other methods")
            return MethodNotAllowed(f"This route takes {allow}, not {method}.", headers=kept)
        case _:
            return EndpointError(detail, status=status, headers=kept)
