"""One structured line for each request, and one form for every other line of the process.

JSON, or text for people. What others log (the server, libraries) goes
through the same pipeline.
"""

import logging
import os
import sys
from types import TracebackType
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from ...caller import Attempt, Caller, Record
from .failures import Failure, text_of
from .redaction import CURRENT, Prompt, Redactor

Logger = FilteringBoundLogger

MAX_ERROR_CHARACTERS: Final = 200


def configure_logging(*, level: str, json: bool, redact: Redactor) -> Logger:
    """Returns the service's logger and points the standard library's loggers to the same output."""
    stream = sys.stdout
    clock = structlog.processors.TimeStamper(
        fmt="iso" if json else "%Y-%m-%d %H:%M:%S", utc=json, key="time"
    )
    enrich: list[Processor] = [
        structlog.stdlib.add_log_level,
        clock,
        structlog.processors.format_exc_info,
    ]
    render = _json_renderer(redact) if json else _console_renderer(redact, stream)
    _configure_standard_library(level, enrich, render, stream)
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[*enrich, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
    )
    return logger


class RequestLog:
    """Writes the line that every request ends with, however it ends."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def write(
        self,
        caller: Caller,
        *,
        method: str,
        route: str,
        status: int,
        duration_seconds: float,
        error: BaseException | None,
    ) -> None:
        """`error` is an unexpected exception; its message and stack go into the line."""
        prompt = Prompt.of(caller, route)
        fields = _request_fields(caller, method, route, status, duration_seconds, prompt)
        if error is not None:
            stack = error.__traceback__ or caller.record.traceback
            self._logger.error("request", **fields, **_error_fields(error, stack, prompt))
        elif status >= 500:
            self._logger.error("request", **fields)
        else:
            self._logger.info("request", **fields)


def _request_fields(
    caller: Caller, method: str, route: str, status: int, duration_seconds: float, prompt: Prompt
) -> dict[str, Any]:
    """Their names are stable; README.md says what each means."""
    record = caller.record
    fields: dict[str, Any] = {
        "request_id": caller.request_id,
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": _milliseconds(duration_seconds),
        "caller": caller.name,
        "outcome": record.outcome,
    }
    if caller.trace.id:
        fields["trace_id"] = caller.trace.id
    if record.refusal:
        fields |= _refusal_fields(record, prompt)
    if record.provider or record.attempts or record.replayed:
        fields |= _call_fields(record, prompt)
    if record.first_token_seconds is not None:
        fields["first_token_ms"] = _milliseconds(record.first_token_seconds)
    for phase, seconds in record.phases.items():
        fields[f"{phase}_ms"] = _milliseconds(seconds)
    if record.trimmed_messages:
        fields["trimmed_messages"] = record.trimmed_messages
        fields["summarized_messages"] = record.summarized_messages
    return fields


def _refusal_fields(record: Record, prompt: Prompt) -> dict[str, Any]:
    code = record.refusal or ""
    # After an attempt the code may be the vendor's, which may say anything.
    fields: dict[str, Any] = {"refusal": prompt.remove_from(code) if record.attempts else code}
    if record.shortage is not None:
        known = {
            "limit": record.shortage.limit,
            "left": record.shortage.left,
            "asked": record.shortage.asked,
        }
        fields |= {name: value for name, value in known.items() if value is not None}
    if record.retry_after_seconds is not None:
        fields["retry_after_seconds"] = record.retry_after_seconds
    return fields


def _call_fields(record: Record, prompt: Prompt) -> dict[str, Any]:
    fields = {
        "provider": record.provider,
        "model": record.model,
        "attempts": [_attempt_fields(attempt, prompt) for attempt in record.attempts],
        "input_tokens": record.input_tokens,
        "estimated_input_tokens": record.estimated_input_tokens,
        "output_tokens": record.output_tokens,
        "cost_usd": record.cost_nano_usd / 1e9,
        "replayed": record.replayed,
    }
    if record.cached_input_tokens:
        fields["cached_input_tokens"] = record.cached_input_tokens
    if record.reasoning_tokens:
        fields["reasoning_tokens"] = record.reasoning_tokens
    return fields


def _attempt_fields(attempt: Attempt, prompt: Prompt) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "provider": attempt.provider,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "started_ms": _milliseconds(attempt.started_seconds),
        "waited_ms": _milliseconds(attempt.waited_seconds),
        "duration_ms": _milliseconds(attempt.duration_seconds),
        "cost_usd": attempt.cost_nano_usd / 1e9,
    }
    if attempt.is_summary:
        fields["summary"] = True
        fields["model"] = attempt.model
    if attempt.cut_by is not None:
        fields["cut_by"] = attempt.cut_by
    if attempt.error is not None:
        # A vendor's error code stands in it.
        fields["error"] = prompt.remove_from(attempt.error[:MAX_ERROR_CHARACTERS])
    if attempt.vendor_request_id is not None:
        fields["vendor_request_id"] = attempt.vendor_request_id
    return fields


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _error_fields(
    error: BaseException, traceback: TracebackType | None, prompt: Prompt
) -> dict[str, str]:
    exc_info = (type(error), error, traceback)
    stack = structlog.processors.ExceptionRenderer()(None, "error", {"exc_info": exc_info})
    return {
        "error_type": type(error).__name__,
        "error_message": prompt.remove_from(text_of(error)),
        "stack": prompt.remove_from(str(stack["exception"])),
    }


def _without_prompt(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What others log of an exception: its stack, and what it says as far as a request is known
    that it may quote."""
    prompt = CURRENT.get()
    error = event.pop("exc_info", (None, None, None))[1]
    if error is not None:
        failure = Failure(error, error.__traceback__, prompt, place=str(event.get("logger")))
        event.update(error_type=failure.name, stack=failure.stack())
    if prompt is not None:
        event["event"] = prompt.remove_from(str(event["event"]))
    return event


def _json_renderer(redact: Redactor) -> Processor:
    def render(_: WrappedLogger, __: str, event: EventDict) -> str:
        first = {name: event.pop(name) for name in ("time", "level", "event")}
        return redact(orjson.dumps({**first, **event}, default=str).decode())

    return render


def _console_renderer(redact: Redactor, stream: TextIO) -> Processor:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        timestamp_key="time",
        pad_event_to=0,
        sort_keys=False,
        exception_formatter=_plain,
    )

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        if event["event"] == "request":
            event["event"] = " ".join(str(event.pop(n)) for n in ("method", "route", "status"))
        attempts, stack = event.pop("attempts", ()), event.pop("stack", None)
        line = str(console(logger, method, event))
        below = [f"    attempt {_in_words(attempt)}" for attempt in attempts]
        return redact("\n".join([line, *below, *([stack] if stack else [])]))

    return render


def _in_words(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)


def _plain(stream: TextIO, exc_info: Any) -> None:
    structlog.dev.plain_traceback(stream, exc_info)


def _configure_standard_library(
    level: str, enrich: list[Processor], render: Processor, stream: TextIO
) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _without_prompt, *enrich],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(noisy)
        logger.handlers = []
        logger.propagate = True
    # The request line above is the access log, and tells of a crash without quoting the prompt.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").addFilter(_is_no_requests_crash)
    logging.captureWarnings(True)
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _is_no_requests_crash(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Exception in ASGI application")
