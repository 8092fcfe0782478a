"""A guarded chat put together as the service does it, on any store and against the sandbox.

Needs no fixture, so that a process of its own can have one too.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

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
from app.summarizer import Summarizer, SummaryModel
from app.tasks import Tasks

from .counted_store import CountedStore

WIDE = RateLimit(1_000, 60.0)
DEADLINE_SECONDS = 20.0
STREAM_MAX_SECONDS = 20.0
REPLY_TTL_SECONDS = 300.0


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


@asynccontextmanager
async def open_providers(
    variables: Mapping[str, str], *, places: int = 64, silence_seconds: float = 10, **breaker: Any
) -> AsyncIterator[Providers]:
    """The vendors where the sandbox's `variables` say they are.

    `places` is the size of the bulkheads, `silence_seconds` how long a vendor may be silent; the
    rest goes to the breakers.
    """
    openai_settings = OpenAISettings(
        api_key=SecretStr(variables["OPENAI_API_KEY"]), base_url=variables["OPENAI_BASE_URL"]
    )
    anthropic_settings = AnthropicSettings(
        api_key=SecretStr(variables["ANTHROPIC_API_KEY"]), base_url=variables["ANTHROPIC_BASE_URL"]
    )

    def transport(base_url: str) -> Transport:
        timeouts = Timeouts(5, silence_seconds, silence_seconds)
        return Transport(
            base_url,
            timeouts,
            max_reply_bytes=1_000_000,
            max_connections=64,
            keep_alive_seconds=4,
        )

    openai = Provider(OpenAI(openai_settings), transport(openai_settings.base_url))
    anthropic = Provider(Anthropic(anthropic_settings), transport(anthropic_settings.base_url))
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


@asynccontextmanager
async def assembled(
    store: Store,
    providers: Providers,
    counter: TokenCounter,
    *,
    tasks: Tasks | None = None,
    rate: RateLimit = WIDE,
    daily_usd: float = 100,
    max_history_messages: int = 10,
    deadline_seconds: float = DEADLINE_SECONDS,
    summary_model: SummaryModel | None = None,
) -> AsyncIterator[Assembly]:
    """A chat on `store`, which is opened and closed with it; the limits by keyword."""
    nano = int(daily_usd * 1e9)
    counted = store if isinstance(store, CountedStore) else CountedStore(store)
    tasks = tasks or Tasks()
    backlog = SettlementBacklog(
        counted, on_gone=lambda reason, waiting: None, on_back=lambda lost: None
    )
    gate = ContextGate(
        counter,
        max_input_tokens=4_000,
        max_output_tokens=200,
        max_history_messages=max_history_messages,
        summary_instruction="Summarise the conversation.",
    )
    fallback = providers.fallback()
    chat = GuardedChat(
        providers={provider.name: provider for provider in providers.chain},
        prices=providers.prices,
        gate=gate,
        admission=Admission(
            counted,
            Limits(rate, nano, nano, REPLY_TTL_SECONDS),
            BudgetCalendar(ZoneInfo("UTC")),
            backlog,
            on_budget=lambda state: None,
            on_exhausted=lambda day: None,
        ),
        fallback=fallback,
        summarizer=Summarizer(gate, fallback, counted, summary_model),
        tasks=tasks,
        timing=Timing(deadline_seconds, STREAM_MAX_SECONDS),
        idempotency_from_body="retries",
    )
    await counted.open()
    assembly = Assembly(chat, counted, backlog, tasks, providers)
    try:
        yield assembly
    finally:
        await assembly.finish()
        await counted.close()


def caller(
    name: str = "ada",
    *,
    key: str | None = None,
    body: bytes = b"{}",
    request_id: str = "request-1",
) -> Caller:
    """One request of an authenticated caller."""
    return Caller(
        name,
        authenticated=True,
        request_id=request_id,
        route="POST /v1/chat/completions",
        body=body,
        idempotency_key=key,
    )
