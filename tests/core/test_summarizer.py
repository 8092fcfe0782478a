"""What is trimmed is summarised where that can be paid for in time, and never in the way."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from app import policy
from app.caller import Caller
from app.errors import ShuttingDown
from app.guardrails.availability.circuit_breaker import State
from app.guardrails.context.summary import SummaryKey, summary_keys
from app.guardrails.context.token_count import TokenCounter
from app.guardrails.resources.prices import Price, Rates
from app.messages import ChatRequest, Message
from app.providers.anthropic import Anthropic, AnthropicSettings
from app.summarizer import SummaryModel
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from sandbox.vendors.anthropic import StandIn

from .assembly import Assembly, Providers, assembled, caller
from .backends import Backend, memory_backend
from .conftest import Assemble, OpenProviders
from .conversations import text
from .waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.promise("C5")]

MARK = re.compile(r"(?:user|assistant)-\d+")
TRIPS = ["admit", "read_summary", "top_up", "write_summary", "settle"]


def conversation(turns: int, words: int = 3) -> ChatRequest:
    """`turns` questions, all but the last one answered; each message has a mark of its own."""
    said = [
        text(role, f"{role}-{n} " + "word " * words)
        for n in range(turns)
        for role in ("user", "assistant")
    ]
    return ChatRequest((text("system", "Be brief."), *said[:-1]))


LONG = conversation(20)


def marks(messages: tuple[Message, ...] | object) -> list[str]:
    return MARK.findall(str(messages))


async def summarised(assembly: Assembly, request: ChatRequest = LONG) -> Caller:
    asked = caller()
    await assembly.chat.complete(request, asked)
    return asked


async def prices_of(assemble: Assemble) -> tuple[int, int]:
    """The worst cases of LONG's answer and of its summary."""
    async with assemble(memory_backend()) as assembly:
        await assembly.chat.complete(LONG, caller())
        answer, summary = assembly.store.wanted_nano_usd
    return answer, summary


def told(asked: Caller) -> tuple[int, int]:
    """What `X-Context` says: trimmed, summarised."""
    found = re.fullmatch(r"trimmed=(\d+); summarized=(\d+)", asked.headers["x-context"])
    assert found is not None
    trimmed, summarized = map(int, found.groups())
    assert trimmed == asked.record.trimmed_messages
    assert summarized == asked.record.summarized_messages
    return trimmed, summarized


# Each message once


async def test_a_summary_grows_with_its_conversation(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """Each message that is dropped is sent to be summarised once; what stood in the summary before
    goes along, and the answer sees the newest summary and all that it does not stand for."""
    covered: Counter[str] = Counter()
    summaries = 0
    async with assemble(backend) as assembly:
        for turns in range(1, 31):
            sandbox.reset()
            asked = caller()
            sandbox.script("openai", [Reply(text=f"Summary {summaries + 1}.")])
            request = conversation(turns)
            await assembly.chat.complete(request, asked)
            *summarizing, answering = [received.body for received in sandbox.requests("openai")]
            assert len(summarizing) == sum(a.is_summary for a in asked.record.attempts) <= 1
            for body in summarizing:
                covered.update(marks(body))
                assert (f"Summary {summaries}." in str(body)) == (summaries > 0)
                summaries += 1
            kept = marks(answering)
            everything = marks(request.messages)
            dropped = everything[: len(everything) - len(kept)]
            assert kept == everything[len(dropped) :]
            assert sorted(covered) == sorted(dropped)
            if dropped:
                assert told(asked) == (len(dropped), len(dropped))
                assert f"Summary {summaries}." in str(answering)
            else:
                assert "x-context" not in asked.headers
    assert set(covered.values()) == {1}
    assert 0 < summaries <= 15
    assert backend.books().balanced


async def test_after_a_failure_nothing_is_left_out(
    assemble: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """What a summary could not be had for is in the next one, with what the last one said."""
    async with assemble(memory) as assembly:
        sandbox.script("openai", [Reply(text="The first.")])
        assert told(await summarised(assembly, conversation(10)))[1] > 0
        sandbox.script("openai", [Fault(error="invalid_request")])
        assert told(await summarised(assembly, conversation(14)))[1] == 0
        sandbox.reset()
        asked = await summarised(assembly, conversation(18))
        assert told(asked)[0] == told(asked)[1]
        body = sandbox.requests("openai")[0].body
    assert "The first." in str(body)
    first = marks(conversation(10).messages)
    assert not set(marks(body)) & set(first[:4])
    assert {"user-8", "assistant-9", "user-12"} <= set(marks(body))


async def test_a_very_long_conversation_is_looked_through_in_a_thread(
    assemble: Assemble, memory: Backend, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dropped of ten thousand messages does not hold up other requests, and is found
    again."""
    threads: list[threading.Thread] = []

    def watched(*arguments: Any) -> tuple[SummaryKey, ...]:
        threads.append(threading.current_thread())
        return summary_keys(*arguments)

    monkeypatch.setattr("app.summarizer.summary_keys", watched)
    async with assemble(memory) as assembly:
        for _ in range(2):
            trimmed, summarized = told(await summarised(assembly, conversation(5_000)))
            assert trimmed > 9_980 > summarized > 100
        await summarised(assembly)
    assert len(sandbox.requests("openai")) == 5
    main = threading.main_thread()
    assert [thread is main for thread in threads] == [False, False, True]


async def test_a_conversation_that_differs_has_its_own(
    assemble: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """A summary goes with just what was said: another beginning is summarised from its own."""
    async with assemble(memory) as assembly:
        await summarised(assembly, conversation(14))
        system, question, *rest = conversation(14).messages
        other = ChatRequest((system, text("user", question.text + "?"), *rest))
        sandbox.reset()
        await summarised(assembly, other)
        assert "user-0" in marks(sandbox.requests("openai")[0].body)
        assert assembly.store.trips == TRIPS * 2


# Money


async def test_the_answer_is_reserved_without_a_summary(
    assemble: Assemble, backend: Backend
) -> None:
    """Admission asks for the answer's worst case alone, a summary for its own when it is made; one
    that is found, or not needed, for nothing."""
    async with assemble(backend) as assembly:
        await summarised(assembly)
        assert assembly.store.trips == TRIPS
        answer, summary = assembly.store.wanted_nano_usd
        assert summary > 0
        assembly.store.wanted_nano_usd.clear()
        assembly.store.trips.clear()
        await summarised(assembly)
        await summarised(assembly, conversation(2))
        assert assembly.store.wanted_nano_usd[0] == answer
        assert assembly.store.trips == ["admit", "read_summary", "settle", "admit", "settle"]


@pytest.mark.parametrize("short", [True, False], ids=["short", "enough"])
async def test_a_short_budget_costs_the_summary(
    assemble: Assemble, backend: Backend, sandbox: Sandbox, short: bool
) -> None:
    """With room for the answer alone there is no summary and no refusal; with room for just both
    there are both."""
    answer, summary = await prices_of(assemble)
    sandbox.reset()
    limit = answer + summary - short
    async with assemble(backend, daily_usd=(limit + 0.5) / 1e9) as assembly:
        asked = await summarised(assembly)
        trimmed, summarized = told(asked)
        assert (trimmed > 0, summarized) == (True, 0 if short else trimmed)
        assert len(sandbox.requests("openai")) == (1 if short else 2)
    books = backend.books()
    assert books.balanced
    assert books.open_operations == 0
    assert books.charged_nano_usd == asked.record.cost_nano_usd < limit


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(action="close")], ids=["500", "close"])
async def test_the_answer_never_pays_for_its_summary(
    assemble: Assemble, backend: Backend, sandbox: Sandbox, fault: Fault
) -> None:
    """Attempts at a summary of which nobody knows what they cost take all that is left, and not
    what the answer needs."""
    answer, summary = await prices_of(assemble)
    sandbox.reset()
    sandbox.script("openai", [fault, fault])
    limit = answer + 3 * summary - 1
    async with assemble(backend, daily_usd=(limit + 0.5) / 1e9) as assembly:
        asked = await summarised(assembly)
        assert told(asked)[1] == 0
        assert assembly.store.wanted_nano_usd == [answer, summary, summary, summary]
        *_, last = asked.record.attempts
        assert (last.outcome, last.is_summary) == ("ok", False)
    books = backend.books()
    assert books.balanced
    assert books.open_operations == 0
    assert books.charged_nano_usd == asked.record.cost_nano_usd == 2 * summary + last.cost_nano_usd


async def test_a_summary_falls_back_too(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """When the first provider refuses a summary the next one makes it, and each is paid its own;
    the reply is the answer's provider's."""
    sandbox.script("openai", [Fault(error="invalid_api_key")])
    async with assemble(backend) as assembly:
        asked = await summarised(assembly)
        assert told(asked)[0] == told(asked)[1]
    attempts = [(a.provider, a.is_summary, a.outcome == "ok") for a in asked.record.attempts]
    assert attempts == [
        ("openai", True, False),
        ("anthropic", True, True),
        ("openai", False, True),
    ]
    assert (asked.record.provider, asked.headers["x-provider"]) == ("openai", "openai")
    assert {charge.provider for charge in asked.record.charges} == {"openai", "anthropic"}
    books = backend.books()
    assert books.balanced
    assert books.charged_nano_usd == asked.record.cost_nano_usd
    assert books.charged_nano_usd == sum(a.cost_nano_usd for a in asked.record.attempts)


async def test_two_at_once_are_each_paid(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """The same conversation twice at the same time is answered twice, with a summary each, and the
    next one finds it."""
    sandbox.script("openai", [Fault(delay_seconds=0.2)] * 2)
    async with assemble(backend) as assembly:
        both = await asyncio.gather(summarised(assembly), summarised(assembly))
        for asked in both:
            assert told(asked)[0] == told(asked)[1] > 0
        assert len(sandbox.requests("openai")) == 4
        third = await summarised(assembly)
        assert len(sandbox.requests("openai")) == 5
    books = backend.books()
    assert books.balanced
    assert books.open_operations == 0
    cost = sum(asked.record.cost_nano_usd for asked in (*both, third))
    assert books.charged_nano_usd == cost


# Time and failure


async def test_with_little_time_there_is_no_summary(
    assemble: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """Below `SUMMARY_MIN_DEADLINE_SECONDS` none is asked for; a stored one is still taken."""
    async with assemble(memory, deadline_seconds=policy.SUMMARY_MIN_DEADLINE_SECONDS) as assembly:
        asked = await summarised(assembly)
        assert told(asked)[1] == 0
        assert len(sandbox.requests("openai")) == 1
        assert assembly.store.trips == ["admit", "read_summary", "settle"]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault(error="invalid_request")], id="refused"),
        pytest.param([Reply(text=" \n")], id="empty"),
        pytest.param([Fault(html=True, status=200)] * 3, id="no reply"),
        pytest.param([Fault(action="stall")], id="silent"),
        pytest.param([Fault(status=429, headers={"retry-after": "60"})], id="busy"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
async def test_without_a_summary_trimming_serves(
    assemble: Assemble,
    memory: Backend,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Fault | Reply],
    streamed: bool,
) -> None:
    """Whatever becomes of the summary, the request is answered without it, and all is settled."""
    monkeypatch.setattr(policy, "SUMMARY_MIN_DEADLINE_SECONDS", 0.5)
    for vendor in sandbox.vendors:
        sandbox.script(vendor, faults)
    asked = caller()
    async with assemble(memory, deadline_seconds=6) as assembly:
        if streamed:
            pieces = [chunk.text async for chunk in await assembly.chat.stream(LONG, asked)]
            assert "".join(pieces)
        else:
            assert (await assembly.chat.complete(LONG, asked)).text
        assert "write_summary" not in assembly.store.trips
    trimmed, summarized = told(asked)
    assert (trimmed > 0, summarized) == (True, 0)
    assert all(a.is_summary for a in asked.record.attempts[:-1])
    books = memory.books()
    assert books.balanced
    assert books.open_operations == 0
    assert books.charged_nano_usd == asked.record.cost_nano_usd


async def test_a_summary_that_is_cut_off_is_settled(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A request that ends while it is summarised is charged that attempt's worst case alone."""
    sandbox.script("openai", [Fault(action="stall")])
    async with assemble(backend) as assembly:
        call = asyncio.create_task(summarised(assembly))
        await until(lambda: sandbox.requests("openai"))
        await assembly.tasks.drain(0.05)
        with pytest.raises(ShuttingDown):
            await call
        _, summary = assembly.store.wanted_nano_usd
    books = backend.books()
    assert books.balanced
    assert books.open_operations == 0
    assert books.charged_nano_usd == summary


async def test_a_summary_that_fails_alerts_nobody(
    assemble: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """Nobody is told that no provider answers when it is only the summary that has none."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(status=429, headers={"retry-after": "60"})])
    async with assemble(memory) as assembly:
        asked = await summarised(assembly)
        assert [a.outcome for a in asked.record.attempts] == [
            *["ProviderUnavailable"] * 2,
            "ok",
        ]
        assert assembly.providers.alerts == []


# A model of its own


def cheap(providers: Providers, window_tokens: int | None = None) -> SummaryModel:
    """A model of Anthropic's at another price than the one that answers."""
    key = SecretStr(StandIn.api_key)
    adapter = Anthropic(AnthropicSettings(api_key=key, model="claude-haiku-4-5"))
    price = Price(Rates(7, 7, 7, 11_000_000_000))
    return SummaryModel(providers.anthropic.of_other_model(adapter), price, window_tokens)


@pytest.fixture
def assemble_cheap(open_providers: OpenProviders, counter: TokenCounter) -> Assemble:
    """A chat whose summaries are made by that model."""

    @asynccontextmanager
    async def run(backend: Backend, **limits: Any) -> AsyncIterator[Assembly]:
        window = limits.pop("window_tokens", None)
        async with (
            open_providers() as providers,
            assembled(
                backend.connect(),
                providers,
                counter,
                summary_model=cheap(providers, window),
                **limits,
            ) as assembly,
        ):
            yield assembly

    return run


async def test_a_summary_may_have_a_model_of_its_own(
    assemble_cheap: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """It is asked by its name and paid at its price, and the answer at that of who answers."""
    sandbox.script("anthropic", [Reply(output_tokens=9)])
    async with assemble_cheap(backend) as assembly:
        asked = await summarised(assembly)
        assert told(asked)[0] == told(asked)[1]
    (summarizing,) = sandbox.requests("anthropic")
    assert summarizing.body["model"] == "claude-haiku-4-5"
    assert [(a.provider, a.model, a.is_summary) for a in asked.record.attempts] == [
        ("anthropic", "claude-haiku-4-5", True),
        ("openai", "gpt-6-luna", False),
    ]
    assert asked.record.attempts[0].cost_nano_usd == 9 * 11_000 + 1
    charges = {(charge.provider, charge.model): charge for charge in asked.record.charges}
    assert charges["anthropic", "claude-haiku-4-5"].cost_nano_usd == 9 * 11_000 + 1
    assert (asked.record.provider, asked.record.model) == ("openai", "gpt-6-luna")
    books = backend.books()
    assert books.balanced
    assert books.charged_nano_usd == asked.record.cost_nano_usd


async def test_its_worst_case_is_reserved_at_its_own_price(
    assemble_cheap: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """What is added for a summary is the most that its own model may charge."""
    sandbox.script("anthropic", [Fault(action="close")])
    async with assemble_cheap(memory) as assembly:
        asked = await summarised(assembly)
        _, summary = assembly.store.wanted_nano_usd[:2]
    assert 200 * 11_000 < summary < 200 * 11_000 + 7
    assert asked.record.attempts[0].cost_nano_usd == summary


async def test_it_shares_its_providers_breaker(
    assemble_cheap: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """Where the provider is down, its other model is not asked either."""
    sandbox.script("anthropic", [Fault(status=500)], times=None)
    async with assemble_cheap(memory) as assembly:
        for _ in range(2):
            assert told(await summarised(assembly))[1] == 0
        assert len(sandbox.requests("anthropic")) == 5
        asked = await summarised(assembly)
        assert asked.record.attempts[0].outcome == "breaker_open"
        assert assembly.providers.guarded["anthropic"].breaker.state is State.OPEN
    assert len(sandbox.requests("anthropic")) == 5


async def test_its_window_bounds_what_it_is_asked(
    assemble_cheap: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """A model with a smaller window than the service's limit gets the newest that fit."""
    async with assemble_cheap(memory, window_tokens=600) as assembly:
        trimmed, summarized = told(await summarised(assembly))
    assert 0 < summarized < trimmed
    assert len(marks(sandbox.requests("anthropic")[0].body)) == summarized


# What the reply says


async def test_the_reply_says_what_its_provider_saw(
    assemble: Assemble, memory: Backend, sandbox: Sandbox
) -> None:
    """Where providers count their own way, the one that answered counts: it may have seen less."""
    request = conversation(4, words=500)
    async with assemble(memory) as assembly:
        asked = await summarised(assembly, request)
        assert "x-context" not in asked.headers
        sandbox.script("openai", [Fault(error="quota_exhausted")])
        asked = await summarised(assembly, request)
        assert asked.headers["x-provider"] == "anthropic"
        trimmed, summarized = told(asked)
        assert (trimmed > 0, summarized) == (True, 0)
        assert len(marks(sandbox.requests("anthropic")[-1].body)) == 7 - trimmed
