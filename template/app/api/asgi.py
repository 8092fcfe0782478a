"""The outermost layer, pure ASGI: what makes every framework behave alike.

It owns start-up and shutdown, the request id, the caller's identity, the cap on the body, the form
of errors, the log line, and what happens when the caller leaves. Routing is the framework's.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..caller import Caller
from ..errors import (
    BodyTooLarge,
    InternalError,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    Shortage,
)
from ..guardrails.visibility.alerts import Alerts
from ..guardrails.visibility.failures import Failure
from ..guardrails.visibility.metrics import Metrics
from ..guardrails.visibility.redaction import CURRENT, Prompt
from ..guardrails.visibility.request_log import RequestLog
from ..shutdown import Shutdown
from .identity import Identity
from .problems import problem_body, problem_headers
from .route_table import RouteTable

if TYPE_CHECKING:
    from ..guardrails.visibility.tracing import Tracing  # off, it is not there

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CALLER_KEY: Final = "app.caller"
"""Where in the scope a framework's file finds the `Caller`."""

PROBES: Final = frozenset({"/livez", "/readyz"})
DOCUMENTATION: Final = frozenset({"/docs", "/openapi.json"})
METRICS: Final = "/metrics"
UNTRACED: Final = PROBES | {METRICS}
"""What machines ask every few seconds makes no trace."""

LISTS: Final = frozenset({"x-forwarded-for", "tracestate"})

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_RETRY_COUNT = re.compile(r"0*[1-9][0-9]*")


class Lifespan(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Api:
    """A framework's app, and its routes' templates, such as `/items/{id}` or `/files/{name:path}`.

    An exception that the app raises is the owner's own, as it was raised.
    """

    app: ASGIApp
    routes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Visibility:
    log: RequestLog
    metrics: Metrics
    alerts: Alerts
    tracing: "Tracing | None" = None


class Gateway:
    """Wraps a framework's app, and answers for it where the frameworks differ."""

    def __init__(
        self,
        api: Api,
        *,
        lifespan: Lifespan,
        shutdown: Shutdown,
        identity: Identity,
        visibility: Visibility,
        max_body_bytes: int,
    ) -> None:
        self._app = api.app
        self._routes = RouteTable(api.routes)
        self._lifespan = lifespan
        self._shutdown = shutdown
        self._identity = identity
        self._visibility = visibility
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case _:
                # The service has no WebSockets: refuse the handshake.
                await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._lifespan.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._lifespan.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        path = scope["path"]  # some frameworks rewrite it
        route = self._routes.template_of(path)
        headers = _headers(scope)
        caller = _caller(scope, headers)
        scope[CALLER_KEY] = caller
        if self._visibility.tracing is not None and path not in UNTRACED:
            caller.trace = self._visibility.tracing.request_began(scope, route, headers)
        response = Response(send, caller, self._shutdown)
        error: BaseException | None = None
        self._visibility.metrics.request_started()
        try:
            await self._answer(scope, receive, response, caller, headers, route)
        except Exception as unexpected:
            error = unexpected
            await self._crashed(response, caller, unexpected)
        except BaseException as ended:
            # Whoever left before a stream began has cancelled it: that is an end like any other.
            if caller.record.outcome != "disconnected":
                caller.record.outcome = "cancelled"
                error = ended
                raise
        finally:
            caller.gone()
            self._account(
                scope["method"],
                route,
                caller,
                response,
                started,
                error or caller.record.error,
            )

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        response: "Response",
        caller: Caller,
        headers: dict[str, str],
        route: str,
    ) -> None:
        try:
            self._identify(scope, headers, caller)
            caller.body = await self._read_body(receive, headers)
        except ServiceError as refused:
            await response.problem(refused)
            return
        except CallerLeft:
            caller.record.outcome = "disconnected"
            return
        prompt = Prompt.of(caller, route)
        CURRENT.set(prompt)
        connection = Connection(receive, caller, response)
        try:
            await self._app(scope, connection.receive, response.send)
        except ServiceError as refused:
            if response.started:
                raise
            await response.problem(refused)
        finally:
            connection.close()
            prompt.forget()

    def _identify(self, scope: Scope, headers: dict[str, str], caller: Caller) -> None:
        path = scope["path"]
        if path in PROBES or path in DOCUMENTATION:
            return
        if path == METRICS:
            self._identity.check_metrics(headers)
            return
        peer = scope.get("client")
        principal = self._identity.identify(headers, peer[0] if peer else None)
        caller.name = principal.name
        caller.authenticated = principal.authenticated

    async def _read_body(self, receive: Receive, headers: dict[str, str]) -> bytes:
        """The whole body, never more than the cap."""
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body_bytes:
            raise self._too_large(int(declared))
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise CallerLeft
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                raise self._too_large(None)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self, declared_bytes: int | None) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is longer than {self._max_body_bytes} bytes (MAX_BODY_BYTES); send less.",
            # What is left of the body is not read.
            headers={"connection": "close"},
            shortage=Shortage(self._max_body_bytes, declared_bytes),
        )

    async def _crashed(self, response: "Response", caller: Caller, error: Exception) -> None:
        if response.complete:
            # Some frameworks answer and then raise again; the connection is still good.
            caller.record.outcome = "crashed"
        elif not response.started:
            await response.problem(InternalError("The service failed; its log has the reason."))
            caller.record.outcome = "crashed"
        else:
            caller.record.outcome = "crashed"
            raise error

    def _account(
        self,
        method: str,
        route: str,
        caller: Caller,
        response: "Response",
        started: float,
        error: BaseException | None,
    ) -> None:
        """The line, the metrics, the trace's end and, for what nobody expected, the alert."""
        seconds = time.monotonic() - started
        status = response.status or 499
        if isinstance(error, Exception) and not isinstance(error, ServiceError):
            self._alert(error, f"{method} {route}", Prompt.of(caller, route), caller)
        self._visibility.log.write(
            caller,
            method=method,
            route=route,
            status=status,
            duration_seconds=seconds,
            error=error,
        )
        self._visibility.metrics.request_ended(
            caller, method=method, route=route, status=status, duration_seconds=seconds
        )
        if self._visibility.tracing is not None:
            self._visibility.tracing.request_ended(caller, status=response.status, error=error)

    def _alert(self, error: Exception, place: str, prompt: Prompt, caller: Caller) -> None:
        traceback = error.__traceback__ or caller.record.traceback
        failure = Failure(error, traceback, prompt, place, caller.request_id)
        self._visibility.alerts.fire(
            f"unhandled_error:{failure.name}@{failure.site}",
            f"{failure.name} at {place}, raised in {failure.site}; request {caller.request_id}. The"
            " caller got an error. The line of that request in the log has message and stack.",
            failure=failure,
        )


class CallerLeft(Exception):
    """The connection closed before the body was complete."""


class Connection:
    """What the framework reads from: the body once, then nothing until the response is over.

    A plain call does not hear of its caller's leaving and runs on; a stream that has begun does.
    """

    def __init__(self, receive: Receive, caller: Caller, response: "Response") -> None:
        self._caller = caller
        self._response = response
        self._body_read = False
        self._watch = asyncio.ensure_future(receive())
        self._watch.add_done_callback(self._on_disconnect)

    async def receive(self) -> Message:
        if not self._body_read:
            self._body_read = True
            return {"type": "http.request", "body": self._caller.body, "more_body": False}
        await self._response.over.wait()
        return {"type": "http.disconnect"}

    def close(self) -> None:
        self._watch.cancel()

    def _on_disconnect(self, watch: "asyncio.Future[Message]") -> None:
        if not watch.cancelled() and watch.exception() is None and not self._response.complete:
            self._caller.record.outcome = "disconnected"
            self._caller.gone()
            self._response.nobody_reads()


class Response:
    """What the framework writes to. Adds the headers, and puts errors into their one form.

    `over` is set when it is complete, or a stream that nobody reads any more.
    """

    def __init__(self, send: Send, caller: Caller, shutdown: Shutdown) -> None:
        self._send = send
        self._caller = caller
        self._shutdown = shutdown
        self._replacing: ServiceError | None = None
        self.status = 0
        self.started = False
        self.complete = False
        self.over = asyncio.Event()
        self._streaming = False
        self._unread = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._replacing = _replacement(message)
            if self._replacing is None:
                await self._start(message)
        elif self._replacing is None:
            await self._forward(message)
        elif not message.get("more_body", False):
            replacement, self._replacing = self._replacing, None
            await self.problem(replacement)

    def nobody_reads(self) -> None:
        self._unread = True
        if self._streaming:
            self.over.set()

    async def problem(self, error: ServiceError) -> None:
        body = problem_body(error, self._caller)
        headers = {**problem_headers(error), "content-length": str(len(body))}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._start(
            {"type": "http.response.start", "status": error.status, "headers": encoded}
        )
        await self._forward({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, message: Message) -> None:
        self.started = True
        self.status = message["status"]
        added = {"x-request-id": self._caller.request_id, **self._caller.headers}
        if self._shutdown.begun:
            # The next request would meet a port that closes.
            added["connection"] = "close"
        message["headers"] = [
            *message.get("headers", ()),
            *((name.encode(), value.encode()) for name, value in added.items()),
        ]
        await self._send(message)

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._streaming = bool(message.get("more_body", False))
            self.complete = not self._streaming
        await self._send(message)
        if self.complete or (self._streaming and self._unread):
            self.over.set()


def _replacement(start: Message) -> ServiceError | None:
    """The error behind a framework's own page (HTML or plain text); `None` for anything else."""
    headers = {bytes(k).lower(): bytes(v).decode("latin-1") for k, v in start.get("headers", ())}
    content_type = headers.get(b"content-type", "")
    if start["status"] not in (404, 405, 500) or "json" in content_type:
        return None
    match start["status"]:
        case 404:
            return NotFound("There is no such route.")
        case 405:
            allow = headers.get(b"allow", "")
            return MethodNotAllowed(
                f"This route takes {allow or 'other methods'}.",
                headers={"allow": allow} if allow else {},
            )
        case _:
            return InternalError("The service failed; its log has the reason.")


def _caller(scope: Scope, headers: dict[str, str]) -> Caller:
    given = headers.get("x-request-id", "")
    return Caller(
        name="-",
        authenticated=False,
        request_id=given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16),
        route=f"{scope['method']} {scope['path']}",
        query=scope.get("query_string", b"").decode("latin-1"),
        idempotency_key=headers.get("idempotency-key"),
        is_retry=_RETRY_COUNT.fullmatch(headers.get("x-stainless-retry-count", "")) is not None,
    )


def _headers(scope: Scope) -> dict[str, str]:
    """Lower-case names; the last of repeated headers, save that lists are joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined = name in LISTS and name in headers
        headers[name] = f"{headers[name]},{value}" if joined else value
    return headers
