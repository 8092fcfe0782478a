"""One structured line for each request, and one form for every other line of the process.

JSON, or text for people. What others log (the server, libraries) goes
through the same pipeline.
"""

import logging
import sys
from types import TracebackType
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from ...caller import Caller
from .redaction import Redactor, without_prompt

Logger = FilteringBoundLogger


def configure_logging(*, level: str, json: bool, redact: Redactor) -> Logger:
    """Returns the service's logger and points the standard library's loggers to the same output."""
    stream = sys.stdout
    enrich: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
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
        fields = _request_fields(caller, method, route, status, duration_seconds)
        if error is not None:
            stack = error.__traceback__ or caller.record.traceback
            self._logger.error("request", **fields, **_error_fields(error, stack, caller.body))
        elif status >= 500:
            self._logger.error("request", **fields)
        else:
            self._logger.info("request", **fields)


def _request_fields(
    caller: Caller, method: str, route: str, status: int, duration_seconds: float
) -> dict[str, Any]:
    record = caller.record
    fields: dict[str, Any] = {
        "request_id": caller.request_id,
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(duration_seconds * 1000, 1),
        "caller": caller.name,
        "outcome": record.outcome,
    }
    if record.refusal:
        fields["refusal"] = record.refusal
    if record.provider or record.attempts or record.replayed:
        fields |= {
            "provider": record.provider,
            "model": record.model,
            "attempts": [
                {
                    "provider": attempt.provider,
                    "outcome": attempt.outcome,
                    "status": attempt.status,
                    "duration_ms": round(attempt.duration_seconds * 1000, 1),
                }
                for attempt in record.attempts
            ],
            "input_tokens": record.input_tokens,
            "output_tokens": record.output_tokens,
            "cost_usd": record.cost_nano_usd / 1e9,
            "replayed": record.replayed,
        }
    if record.first_token_seconds is not None:
        fields["first_token_ms"] = round(record.first_token_seconds * 1000, 1)
    if record.trimmed_messages:
        fields["trimmed_messages"] = record.trimmed_messages
        fields["summarized_messages"] = record.summarized_messages
    return fields


def _error_fields(
    error: BaseException, traceback: TracebackType | None, body: bytes
) -> dict[str, str]:
    exc_info = (type(error), error, traceback)
    stack = structlog.processors.ExceptionRenderer()(None, "error", {"exc_info": exc_info})
    return {
        "error_type": type(error).__name__,
        "error_message": without_prompt(str(error), body),
        "stack": without_prompt(str(stack["exception"]), body),
    }


def _json_renderer(redact: Redactor) -> Processor:
    def render(_: WrappedLogger, __: str, event: EventDict) -> str:
        return redact(orjson.dumps(event, default=str).decode())

    return render


def _console_renderer(redact: Redactor, stream: TextIO) -> Processor:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="time", exception_formatter=_plain
    )

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        stack = event.pop("stack", None)
        line = console(logger, method, event)
        return redact(f"{line}\n{stack}" if stack else str(line))

    return render


def _plain(stream: TextIO, exc_info: Any) -> None:
    structlog.dev.plain_traceback(stream, exc_info)


def _configure_standard_library(
    level: str, enrich: list[Processor], render: Processor, stream: TextIO
) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *enrich],
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
    # The request line above is the access log.
    logging.getLogger("uvicorn.access").disabled = True
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
