"""Ten thousand calls go wrong in every way there is, and nothing of them is left behind."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
import pytest

from app.errors import Billing, ProviderError, ServiceError
from app.guardrails.availability.circuit_breaker import CircuitBreaker, State
from app.guardrails.availability.deadline import Deadline
from app.guardrails.availability.fallback import Fallback, GuardedProvider, OpenStream
from app.guardrails.availability.retry import Retry, RetryBudget
from app.messages import ChatRequest, Message, Text
from app.providers.provider import Provider
from app.providers.transport import Timeouts, Transport

from ..core.waiting import until
from .asking import HEADERS
from .conftest import ASYNCIO, UVLOOP, IssueCertificate, MakeOpenAI, Serve
from .misbehaving import FAULTS, Listener, Misbehaving, prompt
from .test_proxies import VENDOR, Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_network")]

PLACES = 32
CALLERS = 48
"""At a time: some always wait for a place."""
WARM_UP = 1_000
RUN_SECONDS = 120
"""For each round: when places are lost, every call takes the time of its limit."""
OF_THE_LOOP = 1
"""A file that uvloop opens when it first needs it."""
CUT = 0.15
"""How many calls are cancelled on their way."""
LEFT = 0.1
"""How many streams are left behind their first chunk."""
SLOW = {"silent", "silent-within-headers", "silent-within-body", "endless", "refused"}
"""Rarer than the others, since each takes the time of its limit, or the port from everybody."""


@dataclass(frozen=True)
class Plan:
    number: int
    fault: str
    stream: bool
    leaves: bool
    cut_after_seconds: float | None


def plans(chance: random.Random, first: int, count: int) -> Iterator[Plan]:
    faults = [fault for fault in FAULTS if fault != "held"]
    weights = [0.1 if fault in SLOW else 1.0 for fault in faults]
    for number in range(first, first + count):
        (fault,) = chance.choices(faults, weights)
        yield Plan(
            number,
            fault,
            chance.random() < 0.5,
            chance.random() < LEFT,
            chance.uniform(0, 0.03) if chance.random() < CUT else None,
        )


def request(fault: str, number: int) -> ChatRequest:
    return ChatRequest((Message("user", (Text(prompt(fault, number)),)),), max_output_tokens=10)


Ask = Callable[[Plan], Awaitable[str]]
"""Returns what the reply says, in full or, of a stream that was left, its first chunk."""


async def run(
    ask: Ask, todo: Iterator[Plan], judge: Callable[[Plan, Exception], None], rounds: int
) -> Counter[str]:
    """What came of the calls: `CALLERS` at a time, each checked to be itself and nobody else's."""
    outcomes: Counter[str] = Counter()

    async def call(plan: Plan) -> None:
        task = asyncio.create_task(_text(ask, plan))
        cut = None
        if plan.cut_after_seconds is not None:
            cut = asyncio.get_running_loop().call_later(plan.cut_after_seconds, task.cancel)
        try:
            assert await task == str(plan.number), plan
            outcomes["answered"] += 1
        except asyncio.CancelledError:
            assert plan.cut_after_seconds is not None, plan
            outcomes["cut"] += 1
        except (ProviderError, ServiceError) as error:
            judge(plan, error)
            outcomes[type(error).__name__] += 1
        finally:
            if cut is not None:
                cut.cancel()

    async def caller() -> None:
        for plan in todo:
            await call(plan)

    async with asyncio.timeout(RUN_SECONDS * rounds), asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return outcomes


async def _text(ask: Ask, plan: Plan) -> str:
    return await ask(plan)


@dataclass(frozen=True)
class Traces:
    """What calls could leave behind in the process."""

    tasks: int
    files: int
    objects: int
    memory_bytes: int

    @classmethod
    def take(cls) -> "Traces":
        # Twice: what the first run finalizes may have held more.
        gc.collect()
        gc.collect()
        process = psutil.Process()
        return cls(
            len(asyncio.all_tasks()),
            process.num_fds(),
            len(gc.get_objects()),
            process.memory_info().rss,
        )


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What asyncio and aiohttp say when something was forgotten."""
    said: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: said.append(str(context)))
    try:
        yield said
    finally:
        gc.collect()
        loop.set_exception_handler(None)


def transport_to(url: str) -> Transport:
    return Transport(
        url,
        Timeouts(connect_seconds=1, first_byte_seconds=2, idle_seconds=0.5),
        max_reply_bytes=20_000,
        max_connections=PLACES,
        keep_alive_seconds=10,
    )


async def ask_provider(provider: Provider, plan: Plan) -> str:
    about = request(plan.fault, plan.number)
    if not plan.stream:
        return (await provider.complete(about, headers=HEADERS)).text
    text = ""
    async with provider.stream(about, headers=HEADERS) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if plan.leaves:
                break
    return text


async def hold_every_place(provider: Provider) -> None:
    """As many calls as there are places are at the server at once."""
    calls = (
        provider.complete(request("held", number), headers=HEADERS) for number in range(PLACES)
    )
    replies = await asyncio.gather(*calls)
    assert [reply.text for reply in replies] == [str(number) for number in range(PLACES)]


@contextmanager
def vendor_behind(
    way: str, certified: IssueCertificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Misbehaving, str]]:
    """The server, and the URL that leads to it in that way."""
    names = {"plain": None, "tls": "127.0.0.1", "tunnel": "model.invalid"}
    name = names[way]
    with Misbehaving.in_thread(PLACES, certified(name) if name else None) as server:
        if way != "tunnel":
            yield server, f"{'https' if name else 'http'}://127.0.0.1:{server.port}"
            return
        with Listener.in_thread(Tunnel(server.port)) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            yield server, VENDOR


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("way", "anyio_backend"),
    [("plain", ASYNCIO), ("plain", UVLOOP), ("tls", ASYNCIO), ("tunnel", ASYNCIO)],
    ids=["plain", "plain-uvloop", "tls", "tunnel"],
)
async def test_failed_calls_leave_nothing_behind(
    way: str,
    rounds: int,
    openai: MakeOpenAI,
    certified: IssueCertificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a task nor a socket nor memory nor a place among the connections is lost, and no
    call gets another's reply. What was said to have cost nothing never reached the vendor."""
    count = rounds * (10_000 if way == "plain" else 1_500)
    chance = random.Random(f"{way} {rounds}")

    with vendor_behind(way, certified, monkeypatch) as (server, url):

        def judge(plan: Plan, error: Exception) -> None:
            assert isinstance(error, ProviderError)
            if error.billing is Billing.NOTHING and error.status is None:
                assert plan.number not in server.received, (plan, error)

        provider = Provider(openai(), transport_to(url))
        with complaints() as said:
            before = Traces.take()

            async def ask(plan: Plan) -> str:
                return await ask_provider(provider, plan)

            await run(ask, plans(chance, PLACES, WARM_UP), judge, rounds)
            await until(lambda: len(asyncio.all_tasks()) == before.tasks)
            warm = Traces.take()
            outcomes = await run(ask, plans(chance, PLACES + WARM_UP, count), judge, rounds)
            await until(lambda: len(asyncio.all_tasks()) == before.tasks)
            after = Traces.take()
            await hold_every_place(provider)
            await provider.aclose()
            await until(lambda: psutil.Process().num_fds() <= before.files + OF_THE_LOOP)
    assert said == []
    # Both ends of the connections that wait in the pool, in a tunnel twice, and some noise.
    assert after.files - before.files <= 4 * PLACES
    assert after.objects - warm.objects < 100 * PLACES + count / 5
    assert after.memory_bytes - warm.memory_bytes < 64 * 1024 * 1024
    assert outcomes.keys() >= {"answered", "cut", "ProviderTimeout", "ProviderUnavailable"}


# The same through the chain


class Indifferent:
    """An observer that lets every attempt go ahead, and counts those that failed."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()

    request_id = "request-1"

    def attempt_waits(self, provider: Provider) -> None:
        pass

    def vendor_answered(self, request_id: str | None) -> None:
        pass

    async def before_attempt(
        self, provider: Provider, request: ChatRequest, *, stream: bool
    ) -> Mapping[str, str]:
        return HEADERS

    def attempt_failed(self, provider: Provider, error: ProviderError) -> None:
        self.failures[type(error).__name__] += 1

    def attempt_cut(self, provider: Provider, *, by_deadline: bool) -> None:
        self.failures["cut"] += 1

    def attempt_skipped(self, provider: Provider, reason: str) -> None:
        self.failures[reason] += 1


@dataclass
class Chain:
    providers: list[GuardedProvider]
    fallback: Fallback
    observer: Indifferent

    async def ask(self, plan: Plan, deadline: Deadline) -> str:
        chain = [guarded.provider for guarded in self.providers]
        ask = self.fallback.open_stream if plan.stream else self.fallback.complete
        answer = await ask(
            chain,
            lambda provider: request(plan.fault, plan.number),
            deadline,
            self.observer,
        )
        if not isinstance(answer, OpenStream):
            return answer[0].text
        async with answer.stack:
            text = answer.first.text
            async for chunk in answer.rest:
                if plan.leaves:
                    break
                text += chunk.text
            return text


def chain_of(openai: MakeOpenAI, urls: list[str]) -> Chain:
    guarded = [
        GuardedProvider(
            Provider(openai(), transport_to(url)),
            CircuitBreaker(failures=20, cool_down_seconds=0.005),
            asyncio.Semaphore(PLACES),
        )
        for url in urls
    ]
    for number, each in enumerate(guarded):
        each.provider.adapter.name = f"provider-{number}"  # type: ignore[misc]
    retry = Retry(2, RetryBudget(1, 1e9), lambda seconds: asyncio.sleep(0), random.Random(3))
    fallback = Fallback(
        {each.provider.name: each for each in guarded}, retry, lambda kind, text: None
    )
    return Chain(guarded, fallback, Indifferent())


async def hold_every_place_behind(guarded: GuardedProvider, openai: MakeOpenAI) -> None:
    """The breaker closes again, and as many calls as the bulkhead has places are inside at once."""

    async def one(fault: str, number: int) -> str:
        async with guarded.place():
            about = request(fault, number)
            return (await guarded.provider.complete(about, headers=HEADERS)).text

    await until(lambda: guarded.breaker.state is not State.OPEN)
    await one("none", 1)
    assert guarded.breaker.state is State.CLOSED
    replies = await asyncio.gather(*(one("held", number) for number in range(PLACES)))
    assert replies == [str(number) for number in range(PLACES)]


async def test_failed_chains_leave_nothing_behind(
    rounds: int, openai: MakeOpenAI, serve: Serve
) -> None:
    """The same holds with breakers, bulkheads, retries and fallbacks around the calls, and with
    deadlines that end them anywhere: every place is free again, and no breaker waits for a probe
    that never ends."""
    chance = random.Random(rounds)
    with ExitStack() as stack:
        servers = [stack.enter_context(Misbehaving.in_thread(PLACES, None)) for _ in range(2)]
        async with serve(lambda visit: visit.receive()) as dead:
            pass  # the port is closed again
        urls = [dead.url, *(f"http://127.0.0.1:{server.port}" for server in servers)]
        with complaints() as said:
            before = Traces.take()
            chain = chain_of(openai, urls)

            def ask(plan: Plan) -> Awaitable[str]:
                return chain.ask(plan, Deadline.after(chance.uniform(0.01, 1)))

            outcomes = await run(
                ask, plans(chance, PLACES, rounds * 3_000), lambda *_: None, rounds
            )
            await until(lambda: len(asyncio.all_tasks()) == before.tasks)
            for guarded in chain.providers[1:]:
                await hold_every_place_behind(guarded, openai)
            for guarded in chain.providers:
                await guarded.provider.aclose()
            await until(lambda: psutil.Process().num_fds() <= before.files + OF_THE_LOOP)
    assert said == []
    assert outcomes.keys() >= {"answered", "cut", "ProvidersUnavailable"}
    assert chain.observer.failures.keys() >= {"ProviderUnavailable", "breaker_open", "cut"}
