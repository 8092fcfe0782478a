"""What receives a service's traces: OTLP over HTTP, as the OpenTelemetry collector takes it."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from .serving import eventually

SERVER, CLIENT, INTERNAL = (
    trace_pb2.Span.SPAN_KIND_SERVER,
    trace_pb2.Span.SPAN_KIND_CLIENT,
    trace_pb2.Span.SPAN_KIND_INTERNAL,
)
OK, ERROR = trace_pb2.Status.STATUS_CODE_UNSET, trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True)
class Span:
    """Times are in seconds since the epoch. A span without a parent has an empty `parent_id`."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    status: int
    message: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Batch:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def spans(self) -> list[Span]:
        request = ExportTraceServiceRequest.FromString(self.body)
        return [
            _span(span, _values(of_resource.resource.attributes))
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]


class Collector:
    """Answers with `status` while it is `awake`, and otherwise not at all."""

    def __init__(self, port: int = 0) -> None:
        self.batches: list[Batch] = []
        self.status = 200
        self.awake = threading.Event()
        self.awake.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.batches.append(Batch(self.path, dict(self.headers), body))
                collector.awake.wait()
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @classmethod
    @contextmanager
    def running(cls, port: int = 0) -> Iterator["Collector"]:
        collector = cls(port)
        try:
            yield collector
        finally:
            collector.awake.set()
            collector._server.shutdown()
            collector._server.server_close()

    @property
    def spans(self) -> list[Span]:
        return [span for batch in list(self.batches) for span in batch.spans]

    def trace(self, trace_id: str, *names: str) -> list[Span]:
        """The spans of a trace, in the order in which they began, once these are there."""

        def whole() -> list[Span]:
            spans = [span for span in self.spans if span.trace_id == trace_id]
            return spans if len(spans) >= len(names) else []

        spans = sorted(eventually(whole), key=lambda span: span.began)
        assert [span.name for span in spans] == list(names), json.dumps([s.name for s in spans])
        return spans


def _span(span: trace_pb2.Span, resource: Mapping[str, Any]) -> Span:
    return Span(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        span.status.code,
        span.status.message,
        _values(span.attributes),
        resource,
    )


def _values(pairs: Iterator[KeyValue] | Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
