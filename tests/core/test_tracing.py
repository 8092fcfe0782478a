"""What a call leaves in its trace where no caller can make it happen: a bug, calls side by side."""

import asyncio
from collections.abc import Iterator

import pytest
import structlog

from app.caller import Caller
from app.guardrails.visibility.redaction import Redactor
from app.guardrails.visibility.tracing import Collector as Destination
from app.guardrails.visibility.tracing import Tracing, Upstream
from app.messages import ChatRequest
from sandbox.faults import Fault
from sandbox.server import Sandbox

from ..service.collector import ERROR, OK, Collector, Span
from .assembly import caller
from .backends import Backend
from .conftest import Assemble
from .conversations import text

pytestmark = pytest.mark.anyio

QUESTION = ChatRequest((text("user", "What is a guardrail?"),), max_output_tokens=50)
UPSTREAMS = {
    (name, model): Upstream(name, name, "https://models.example.com/v1")
    for name, model in (("openai", "gpt-6-luna"), ("anthropic", "claude-haiku-5-5"))
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector.running() as collector:
        yield collector


@pytest.fixture
def tracing(collector: Collector, no_proxy: None) -> Tracing:
    destination = Destination(collector.url, {})
    return Tracing(
        destination, {}, UPSTREAMS, structlog.get_logger(), Redactor(["connection broke"])
    )


def traced_caller(tracing: Tracing) -> Caller:
    scope = {"method": "POST", "path": "/ask", "scheme": "http", "http_version": "1.1"}
    who = caller()
    who.trace = tracing.request_began(scope, "/ask", {})
    return who


async def spans_of(tracing: Tracing, who: Caller, collector: Collector) -> list[Span]:
    tracing.request_ended(who, status=200, error=None)
    await tracing.close()
    return sorted(collector.spans, key=lambda span: span.began)


async def test_an_attempt_that_crashes_ends(
    tracing: Tracing, collector: Collector, memory: Backend, assemble: Assemble
) -> None:
    """A bug behind an attempt tells nobody: its span ends before the settlement's begins."""
    who = traced_caller(tracing)
    async with assemble(memory) as assembly:

        def crash(body: bytes) -> None:
            raise KeyError("a bug")

        assembly.providers.openai.adapter.decode = crash  # type: ignore[method-assign, assignment]
        with pytest.raises(KeyError):
            await assembly.chat.complete(QUESTION, who)
    _, _, attempt, settlement = await spans_of(tracing, who, collector)
    assert (attempt.name, attempt.status) == ("chat openai", ERROR)
    assert attempt.attributes["error.type"] == "Crashed"
    assert attempt.ended <= settlement.began


async def test_what_a_failure_says_is_redacted(
    tracing: Tracing, collector: Collector, memory: Backend, assemble: Assemble, sandbox: Sandbox
) -> None:
    """No secret leaves in the message of an attempt that failed, whoever put it there."""
    sandbox.script("openai", [Fault(action="reset")])
    who = traced_caller(tracing)
    async with assemble(memory) as assembly:
        await assembly.chat.complete(QUESTION, who)
    attempt = next(s for s in await spans_of(tracing, who, collector) if s.status == ERROR)
    assert attempt.message.startswith("[secret] before it answered")


async def test_an_endpoints_own_failure_is_an_error(tracing: Tracing, collector: Collector) -> None:
    """A 5xx that an owner's endpoint answers with makes its span an error, and a 4xx does not."""
    for status in (502, 404):
        tracing.request_ended(traced_caller(tracing), status=status, error=None)
    await tracing.close()
    spans = {s.attributes["http.response.status_code"]: s for s in collector.spans}
    assert (spans[502].status, spans[502].attributes["error.type"]) == (ERROR, "502")
    assert (spans[404].status, "error.type" in spans[404].attributes) == (OK, False)


async def test_calls_side_by_side_keep_their_spans(
    tracing: Tracing,
    collector: Collector,
    memory: Backend,
    assemble: Assemble,
    sandbox: Sandbox,
) -> None:
    """An endpoint that asks twice at once has both calls in one trace, each with its own spans."""
    sandbox.script("openai", [Fault(delay_seconds=0.2), Fault(delay_seconds=0.2)])
    who = traced_caller(tracing)
    async with assemble(memory) as assembly:
        await asyncio.gather(*(assembly.chat.complete(QUESTION, who) for _ in range(2)))
    server, *steps = await spans_of(tracing, who, collector)
    assert {span.parent_id for span in steps} == {server.span_id}
    assert sorted(span.name for span in steps) == sorted(
        ["admission", "chat openai", "settlement"] * 2
    )
    attempts = [span for span in steps if span.name == "chat openai"]
    assert all(span.seconds >= 0.2 for span in attempts)
    told = {request.headers["traceparent"].split("-")[2] for request in sandbox.requests("openai")}
    assert told == {span.span_id for span in attempts}
