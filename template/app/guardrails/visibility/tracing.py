"""OpenTelemetry traces, sent to a collector over HTTP. Imported only where they are wanted.

One trace a request: its server span, and under it the steps of each model call. Names are those of
the HTTP and GenAI conventions; `guardrail.*` is what these have no name for. Neither prompt nor
reply is ever in a span, nor a path or a query that a caller has made up.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ... import policy
from ...caller import Caller
from ...errors import ServiceError
from ...messages import ChatReply, ChatRequest, TokenUsage
from .redaction import Redactor
from .request_log import Logger

METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
TRACES_PATH: Final = "/v1/traces"

Attributes = Mapping[str, str | bool | int | float | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as the conventions see it."""

    provider: str
    model: str
    base_url: str

    @property
    def attributes(self) -> Attributes:
        url = urlsplit(self.base_url)
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self.provider,
            "gen_ai.request.model": self.model,
            "server.address": url.hostname or "",
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }


@dataclass(frozen=True, slots=True)
class Collector:
    """Where traces go. `url` is the base URL, as in `OTEL_EXPORTER_OTLP_ENDPOINT`."""

    url: str
    headers: Mapping[str, str]


class Tracing:
    """Begins and ends the traces of requests, and sends them from a thread of its own.

    A collector that is slow or gone costs spans and nothing else: what does not fit the queue is
    dropped. Nothing is registered for the process as a whole.
    """

    def __init__(
        self,
        collector: Collector,
        resource: Mapping[str, str],
        upstreams: Mapping[tuple[str, str], Upstream],
        logger: Logger,
        redact: Redactor,
    ) -> None:
        _silence("opentelemetry.util")  # quotes headers that it cannot read
        self._provider = TracerProvider(
            # The environment (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) knows better.
            resource=Resource.create(resource).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(collector, logger)))
        self._tools = _Tools(
            self._provider.get_tracer("app"),
            {
                asked: (f"chat {upstream.model}", upstream.attributes)
                for asked, upstream in upstreams.items()
            },
            redact,
        )
        # From here on `_Exporter` says what has to be said: these say it often, with the address.
        _silence("opentelemetry")
        _silence("urllib3")

    def request_began(
        self, scope: Mapping[str, Any], route: str, headers: Mapping[str, str]
    ) -> "RequestTrace":
        """Goes on with the trace that the caller's `traceparent` names, if it is well formed."""
        method = scope["method"] if scope["method"] in METHODS else "HTTP"
        span = self._tools.tracer.start_span(
            f"{method} {route}" if route.startswith("/") else method,
            context=_PROPAGATOR.extract(headers),
            kind=SpanKind.SERVER,
            attributes=_request_attributes(scope, route),
        )
        return RequestTrace(span, self._tools)

    def request_ended(self, caller: Caller, *, status: int, error: BaseException | None) -> None:
        """`status` is 0 where nobody was answered."""
        if not isinstance(caller.trace, RequestTrace):
            return
        span = caller.trace.span
        if span.is_recording():
            span.set_attributes(_response_attributes(caller, status))
            if error_type := _error_type(status, error):
                _blame(span, error_type)
        span.end()

    async def close(self) -> None:
        """Sends what is waiting, for as long as `TRACE_FLUSH_SECONDS`."""
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(closed.set)

        # A thread of an executor would be waited for at exit, however long the collector is silent.
        threading.Thread(target=shut_down, daemon=True, name="traces-flush").start()
        with suppress(TimeoutError):
            async with asyncio.timeout(policy.TRACE_FLUSH_SECONDS):
                await closed.wait()


@dataclass(frozen=True, slots=True)
class _Tools:
    tracer: Tracer
    upstreams: Mapping[tuple[str, str], tuple[str, Attributes]]
    """Name and attributes that the spans begin with, of each provider's each model."""
    redact: Redactor


class RequestTrace:
    """The trace of one request, from its server span or a step of it on."""

    def __init__(self, span: Span, tools: _Tools) -> None:
        self.span = span
        self._tools = tools
        self._context = set_span_in_context(span)

    @property
    def id(self) -> str | None:
        context = self.span.get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else None

    @contextmanager
    def step(self, name: str) -> Iterator["RequestTrace"]:
        span = self._tools.tracer.start_span(name, context=self._context)
        try:
            yield RequestTrace(span, self._tools)
        except ServiceError as refusal:
            span.set_attribute("guardrail.refusal", refusal.code)
            if refusal.status >= 500:
                _blame(span, refusal.code)
            raise
        except BaseException as error:
            _blame(span, type(error).__name__)
            raise
        finally:
            span.end()

    def attempt(
        self, provider: str, model: str, request: ChatRequest, *, stream: bool
    ) -> "ProviderTrace":
        name, attributes = self._tools.upstreams[provider, model]
        span = self._tools.tracer.start_span(
            name, context=self._context, kind=SpanKind.CLIENT, attributes=attributes
        )
        if span.is_recording():
            span.set_attributes(_parameters(request, stream))
        return ProviderTrace(span, self._tools.redact)


class ProviderTrace:
    """One request to a provider."""

    def __init__(self, span: Span, redact: Redactor) -> None:
        self._span = span
        self._redact = redact
        self._has_ended = False
        self._has_begun = False
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(span))
        # The `tracestate` is the caller's and its vendors'; it is no business of the provider's.
        carrier.pop("tracestate", None)
        self.headers: Mapping[str, str] = carrier

    def began(self, seconds: float) -> None:
        self._has_begun = True
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def answered(self, reply: ChatReply) -> None:
        self._span.set_attributes(
            {
                "gen_ai.response.id": reply.id,
                "gen_ai.response.model": reply.model,
                "gen_ai.response.finish_reasons": (reply.finish_reason,),
                **_usage(reply.usage),
            }
        )
        self._end()

    def failed(
        self,
        error_type: str,
        message: str = "",
        *,
        status: int | None = None,
        usage: TokenUsage | None = None,
    ) -> None:
        if self._has_ended:
            return
        attributes = dict(_usage(usage))
        if status is not None:
            attributes["http.response.status_code"] = status
        if self._has_begun:
            attributes["gen_ai.response.finish_reasons"] = ("error",)
        self._span.set_attributes(attributes)
        _blame(self._span, error_type, self._redact(message))
        self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._span.end()


class _Exporter(SpanExporter):
    """Says in the log when the collector stops taking spans and when it takes them again."""

    def __init__(self, collector: Collector, logger: Logger) -> None:
        self._session = _Session()
        self._exporter = OTLPSpanExporter(
            collector.url.rstrip("/") + TRACES_PATH,
            headers=dict(collector.headers),
            session=self._session,
        )
        self._logger = logger
        self._is_taken = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_taken = result is SpanExportResult.SUCCESS
        if is_taken and not self._is_taken:
            self._logger.info("traces_sent_again")
        elif not is_taken and self._is_taken:
            self._logger.warning("traces_not_sent", reason=self._session.outcome)
        self._is_taken = is_taken
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Session(requests.Session):
    """Remembers how the last request ended, which the exporter tells only in its log."""

    outcome = ""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        try:
            response = super().send(request, **kwargs)
        except Exception as error:
            # What it says names the address, which may be a secret.
            self.outcome = type(error).__name__
            raise
        self.outcome = f"status {response.status_code}"
        if 300 <= response.status_code < 400:
            # It is not followed, and the exporter would take it for success.
            raise requests.HTTPError(self.outcome)
        return response


_PROPAGATOR: Final = TraceContextTextMapPropagator()


def _request_attributes(scope: Mapping[str, Any], route: str) -> Attributes:
    """`route` is no path where none has matched."""
    method, server = scope["method"], scope.get("server") or (None, None)
    attributes = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "http.route": route if route.startswith("/") else None,
        # Any other path holds what a caller has written.
        "url.path": route if route == scope["path"] else None,
        "url.scheme": scope.get("scheme"),
        "network.protocol.version": scope.get("http_version"),
        "server.address": server[0],
        "server.port": server[1],
    }
    return _given(attributes)


def _response_attributes(caller: Caller, status: int) -> Attributes:
    record = caller.record
    attributes: dict[str, Any] = {
        "http.response.header.x-request-id": (caller.request_id,),
        "guardrail.outcome": record.outcome,
    }
    if status:
        attributes["http.response.status_code"] = status
    if record.refusal:
        attributes["guardrail.refusal"] = record.refusal
    if record.attempts or record.replayed:
        attributes["guardrail.replayed"] = record.replayed
        attributes["guardrail.cost_usd"] = record.cost_nano_usd / 1e9
        attributes["guardrail.attempts"] = [
            f"{attempt.provider}:{attempt.outcome}" for attempt in record.attempts
        ]
    return attributes


def _error_type(status: int, error: BaseException | None) -> str | None:
    """What makes the server span an error: ours, not the caller's."""
    if isinstance(error, ServiceError):
        return error.code
    if error is not None:
        return type(error).__name__
    return str(status) if status >= 500 else None


def _parameters(request: ChatRequest, stream: bool) -> Attributes:
    parameters = {
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.seed": request.seed,
        "gen_ai.request.stream": stream or None,
        "gen_ai.output.type": "json" if request.response_format else None,
    }
    return _given(parameters)


def _usage(usage: TokenUsage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    details = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        **{name: tokens for name, tokens in details.items() if tokens},
    }


def _given(attributes: Mapping[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _blame(span: Span, error_type: str, message: str = "") -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, message or None))


def _silence(logger: str) -> None:
    """Keeps what a library logs to itself."""
    silenced = logging.getLogger(logger)
    silenced.propagate = False
    if not silenced.handlers:
        silenced.addHandler(logging.NullHandler())
