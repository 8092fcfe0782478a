"""Errors as both kinds of client read them: RFC 9457, with OpenAI's `error` member inside."""

from typing import Any, Final

import orjson

from ..caller import Caller
from ..errors import ServiceError

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
    if error.status >= 500 and caller.record.error is None:
        caller.record.error = error
        caller.record.traceback = error.__traceback__
    return orjson.dumps(problem_document(error, caller.request_id))


def problem_headers(error: ServiceError) -> dict[str, str]:
    headers = {"content-type": MEDIA_TYPE, **error.headers}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return headers
