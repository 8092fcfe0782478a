"""Alerts to Sentry, through a client of the service's own.

Nothing is installed into the process: no integration, no breadcrumb, no hook. An event holds what
stands in `_event`: of an exception its stack, as file, line and function, and its message without
secrets and without what the request had said.
"""

import asyncio
import tomllib
from collections.abc import Iterator
from typing import Any, Final

import sentry_sdk

from ... import policy
from .alerts import Alert
from .failures import ROOT, Failure, Frame
from .redaction import Redactor

SENT: Final = frozenset(
    {
        "environment",
        "event_id",
        "exception",
        "fingerprint",
        "level",
        "logentry",
        "platform",
        "release",
        "sdk",
        "tags",
        "timestamp",
        "transaction",
    }
)
"""The members of an event that leave; what else the SDK adds, such as the host's name, stays."""


class Sentry:
    """Its sending is a thread of the SDK's, with a queue that is bounded."""

    name = "sentry"

    def __init__(self, dsn: str, service: str, environment: str, redact: Redactor) -> None:
        self._redact = redact
        self._client = sentry_sdk.Client(
            dsn,
            release=_release(service),
            environment=environment,
            before_send=self._only_what_may_leave,
            transport_queue_size=policy.ALERT_QUEUE,
            integrations=[],
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            send_client_reports=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            max_request_body_size="never",
            spotlight=False,  # else a variable would send events elsewhere, too
        )

    def start(self) -> None:
        """Its thread begins with the first event."""

    def send(self, alert: Alert) -> None:
        self._client.capture_event(_event(alert))

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close, policy.ALERT_TIMEOUT_SECONDS)

    def _only_what_may_leave(self, event: Any, hint: Any) -> Any:
        return {name: self._redacted(event[name]) for name in SENT if event.get(name)}

    def _redacted(self, value: Any) -> Any:
        match value:
            case str():
                return self._redact(value)
            case list():
                return [self._redacted(item) for item in value]
            case dict():
                return {name: self._redacted(item) for name, item in value.items()}
            case _:
                return value


def _event(alert: Alert) -> Any:
    event: dict[str, Any] = {
        "timestamp": alert.at,
        "level": "error" if alert.failure else "warning",
        "logentry": {"formatted": alert.text},
        "tags": {"kind": alert.kind},
    }
    if alert.failure is None:
        # Its text has figures in it, and is the same issue all the same.
        return {**event, "fingerprint": [alert.kind]}
    event["exception"] = {"values": list(_exceptions(alert.failure))}
    event["transaction"] = alert.failure.place
    if alert.failure.request_id:
        event["tags"]["request_id"] = alert.failure.request_id
    return event


def _exceptions(failure: Failure) -> Iterator[dict[str, Any]]:
    """Sentry wants the cause first."""
    for error, frames in reversed(failure.chain()):
        yield {
            "type": type(error).__name__,
            "module": type(error).__module__,
            "value": failure.message_of(error),
            "mechanism": {"type": "generic", "handled": False},
            "stacktrace": {"frames": [_frame(frame) for frame in frames]},
        }


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "filename": frame.path,
        "module": frame.module,
        "function": frame.function,
        "lineno": frame.line,
        "in_app": frame.is_own,
    }


def _release(service: str) -> str:
    """`name@version`; empty where the project's file did not come along."""
    try:
        with (ROOT / "pyproject.toml").open("rb") as file:
            return f"{service}@{tomllib.load(file)['project']['version']}"
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return ""
