"""One tokenizer and one sandbox for all, and a guarded chat put together as the service does it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from pydantic import SecretStr

from app.caller import Caller
from app.chat import GuardedChat, Timing
from app.guardrails.availability.circuit_breaker import CircuitBreaker
from app.guardrails.availability.fallback import Fallback, GuardedProvider
from app.guardrails.availability.retry import Retry, RetryBudget
from app.guardrails.context.gate import ContextGate
from app.guardrails.context.token_count import TokenCounter
from app.guardrails.resources.admission import Admission, Limits, SettlementBacklog
from app.guardrails.resources.budget import BudgetCalendar
from app.guardrails.resources.prices import Price, resolve
from app.providers.anthropic import Anthropic, AnthropicSettings
from app.providers.openai import OpenAI, OpenAISettings
from app.providers.provider import Provider
from app.providers.transport import Timeouts, Transport
from app.storage.base import RateLimit, Store
from app.tasks import Tasks
from sandbox.server import Sandbox
from sandbox.stores import postgres as postgres_place

from .backends import Backend, memory_backend, postgres_backend, sqlite_backend
from .counted_store import CountedStore

WIDE = RateLimit(1_000, 60.0)

# Examples are judged by what they show: how long one takes depends on who else uses the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    return TokenCounter()


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The stand-ins of the vendors, with nothing scripted and nothing received."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def sqlite(tmp_path: Path) -> Backend:
    return sqlite_backend(tmp_path)


@pytest.fixture
def memory() -> Backend:
    return memory_backend()


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A database that all tests of this process share."""
    with postgres_place.run() as url:
        yield url


@pytest.fixture
def postgres(database_url: str) -> Iterator[Backend]:
    with postgres_backend(database_url) as backend:
        yield backend


class Waits(list[float]):
    """A sleep that only takes note."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


@dataclass(slots=True)
class Providers:
    """Both vendors at the sandbox, each behind a breaker and a bulkhead of its own."""

    openai: Provider
    anthropic: Provider
    prices: dict[str, Price]
    guarded: dict[str, GuardedProvider]
    waits: Waits = field(default_factory=Waits)
    alerts: list[str] = field(default_factory=list)

    @property
    def chain(self) -> list[Provider]:
        return [self.openai, self.anthropic]

    def fallback(self, *, max_attempts: int = 3, retry_budget: float = 100) -> Fallback:
        budget = RetryBudget(0.2, retry_budget)
        retry = Retry(max_attempts, budget, self.waits, random.Random(7))
        return Fallback(self.guarded, retry, lambda kind, text: self.alerts.append(kind))


OpenProviders = Callable[..., AbstractAsyncContextManager[Providers]]


@pytest.fixture
def open_providers(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> OpenProviders:
    """Opens `Providers`.

    `places` is the size of the bulkheads, `silence_seconds` how long a vendor may be silent; the
    rest goes to the breakers.
    """
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    variables = sandbox.environment()
    openai_settings = OpenAISettings(
        api_key=SecretStr(variables["OPENAI_API_KEY"]), base_url=variables["OPENAI_BASE_URL"]
    )
    anthropic_settings = AnthropicSettings(
        api_key=SecretStr(variables["ANTHROPIC_API_KEY"]), base_url=variables["ANTHROPIC_BASE_URL"]
    )

    def transport(base_url: str, silence_seconds: float) -> Transport:
        timeouts = Timeouts(5, silence_seconds, silence_seconds)
        return Transport(base_url, timeouts, max_reply_bytes=1_000_000, max_connections=64)

    @asynccontextmanager
    async def run(
        places: int = 64, silence_seconds: float = 10, **breaker: Any
    ) -> AsyncIterator[Providers]:
        openai, anthropic = (
            Provider(adapter, transport(base_url, silence_seconds))
            for adapter, base_url in (
                (OpenAI(openai_settings), openai_settings.base_url),
                (Anthropic(anthropic_settings), anthropic_settings.base_url),
            )
        )
        limits = {"failures": 5, "cool_down_seconds": 30, **breaker}
        providers = Providers(
            openai,
            anthropic,
            {
                "openai": resolve(openai_settings, OpenAI.price_list_id),
                "anthropic": resolve(anthropic_settings, Anthropic.price_list_id),
            },
            {
                provider.name: GuardedProvider(
                    provider, CircuitBreaker(**limits), asyncio.Semaphore(places)
                )
                for provider in (openai, anthropic)
            },
        )
        try:
            yield providers
        finally:
            await asyncio.gather(openai.aclose(), anthropic.aclose())

    return run


@dataclass(slots=True)
class Assembly:
    """A guarded chat and the parts that tests look at."""

    chat: GuardedChat
    store: CountedStore
    backlog: SettlementBacklog
    tasks: Tasks
    providers: Providers

    async def finish(self) -> None:
        """What shutdown does: calls run to their end, and what is unsettled is written."""
        await self.tasks.drain(5)
        assert await self.backlog.close(5) == 0


Assemble = Callable[..., AbstractAsyncContextManager[Assembly]]


@pytest.fixture
def assemble(open_providers: OpenProviders, counter: TokenCounter) -> Assemble:
    """Puts a chat together on a backend; the limits by keyword."""

    @asynccontextmanager
    async def run(
        backend: Backend,
        *,
        tasks: Tasks | None = None,
        rate: RateLimit = WIDE,
        daily_usd: float = 100,
        max_history_messages: int = 10,
        deadline_seconds: float = 20,
    ) -> AsyncIterator[Assembly]:
        nano = int(daily_usd * 1e9)
        store: Store = backend.connect()
        counted = CountedStore(store)
        tasks = tasks or Tasks()
        async with open_providers() as providers:
            backlog = SettlementBacklog(
                counted, on_gone=lambda reason, waiting: None, on_back=lambda lost: None
            )
            chat = GuardedChat(
                providers={provider.name: provider for provider in providers.chain},
                prices=providers.prices,
                gate=ContextGate(
                    counter,
                    max_input_tokens=4_000,
                    max_output_tokens=200,
                    max_history_messages=max_history_messages,
                ),
                admission=Admission(
                    counted,
                    Limits(rate, nano, nano, 300),
                    BudgetCalendar(ZoneInfo("UTC")),
                    backlog,
                    on_budget=lambda state: None,
                    on_exhausted=lambda day: None,
                ),
                fallback=providers.fallback(),
                store=counted,
                tasks=tasks,
                timing=Timing(deadline_seconds, 20),
                idempotency_from_body="retries",
            )
            await store.open()
            assembly = Assembly(chat, counted, backlog, tasks, providers)
            try:
                yield assembly
            finally:
                await assembly.finish()
                await store.close()

    return run


def caller(name: str = "ada", *, key: str | None = None, body: bytes = b"{}") -> Caller:
    """One request of an authenticated caller."""
    return Caller(
        name,
        authenticated=True,
        request_id="request-1",
        route="POST /v1/chat/completions",
        body=body,
        idempotency_key=key,
    )
