"""Who is asked, how often, and in what order, counted at the vendors' end of the wire."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from app.errors import (
    BadRequest,
    Billing,
    DeadlineExceeded,
    ProviderError,
    ProvidersUnavailable,
)
from app.guardrails.availability.circuit_breaker import State
from app.guardrails.availability.deadline import Deadline
from app.guardrails.availability.fallback import Fallback
from app.messages import ChatRequest
from app.providers.provider import Provider
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .assembly import Providers
from .conftest import OpenProviders
from .conversations import text
from .waiting import until

pytestmark = pytest.mark.anyio

QUESTION = ChatRequest((text("user", "What is a guardrail?"),), max_output_tokens=50)


class Notes:
    """Takes down what it is told of each attempt."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.errors: list[ProviderError] = []

    request_id = "request-1"

    def attempt_waits(self, provider: Provider) -> None:
        pass

    def vendor_answered(self, request_id: str | None) -> None:
        pass

    async def before_attempt(
        self, provider: Provider, request: ChatRequest, *, stream: bool
    ) -> Mapping[str, str]:
        self.begun.append(provider.name)
        return {}

    def attempt_failed(self, provider: Provider, error: ProviderError) -> None:
        self.ended.append(f"{provider.name} failed")
        self.errors.append(error)

    def attempt_cut(self, provider: Provider, *, by_deadline: bool) -> None:
        self.ended.append(f"{provider.name} cut")

    def attempt_skipped(self, provider: Provider, reason: str) -> None:
        self.ended.append(f"{provider.name} {reason}")


async def complete(
    providers: Providers,
    notes: Notes | None = None,
    *,
    seconds: float = 10,
    fallback: Fallback | None = None,
    chain: list[Provider] | None = None,
) -> str:
    """The name of the provider that answered."""
    _, provider = await (fallback or providers.fallback()).complete(
        providers.chain if chain is None else chain,
        lambda _: QUESTION,
        Deadline.after(seconds),
        notes or Notes(),
    )
    return provider.name


def calls(sandbox: Sandbox) -> tuple[int, int]:
    return len(sandbox.requests("openai")), len(sandbox.requests("anthropic"))


def limit_for(fault: Fault) -> float:
    """Short only where silence is what is tested, so that a busy machine is not taken for it."""
    return 0.8 if fault.action == "stall" else 10


async def test_the_first_is_asked_first(open_providers: OpenProviders, sandbox: Sandbox) -> None:
    """While the first provider answers, nobody else is asked."""
    async with open_providers() as providers:
        assert await complete(providers) == "openai"
    assert calls(sandbox) == (1, 0)


@pytest.mark.promise("A3", "A4")
async def test_errors_are_retried_and_then_left(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """A provider that answers 500 is asked thrice, after waits that grow, then the next one."""
    sandbox.script("openai", [Fault(status=500)], times=None)
    notes = Notes()
    async with open_providers() as providers:
        assert await complete(providers, notes) == "anthropic"
        first, second = providers.waits
    assert calls(sandbox) == (3, 1)
    assert 0.5 <= first < second <= 2.5
    assert notes.begun == ["openai"] * 3 + ["anthropic"]
    assert notes.ended == ["openai failed"] * 3


@pytest.mark.promise("A3")
@pytest.mark.parametrize(
    ("fault", "billing"),
    [
        (Fault(action="stall"), Billing.AMBIGUOUS),
        (Fault(action="stall", after_chunks=0), Billing.AMBIGUOUS),
        (Fault(action="stall", after_chunks=2), Billing.AMBIGUOUS),
        (Fault(error="invalid_api_key"), Billing.NOTHING),
        (Fault(error="quota_exhausted"), Billing.NOTHING),
        (Fault(status=429, headers={"retry-after": "30"}), Billing.NOTHING),
    ],
    ids=["silent", "headers-only", "half-a-body", "bad-key", "no-quota", "come-back-later"],
)
async def test_some_failures_are_left_at_once(
    open_providers: OpenProviders, sandbox: Sandbox, fault: Fault, billing: Billing
) -> None:
    """Silence, a refused account and a long `Retry-After` go to the next provider unrepeated."""
    sandbox.script("openai", [fault], times=None)
    notes = Notes()
    async with open_providers(silence_seconds=limit_for(fault)) as providers:
        assert await complete(providers, notes) == "anthropic"
        assert providers.waits == []
    assert calls(sandbox) == (1, 1)
    assert [error.billing for error in notes.errors] == [billing]


@pytest.mark.promise("A3")
async def test_a_refused_account_alerts(open_providers: OpenProviders, sandbox: Sandbox) -> None:
    """A key or quota that a vendor refuses is somebody's job to mend, though callers are served."""
    sandbox.script("openai", [Fault(error="invalid_api_key")])
    async with open_providers() as providers:
        await complete(providers)
        assert providers.alerts == ["account_refused:openai"]


@pytest.mark.promise("A3")
@pytest.mark.parametrize("error", ["invalid_request", "context_too_long", "content_policy"])
async def test_the_callers_fault_is_returned(
    open_providers: OpenProviders, sandbox: Sandbox, error: Any
) -> None:
    """What a vendor rejects as the caller's fault is neither repeated nor sent on."""
    sandbox.script("openai", [Fault(error=error)], times=None)
    async with open_providers() as providers:
        with pytest.raises(BadRequest):
            await complete(providers)
        assert providers.guarded["openai"].breaker.state is State.CLOSED
    assert calls(sandbox) == (1, 0)


@pytest.mark.promise("A4")
async def test_when_all_fail_the_caller_is_told(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """With no provider left: 503, the shortest wait that a vendor asked for, and an alert."""
    sandbox.script("openai", [Fault(status=429, headers={"retry-after": "40"})], times=None)
    sandbox.script("anthropic", [Fault(status=429, headers={"retry-after": "20"})], times=None)
    async with open_providers() as providers:
        with pytest.raises(ProvidersUnavailable) as failure:
            await complete(providers)
        assert providers.alerts == ["providers_down"]
    assert (failure.value.status, failure.value.retry_after_seconds) == (503, 20)
    assert "openai" in failure.value.detail and "anthropic" in failure.value.detail


@pytest.mark.promise("A2")
async def test_one_deadline_covers_everything(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """When the deadline cuts an attempt off, the caller hears of it at once."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(delay_seconds=0.3), Fault(status=500)], times=None)
    notes = Notes()
    started = time.monotonic()
    async with open_providers() as providers:
        with pytest.raises(DeadlineExceeded) as failure:
            await complete(providers, notes, seconds=0.2)
    assert time.monotonic() - started < 5
    assert (failure.value.status, failure.value.code) == (503, "deadline_exceeded")
    assert notes.ended == ["openai cut"]
    assert calls(sandbox) == (1, 0)


@pytest.mark.promise("A5")
async def test_an_open_breaker_is_passed_by(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """A provider that failed too often in a row is not asked, and the next one answers at once."""
    sandbox.script("openai", [Fault(status=500)], times=None)
    notes = Notes()
    async with open_providers(failures=2) as providers:
        await complete(providers)
        assert providers.guarded["openai"].breaker.state is State.OPEN
        asked = calls(sandbox)[0]
        assert await complete(providers, notes) == "anthropic"
    assert calls(sandbox)[0] == asked == 2
    assert notes.ended == ["openai breaker_open"]


@pytest.mark.promise("A5")
async def test_one_probe_finds_out(open_providers: OpenProviders, sandbox: Sandbox) -> None:
    """After the cool-down one of many calls asks the provider; when it answers, all do again."""
    now = [0.0]
    sandbox.script("openai", [Fault(status=500)] * 2)
    async with open_providers(failures=2, clock=lambda: now[0]) as providers:
        await complete(providers, fallback=providers.fallback(max_attempts=2))
        now[0] = 30.0
        sandbox.script("openai", [Fault(delay_seconds=0.2)])
        answered = await asyncio.gather(*(complete(providers) for _ in range(20)))
        assert sorted(answered) == ["anthropic"] * 19 + ["openai"]
        assert calls(sandbox)[0] == 3
        assert providers.guarded["openai"].breaker.state is State.CLOSED
        assert await complete(providers) == "openai"


@pytest.mark.promise("A6")
async def test_a_full_bulkhead_waits_within_the_deadline(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """Beyond its places calls to a provider wait their turn, and are cut at their deadline."""
    sandbox.script("openai", [Fault(delay_seconds=0.25)], times=None)
    async with open_providers(places=2) as providers:
        patient = [complete(providers, chain=[providers.openai]) for _ in range(4)]
        hasty = complete(providers, chain=[providers.openai], seconds=0.1)
        outcomes = await asyncio.gather(*patient, hasty, return_exceptions=True)
    assert outcomes[:4] == ["openai"] * 4
    assert isinstance(outcomes[4], DeadlineExceeded)
    arrived = [request.arrived_at_seconds for request in sandbox.requests("openai")]
    assert len(arrived) == 4
    assert arrived[2] - arrived[0] >= 0.2


@pytest.mark.promise("A3")
async def test_a_retry_budget_stops_a_storm(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """In an outage calls are hardly multiplied: the retries of a process are counted."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(status=500)], times=None)
    async with open_providers(failures=1_000) as providers:
        fallback = providers.fallback(retry_budget=5)
        for _ in range(20):
            with pytest.raises(ProvidersUnavailable):
                await complete(providers, fallback=fallback)
    assert 40 < sum(calls(sandbox)) <= 40 + 5 + 0.2 * 40


async def stream(providers: Providers, notes: Notes, *, chunks: int = 10_000) -> list[str]:
    """The pieces of a stream, up to that many."""
    opened = await providers.fallback().open_stream(
        providers.chain, lambda _: QUESTION, Deadline.after(10), notes
    )
    pieces = [opened.first.text]
    async with opened.stack:
        async for chunk in opened.rest:
            pieces.append(chunk.text)
            if len(pieces) >= chunks:
                break
    return pieces


@pytest.mark.promise("A7")
@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        (Fault(status=500), 3),
        (Fault(html=True), 3),
        (Fault(action="close"), 3),
        (Fault(action="end", after_chunks=0), 3),
        (Fault(action="error_event", after_chunks=0), 3),
        (Fault(action="stall", after_chunks=0), 1),
        (Fault(error="quota_exhausted"), 1),
    ],
    ids=["500", "html", "closed", "empty", "error-event", "silent", "no-quota"],
)
async def test_a_stream_falls_back_before_its_first_chunk(
    open_providers: OpenProviders, sandbox: Sandbox, fault: Fault, asked: int
) -> None:
    """Until something was said, a stream that fails is retried and begun at the next provider."""
    sandbox.script("openai", [fault], times=None)
    async with open_providers(failures=1_000, silence_seconds=limit_for(fault)) as providers:
        assert "guardrail?" in "".join(await stream(providers, Notes()))
    assert calls(sandbox) == (asked, 1)


@pytest.mark.promise("A7")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(action="end", after_chunks=3),
        Fault(action="close", after_chunks=3),
        Fault(action="reset", after_chunks=3),
        Fault(action="stall", after_chunks=3),
        Fault(action="garble", after_chunks=3),
        Fault(action="error_event", after_chunks=3),
    ],
    ids=lambda fault: fault.action,
)
async def test_a_stream_that_breaks_is_not_begun_again(
    open_providers: OpenProviders, sandbox: Sandbox, fault: Fault
) -> None:
    """Once something was said, a stream that breaks raises: it is neither repeated nor complete."""
    sandbox.script("openai", [fault], times=None)
    async with open_providers(failures=1, silence_seconds=limit_for(fault)) as providers:
        with pytest.raises(ProviderError):
            await stream(providers, Notes())
        assert providers.guarded["openai"].breaker.state is State.OPEN
    assert calls(sandbox) == (1, 0)


@pytest.mark.promise("A7")
async def test_a_stream_that_is_left_closes_the_upstream(
    open_providers: OpenProviders, sandbox: Sandbox
) -> None:
    """Who stops reading hangs up on the vendor, frees the place, and blames nobody."""
    sandbox.script("openai", [Reply(chunks=1_000, chunk_delay_seconds=0.02)])
    async with open_providers(places=1, failures=1) as providers:
        assert len(await stream(providers, Notes(), chunks=3)) == 3
        assert providers.guarded["openai"].breaker.state is State.CLOSED
        assert await complete(providers) == "openai"
    await until(lambda: sandbox.requests("openai")[0].client_gone)
