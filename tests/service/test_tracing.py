"""Traces, as a collector receives them: one a request, with a span for each step of it."""

import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import QUESTION, WEATHER, body
from .collector import CLIENT, ERROR, INTERNAL, OK, SERVER, Collector, Span
from .conftest import MakeProject
from .serving import Project, Service, eventually

pytestmark = pytest.mark.xdist_group("tracing")

CHAT = "/v1/chat/completions"
SERVER_SPAN = f"POST {CHAT}"
GPT, CLAUDE = "chat gpt-6-luna", "chat claude-haiku-5-5"
PLAIN = (SERVER_SPAN, "admission", GPT, "settlement")
RATE_LIMIT = 12
TOKEN = "token-of-the-collector"
AT_ONCE = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
IN_JSON = "Answer in JSON."
CRASH = "crash-now"
"""What makes `tests.crashing` crash."""

STABLE = (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
# https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/client-inference.md
GEN_AI = {
    "gen_ai.operation.name",
    "gen_ai.output.type",
    "gen_ai.provider.name",
    *(f"gen_ai.request.{name}" for name in ("max_tokens", "model", "seed", "stream")),
    *(f"gen_ai.request.{name}" for name in ("temperature", "top_p")),
    *(f"gen_ai.response.{name}" for name in ("finish_reasons", "id", "model")),
    "gen_ai.response.time_to_first_chunk",
    *(f"gen_ai.usage.{name}_tokens" for name in ("input", "output", "reasoning.output")),
    *(f"gen_ai.usage.cache_{name}.input_tokens" for name in ("read", "write")),
}

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE_ID}-{PARENT_ID}-{flags}" for flags in ("01", "00"))


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector.running() as collector:
        yield collector


@pytest.fixture(scope="module")
def _traced(make_project: MakeProject, collector: Collector) -> Iterator[Service]:
    settings = {
        **AT_ONCE,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{collector.url}/",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN},x-tenant=tests",
        "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
    }
    project = replace(make_project("traced"), module="tests.crashing")
    with project.serve(**settings) as service:
        yield service


@pytest.fixture
def traced(_traced: Service, sandbox: Sandbox) -> Service:
    """A service whose traces go to `collector`; its first provider is openai, then anthropic."""
    return _traced


@pytest.fixture
def http(traced: Service, key: str) -> httpx.Client:
    return traced.http(key)


def trace_id_of(service: Service, response: httpx.Response) -> str:
    trace_id: str = service.line_of(response.headers["x-request-id"])["trace_id"]
    return trace_id


def children(spans: list[Span], parent: Span) -> list[str]:
    return [span.name for span in spans if span.parent_id == parent.span_id]


# One trace a request


@pytest.mark.promise("V5")
def test_a_call_is_one_trace(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """The server's span covers admission, the attempt and settlement, each with its true times."""
    sandbox.script("openai", [Fault(delay_seconds=0.3)])
    response = http.post(CHAT, json=body(temperature=0.5, max_tokens=50))
    spans = collector.trace(trace_id_of(traced, response), *PLAIN)
    server, admission, attempt, settlement = spans
    assert not server.parent_id
    assert children(spans, server) == ["admission", GPT, "settlement"]
    assert [span.kind for span in spans] == [SERVER, INTERNAL, CLIENT, INTERNAL]
    assert [span.status for span in spans] == [OK] * 4
    for earlier, later in itertools.pairwise((admission, attempt, settlement)):
        assert earlier.ended <= later.began
    assert server.began <= admission.began and settlement.ended <= server.ended
    assert attempt.seconds >= 0.3 > admission.seconds
    assert abs(server.ended - time.time()) < 60


@pytest.mark.promise("V5")
def test_spans_have_the_conventions_names(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """What is known of a request and of a model call stands where HTTP and GenAI say."""
    request = body(IN_JSON, temperature=0.5, top_p=0.9, seed=7, max_tokens=50)
    response = http.post(CHAT, json=request | {"response_format": {"type": "json_object"}})
    server, _, attempt, _ = collector.trace(trace_id_of(traced, response), *PLAIN)
    cost = float(response.headers["x-cost-usd"])
    host, port = httpx.URL(traced.url).host, httpx.URL(traced.url).port
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "http.response.header.x-request-id": [response.headers["x-request-id"]],
        "url.path": CHAT,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": host,
        "server.port": port,
        "guardrail.outcome": "ok",
        "guardrail.replayed": False,
        "guardrail.cost_usd": pytest.approx(cost),
        "guardrail.attempts": ["openai:ok"],
    }
    reply, vendor = response.json(), httpx.URL(sandbox.url)
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6-luna",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.output.type": "json",
        "gen_ai.response.id": reply["id"],
        "gen_ai.response.model": reply["model"],
        "gen_ai.response.finish_reasons": [reply["choices"][0]["finish_reason"]],
        "gen_ai.usage.input_tokens": reply["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": reply["usage"]["completion_tokens"],
        "server.address": vendor.host,
        "server.port": vendor.port,
    }


def test_the_collector_learns_who_sends(
    traced: Service, http: httpx.Client, collector: Collector
) -> None:
    """Batches come to /v1/traces with the headers that were set, and name service and stage."""
    response = http.post(CHAT, json=body())
    spans = collector.trace(trace_id_of(traced, response), *PLAIN)
    batch = collector.batches[-1]
    assert batch.path == "/v1/traces"
    headers = {name.lower(): value for name, value in batch.headers.items()}
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-tenant"] == "tests"
    assert headers["content-type"] == "application/x-protobuf"
    resource = spans[0].resource
    assert resource["service.name"] == "service"
    assert resource["deployment.environment.name"] == "development"
    assert TOKEN not in traced.output()


def test_a_summary_is_a_step_of_its_own(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """The attempts at a summary stand under it, and the answer's under the request."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}."} for n in range(25)]
    response = http.post(CHAT, json={"messages": turns})
    names = (SERVER_SPAN, "admission", "summary", GPT, GPT, "settlement")
    spans = collector.trace(trace_id_of(traced, response), *names)
    server, _, summary, of_summary, of_answer, _ = spans
    assert of_summary.parent_id == summary.span_id
    assert of_answer.parent_id == server.span_id
    assert of_summary.ended <= summary.ended <= of_answer.began


@pytest.mark.promise("V5")
def test_each_attempt_is_a_span(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """Retries and the next provider each have a span; a failed one tells its kind and status."""
    sandbox.script("openai", [Fault(status=500), Fault(action="reset"), Fault(html=True)])
    response = http.post(CHAT, json=body())
    names = (SERVER_SPAN, "admission", GPT, GPT, GPT, CLAUDE, "settlement")
    spans = collector.trace(trace_id_of(traced, response), *names)
    server, _, first, second, third, fourth, _ = spans
    assert [span.status for span in spans] == [OK, OK, ERROR, ERROR, ERROR, OK, OK]
    assert {span.attributes["error.type"] for span in (first, second, third)} == {
        "ProviderUnavailable"
    }
    statuses = [s.attributes.get("http.response.status_code") for s in (first, second, third)]
    assert statuses == [500, None, 502]
    assert "openai" in first.message and "connection broke" in second.message
    assert fourth.attributes["gen_ai.provider.name"] == "anthropic"
    assert server.attributes["guardrail.attempts"] == [
        *["openai:ProviderUnavailable"] * 3,
        "anthropic:ok",
    ]
    for earlier, later in itertools.pairwise((first, second, third, fourth)):
        assert earlier.ended <= later.began


def test_a_replay_asks_nobody(traced: Service, http: httpx.Client, collector: Collector) -> None:
    """A stored reply is admission alone, and the server's span says so."""
    http.headers["idempotency-key"] = "payment-1"
    http.post(CHAT, json=body())
    response = http.post(CHAT, json=body())
    assert response.headers["idempotent-replayed"] == "true"
    spans = collector.trace(trace_id_of(traced, response), SERVER_SPAN, "admission")
    assert spans[0].attributes["guardrail.replayed"] is True


# Streams


def test_a_streams_spans_end_with_it(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """Attempt and request last as long as the stream, and the first chunk has its time."""
    sandbox.script("openai", [Fault(delay_seconds=0.2, reply=slow_reply(10))])
    with http.stream("POST", CHAT, json=body(stream=True)) as response:
        assert "[DONE]" in response.read().decode()
    spans = collector.trace(trace_id_of(traced, response), *PLAIN)
    server, _, attempt, _ = spans
    assert attempt.seconds >= 0.2 + 9 * 0.02
    assert server.ended >= attempt.ended
    assert attempt.attributes["gen_ai.request.stream"] is True
    assert 0.2 <= attempt.attributes["gen_ai.response.time_to_first_chunk"] < attempt.seconds
    assert attempt.attributes["gen_ai.usage.output_tokens"] > 0
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert [span.status for span in spans] == [OK] * 4


def test_a_stream_that_breaks_is_an_error(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """The caller was told 200 by then: the spans are errors all the same."""
    sandbox.script("openai", [Fault(action="reset", after_chunks=5, reply=slow_reply(10))])
    with http.stream("POST", CHAT, json=body(stream=True)) as response:
        response.read()
    server, _, attempt, _ = collector.trace(trace_id_of(traced, response), *PLAIN)
    assert (server.status, attempt.status) == (ERROR, ERROR)
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["error.type"] == "providers_unavailable"
    assert server.attributes["guardrail.outcome"] == "failed"
    assert attempt.attributes["error.type"] == "ProviderUnavailable"
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert attempt.attributes["gen_ai.usage.output_tokens"] > 0


def test_a_stream_that_is_left_ends(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """When its reader leaves, all spans end, and that is not called the service's error."""
    sandbox.script("openai", [Fault(reply=slow_reply(500))])
    headers = {"x-request-id": "a-stream-that-is-left"}
    with http.stream("POST", CHAT, json=body(stream=True), headers=headers) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
    server, _, attempt, _ = collector.trace(trace_id_of(traced, response), *PLAIN)
    assert server.attributes["guardrail.outcome"] == "disconnected"
    assert (server.status, "error.type" in server.attributes) == (OK, False)
    assert attempt.attributes["error.type"] == "Cut"
    assert attempt.seconds < 5


def test_a_stream_that_is_left_before_it_began(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """An attempt that was cut off says so."""
    sandbox.script("openai", [Fault(delay_seconds=20)])
    with suppress(httpx.ReadTimeout):
        headers = {"x-request-id": "left-early"}
        http.post(CHAT, json=body(stream=True), headers=headers, timeout=0.3)
    server, _, attempt, _ = collector.trace(traced.line_of("left-early")["trace_id"], *PLAIN)
    assert (attempt.status, attempt.attributes["error.type"]) == (ERROR, "Cut")
    assert attempt.seconds < 5
    assert "http.response.status_code" not in server.attributes and server.status == OK


def test_a_call_that_is_left_is_traced_to_its_end(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """A JSON call runs on without its caller, and so do its spans."""
    sandbox.script("openai", [Fault(delay_seconds=0.6)])
    with suppress(httpx.ReadTimeout):
        http.post(CHAT, json=body(), headers={"x-request-id": "left-call"}, timeout=0.2)
    trace_id = traced.line_of("left-call")["trace_id"]
    server, _, attempt, _ = collector.trace(trace_id, *PLAIN)
    assert attempt.status == OK and attempt.seconds >= 0.6
    assert server.attributes["guardrail.outcome"] == "disconnected"


# What goes wrong


def test_refused_requests_are_traced(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """A refusal has no attempt, tells its reason, and is the caller's error, not the service's."""
    refused = next(r for r in iter(lambda: http.post(CHAT, json=body()), None) if r.is_error)
    assert refused.status_code == 429
    server, admission = collector.trace(trace_id_of(traced, refused), SERVER_SPAN, "admission")
    for span in (server, admission):
        assert span.attributes["guardrail.refusal"] == "rate_limit_exceeded"
        assert (span.status, "error.type" in span.attributes) == (OK, False)
    stranger = traced.http("no-such-key").post(CHAT, json=body())
    (server,) = collector.trace(trace_id_of(traced, stranger), SERVER_SPAN)
    assert server.attributes["http.response.status_code"] == 401
    assert server.attributes["guardrail.refusal"] == "invalid_api_key"
    assert server.status == OK


def test_a_service_without_providers_is_an_error(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """When nobody answers, the request is an error by the code that its caller reads."""
    for vendor in ("openai", "anthropic"):
        sandbox.script(vendor, [Fault(error="quota_exhausted")], times=None)
    response = http.post(CHAT, json=body())
    assert response.status_code == 503
    names = (SERVER_SPAN, "admission", GPT, CLAUDE, "settlement")
    server, *_ = collector.trace(trace_id_of(traced, response), *names)
    assert server.status == ERROR
    assert server.attributes["error.type"] == "providers_unavailable"
    assert server.attributes["http.response.status_code"] == 503


@pytest.mark.parametrize("stream", [False, True])
def test_a_crash_is_traced(
    stream: bool, traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """A bug's type is on the span that it ended, and on the request's."""
    if stream:
        sandbox.script("openai", [Reply(text=f"One two {CRASH} three")])
    response = http.post(CHAT, json=body("Hello" if stream else CRASH, stream=stream))
    names = PLAIN if stream else (SERVER_SPAN,)
    server, *steps = collector.trace(trace_id_of(traced, response), *names)
    assert server.status == ERROR
    assert server.attributes["error.type"] == "Bug"
    assert server.attributes["guardrail.outcome"] == "crashed"
    assert server.attributes["http.response.status_code"] == (200 if stream else 500)
    assert [span.attributes.get("error.type") for span in steps] == [None, "Bug", None][
        : len(steps)
    ]


def test_routes_that_are_not_there(
    traced: Service, http: httpx.Client, collector: Collector
) -> None:
    """What a caller has written into a path or a query is in no span."""
    response = http.get("/v1/some-secret-path?prompt=some-secret-query")
    (server,) = collector.trace(trace_id_of(traced, response), "GET")
    assert "http.route" not in server.attributes and "url.path" not in server.attributes
    assert not any(b"some-secret" in batch.body for batch in collector.batches)


def test_probes_make_no_trace(traced: Service, http: httpx.Client) -> None:
    """What machines ask every few seconds would drown the rest."""
    for path in ("/livez", "/readyz", "/metrics"):
        response = http.get(path)
        assert "trace_id" not in traced.line_of(response.headers["x-request-id"])


# Across services


@pytest.mark.promise("V5")
def test_the_callers_trace_goes_on(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """The request joins its caller's trace, and each attempt passes its own span on."""
    sandbox.script("openai", [Fault(status=500)])
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=opaque"}
    response = http.post(CHAT, json=body(), headers=headers)
    assert trace_id_of(traced, response) == TRACE_ID
    names = (SERVER_SPAN, "admission", GPT, GPT, "settlement")
    server, _, first, second, _ = collector.trace(TRACE_ID, *names)
    assert server.parent_id == PARENT_ID
    received = [request.headers for request in sandbox.requests("openai")]
    assert [headers["traceparent"] for headers in received] == [
        f"00-{TRACE_ID}-{span.span_id}-01" for span in (first, second)
    ]
    assert not any("tracestate" in headers for headers in received)
    assert {headers["x-request-id"] for headers in received} == {response.headers["x-request-id"]}


def test_a_stream_passes_its_trace_on(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """A streamed attempt is known to its provider as a whole one is."""
    response = http.post(CHAT, json=body(stream=True))
    _, _, attempt, _ = collector.trace(trace_id_of(traced, response), *PLAIN)
    (received,) = sandbox.requests("openai")
    assert received.headers["traceparent"].split("-")[1:3] == [attempt.trace_id, attempt.span_id]


def test_a_trace_that_is_not_sampled_is_not_sent(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """The caller's decision holds here and is passed on; the line names the trace all the same."""
    other = TRACE_ID.replace("0af7", "1af7")
    headers = {"traceparent": NOT_SAMPLED.replace(TRACE_ID, other)}
    response = http.post(CHAT, json=body(), headers=headers)
    assert trace_id_of(traced, response) == other
    (received,) = sandbox.requests("openai")
    assert re.fullmatch(
        rf"00-{other}-(?!{PARENT_ID})[0-9a-f]{{16}}-00", received.headers["traceparent"]
    )
    collector.trace(trace_id_of(traced, http.post(CHAT, json=body())), *PLAIN)
    assert not any(span.trace_id == other for span in collector.spans)


@pytest.mark.parametrize(
    "traceparent",
    [
        "garbage",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01-more",
        "00-" + "a" * 10_000,
    ],
)
def test_a_malformed_traceparent_is_ignored(
    traceparent: str, traced: Service, http: httpx.Client, collector: Collector
) -> None:
    """The request is served in a trace of its own, without a word about it."""
    headers = {"traceparent": traceparent, "tracestate": "no state!,=,," * 1_000}
    response = http.get("/v1/models", headers=headers)
    assert response.status_code == 200
    (server,) = collector.trace(trace_id_of(traced, response), "GET /v1/models")
    assert not server.parent_id and server.trace_id != TRACE_ID
    assert not re.search("traceparent|tracestate|no state!", traced.output())


# What is never in a trace


def test_neither_prompts_nor_secrets_are_sent(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox, key: str
) -> None:
    """Whatever goes wrong, nothing that was asked or answered, and no key, is in any span."""
    prompt, said = "marked-prompt-17", "marked-reply-17"
    quoting = Fault(error="invalid_request", message=f"No: {prompt}, sk-marked")
    answers: list[list[Fault | Reply]] = [
        [Reply(text=said)],
        [quoting],
        [Fault(status=500, message=prompt), Fault(body=prompt), Fault(html=True), quoting],
        [Fault(action="reset", after_chunks=3, reply=Reply(text=f"{said} " * 10))],
        [Fault(action="error_event", after_chunks=3, reply=Reply(text=f"{said} " * 10))],
    ]
    asked = []
    for stream, script in itertools.product((False, True), answers):
        sandbox.reset()
        sandbox.script("openai", script)
        request = body(f"{prompt} please", stream=stream, tools=[WEATHER], stop=[prompt])
        asked.append(http.post(CHAT, json=request))
    asked.append(http.post(CHAT, json=body(f"{CRASH} {prompt}")))
    asked.append(http.post(CHAT, content=prompt))
    traces = {trace_id_of(traced, response) for response in asked}
    assert {response.status_code for response in asked} >= {200, 400, 500}
    servers = eventually(
        lambda: traces <= {s.trace_id for s in collector.spans if s.kind == SERVER}
    )
    assert servers
    keys = [v for k, v in traced.environment.items() if k.endswith("_API_KEY")]
    texts = [prompt, said, "sk-marked", QUESTION, "Helping", TOKEN, key, *keys, "get_weather"]
    sent = b"".join(batch.body for batch in collector.batches)
    assert b"gen_ai.usage.input_tokens" in sent
    assert [text for text in texts if text.encode() in sent] == []
    assert "Bug" in traced.output() and TOKEN not in traced.output()


def test_no_name_is_made_up(
    traced: Service, http: httpx.Client, collector: Collector, sandbox: Sandbox
) -> None:
    """All that a span can say has the conventions' name for it, or one of ours: `guardrail.*`."""
    cached = Reply(text="Yes.", cached_input_tokens=1, cache_write_tokens=1, reasoning_tokens=1)
    sandbox.script("openai", [cached, Fault(status=500), cached])
    options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.5, "seed": 7, "max_tokens": 50}
    streamed = body(IN_JSON, **options, stream=True, response_format={"type": "json_object"})
    http.post(CHAT, json=body(**options))
    response = http.post(CHAT, json=streamed)
    collector.trace(trace_id_of(traced, response), SERVER_SPAN, "admission", GPT, GPT, "settlement")
    said = {name for span in collector.spans for name in span.attributes}
    stable = {name for module in STABLE for name in names_in(module)} | {
        f"{http_attributes.HTTP_RESPONSE_HEADER_TEMPLATE}.x-request-id"
    }
    ours = {name for name in said if name.startswith("guardrail.")}
    assert said - stable - GEN_AI - ours == set()
    assert GEN_AI - said == set()


# A collector that does not do its part


def test_a_collector_that_is_not_there_costs_spans_alone(
    project: Project, sandbox: Sandbox
) -> None:
    """Requests are served as ever, one line tells of it, and one when it is back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = {
        **AT_ONCE,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5",
        "OTEL_SERVICE_NAME": "named-by-its-owner",
    }
    with project.serve(**settings) as service:
        client = service.http("key-of-caller1")
        for _ in range(3):
            assert client.post(CHAT, json=body()).status_code == 200
            time.sleep(0.2)
        (gone,) = eventually(lambda: service.lines("traces_not_sent"))
        assert (gone["level"], gone["reason"]) == ("warning", "ConnectionError")
        with Collector.running(port) as collector:
            response = client.post(CHAT, json=body())
            spans = collector.trace(trace_id_of(service, response), *PLAIN)
            assert spans[0].resource["service.name"] == "named-by-its-owner"
            eventually(lambda: service.lines("traces_sent_again"))
            for number, status in enumerate((401, 307), 1):
                collector.status = status
                client.post(CHAT, json=body())
                lines = eventually(partial(lines_after, number, service, "traces_not_sent"))
                assert [line["reason"] for line in lines] == [f"status {status}"]
                collector.status = 200
                client.post(CHAT, json=body())
                eventually(partial(lines_after, number, service, "traces_sent_again"))
    loggers = {line.get("logger") for line in map(json.loads, service.output().splitlines())}
    assert loggers <= {None, "uvicorn.error"}


@pytest.mark.promise("V5")
def test_a_collector_that_is_silent_holds_nobody_up(project: Project, sandbox: Sandbox) -> None:
    """Requests are as fast as ever, what does not fit is dropped, and the service ends in time."""
    settings = {
        **AT_ONCE,
        "OTEL_BSP_MAX_QUEUE_SIZE": "2",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
    }
    with Collector.running() as collector:
        collector.awake.clear()
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        with project.serve(**settings) as service:
            client = service.http("key-of-caller1")
            for _ in range(5):
                response = client.post(CHAT, json=body(), timeout=5)
                assert response.status_code == 200
            assert collector.batches
            ended = time.monotonic()
            service.process.terminate()
            assert service.process.wait(30) == 0
            assert time.monotonic() - ended < 8
        assert {line["event"] for line in service.lines("request", "stopped")} == {
            "request",
            "stopped",
        }
        assert "dropping" not in service.output()


def test_what_is_left_is_sent_at_the_end(project: Project, sandbox: Sandbox) -> None:
    """The last spans do not wait for the next batch."""
    with Collector.running() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
        }
        with project.serve(**settings) as service:
            response = service.http("key-of-caller1").post(CHAT, json=body())
            trace_id = trace_id_of(service, response)
            assert not collector.batches
        collector.trace(trace_id, *PLAIN)


# Off


MODULES = """
import sys
from app.configuration import load_configuration
from app.service import Service

Service(load_configuration()).app()
wanted = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests")
print(sorted({name for name in wanted if name in sys.modules}))
from opentelemetry import trace
print(type(trace.get_tracer_provider()).__name__)
"""


def loaded_by(project: Project, **settings: str) -> list[str]:
    """Libraries of tracing that a service has loaded, and the process's tracer provider."""
    result = subprocess.run(
        [sys.executable, "-c", MODULES],
        cwd=project.root,
        env={**project.variables, "SQLITE_PATH": str(project.store), **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


@pytest.mark.promise("V5")
def test_off_it_is_not_even_loaded(project: Project) -> None:
    """Without an endpoint no library of tracing is there; with one none takes the whole process."""
    assert loaded_by(project) == ["[]", "ProxyTracerProvider"]
    on = loaded_by(project, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert "opentelemetry.sdk" in on[0] and on[1] == "ProxyTracerProvider"


def test_off_nothing_is_passed_on(service: Service, key: str, sandbox: Sandbox) -> None:
    """The provider gets no `traceparent`, also none of the caller's, and the line has no trace."""
    response = service.http(key).post(CHAT, json=body(), headers={"traceparent": SAMPLED})
    (received,) = sandbox.requests("openai")
    assert "traceparent" not in received.headers
    assert "trace_id" not in service.line_of(response.headers["x-request-id"])


def lines_after(number: int, service: Service, event: str) -> list[dict[str, Any]]:
    """The lines of an event beyond the first `number`."""
    return service.lines(event)[number:]


def slow_reply(chunks: int) -> Reply:
    return Reply(chunks=chunks, chunk_delay_seconds=0.02)


def names_in(module: Any) -> set[str]:
    """The attributes that a module of the conventions names."""
    values = (value for name, value in vars(module).items() if name.isupper())
    return {value for value in values if isinstance(value, str)}
