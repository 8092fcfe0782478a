"""Asks the providers of a chain in order, each behind its own breaker and bulkhead.

This is where deadline, retry, breaker, bulkhead and fallback meet; each is a file of its own.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from ... import policy
from ...errors import (
    BadRequest,
    DeadlineExceeded,
    ProviderError,
    ProviderRefusesAccount,
    ProviderRejectsRequest,
    ProvidersUnavailable,
)
from ...messages import ChatReply, ChatRequest, Chunk
from ...providers.provider import Provider
from .circuit_breaker import CircuitBreaker, State
from .deadline import Deadline
from .retry import Retry

T = TypeVar("T")


class AttemptObserver(Protocol):
    """Hears of every attempt; a budget may refuse one."""

    @property
    def request_id(self) -> str:
        """By which the log finds the request."""

    def attempt_waits(self, provider: Provider) -> None:
        """It asks for a place at the provider."""

    async def before_attempt(
        self, provider: Provider, request: ChatRequest, *, stream: bool
    ) -> Mapping[str, str]:
        """Headers that the provider is sent. Raises `ServiceError` to forbid the attempt."""

    def vendor_answered(self, request_id: str | None) -> None:
        """An answer has begun, good or bad; the vendor knows it by `request_id`."""

    def attempt_failed(self, provider: Provider, error: ProviderError) -> None: ...

    def attempt_cut(self, provider: Provider, *, by_deadline: bool) -> None:
        """The deadline has, or else its caller's leaving or the service's end: what it cost is not
        known."""

    def attempt_skipped(self, provider: Provider, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class GuardedProvider:
    """A provider behind its breaker and its bulkhead.

    `places` is the bulkhead: beyond it calls wait within their deadline, so that one slow provider
    does not take every place in the process.
    """

    provider: Provider
    breaker: CircuitBreaker
    places: asyncio.Semaphore

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place at this provider. How the block ends is what the breaker judges."""
        async with self.places:
            entry = self.breaker.enter()
            if entry is None:
                raise BreakerOpen
            try:
                yield
            except BaseException as error:
                self.breaker.leave(entry, error)
                raise
            self.breaker.leave(entry, None)


class BreakerOpen(Exception):
    """The provider is not asked at the moment."""


@dataclass(slots=True)
class OpenStream:
    """A stream whose first chunk has come. `stack` closes the upstream and frees the place."""

    provider: Provider
    first: Chunk
    rest: AsyncIterator[Chunk]
    stack: AsyncExitStack


class Fallback:
    """`alert(kind, text)` is told of refused accounts and of the whole chain being down."""

    def __init__(
        self,
        providers: Mapping[str, GuardedProvider],
        retry: Retry,
        alert: Callable[[str, str], None],
    ) -> None:
        self._providers = providers
        self._retry = retry
        self._alert = alert

    async def complete(
        self,
        chain: Sequence[Provider],
        request_for: Callable[[Provider], ChatRequest],
        deadline: Deadline,
        observer: AttemptObserver,
        *,
        is_optional: bool = False,
    ) -> tuple[ChatReply, Provider]:
        """The first reply that a provider of `chain` gives. Raises `ServiceError`.

        Of one that `is_optional`, nobody is alerted when there is none.
        """

        async def ask(guarded: GuardedProvider) -> tuple[ChatReply, Provider]:
            async with guarded.place():
                provider = guarded.provider
                request = request_for(provider)
                headers = await observer.before_attempt(provider, request, stream=False)
                reply = await provider.complete(
                    request, headers=headers, heard=observer.vendor_answered
                )
                return reply, provider

        return await self._first_answer(chain, ask, deadline, observer, is_optional)

    async def open_stream(
        self,
        chain: Sequence[Provider],
        request_for: Callable[[Provider], ChatRequest],
        deadline: Deadline,
        observer: AttemptObserver,
    ) -> OpenStream:
        """The first stream that begins. After its first chunk there is no way back."""

        async def ask(guarded: GuardedProvider) -> OpenStream:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(guarded.place())
                provider = guarded.provider
                request = request_for(provider)
                headers = await observer.before_attempt(provider, request, stream=True)
                chunks = await stack.enter_async_context(
                    provider.stream(request, headers=headers, heard=observer.vendor_answered)
                )
                first = await anext(chunks)
                return OpenStream(provider, first, chunks, stack.pop_all())

        return await self._first_answer(chain, ask, deadline, observer)

    async def _first_answer(
        self,
        chain: Sequence[Provider],
        ask: Callable[[GuardedProvider], Awaitable[T]],
        deadline: Deadline,
        observer: AttemptObserver,
        is_optional: bool = False,
    ) -> T:
        failures: dict[str, ProviderError | None] = {}
        try:
            async with asyncio.timeout_at(deadline.at) as limit:
                for position, provider in enumerate(chain):
                    others_left = self._any_answering(chain[position + 1 :])
                    try:
                        return await self._ask(
                            provider, ask, deadline, limit, observer, others_left
                        )
                    except BreakerOpen:
                        failures[provider.name] = None
                        observer.attempt_skipped(provider, "breaker_open")
                    except ProviderRejectsRequest as error:
                        raise _blame_request(error) from error
                    except ProviderError as error:
                        failures[provider.name] = error
                        self._consider_alert(provider, error, observer.request_id)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "No provider answered before the deadline (DEADLINE_SECONDS); try again.",
                retry_after_seconds=policy.PROVIDERS_RETRY_AFTER_SECONDS,
            ) from error
        if not is_optional:
            self._alert_of_all(failures, observer.request_id)
        raise _all_down(failures)

    async def _ask(
        self,
        provider: Provider,
        ask: Callable[[GuardedProvider], Awaitable[T]],
        deadline: Deadline,
        limit: asyncio.Timeout,
        observer: AttemptObserver,
        others_left: bool,
    ) -> T:
        guarded = self._providers[provider.name]
        if guarded.provider is not provider:
            # Whichever of its models is asked, a provider's breaker and places are the same.
            guarded = replace(guarded, provider=provider)

        async def attempt() -> T:
            observer.attempt_waits(provider)
            try:
                return await ask(guarded)
            except ProviderError as error:
                observer.attempt_failed(provider, error)
                raise
            except asyncio.CancelledError:
                observer.attempt_cut(provider, by_deadline=limit.expired())
                raise

        return await self._retry.call(attempt, deadline, others_left=others_left)

    def _any_answering(self, chain: Sequence[Provider]) -> bool:
        return any(self._providers[p.name].breaker.state is not State.OPEN for p in chain)

    def _consider_alert(self, provider: Provider, error: ProviderError, request_id: str) -> None:
        if isinstance(error, ProviderRefusesAccount):
            self._alert(
                f"account_refused:{provider.name}",
                f"{provider.name} refuses the account's key, quota or model (status {error.status},"
                f" request {request_id}). Until that is mended in the vendor's console, or the key"
                " is replaced, the next of PROVIDERS answers, if there is one.",
            )

    def _alert_of_all(self, failures: Mapping[str, ProviderError | None], request_id: str) -> None:
        reasons = ", ".join(f"{name} ({_reason(error)})" for name, error in failures.items())
        self._alert(
            "providers_down",
            f"Every provider that was asked failed: {reasons}; request {request_id}. Callers get"
            " 503 and are told to come back. Look at the providers' status pages.",
        )


def _all_down(failures: Mapping[str, ProviderError | None]) -> ProvidersUnavailable:
    waits = [e.retry_after_seconds for e in failures.values() if e and e.retry_after_seconds]
    return ProvidersUnavailable(
        f"Every provider failed ({', '.join(failures)}); try again.",
        retry_after_seconds=math.ceil(min(waits, default=policy.PROVIDERS_RETRY_AFTER_SECONDS)),
    )


def _reason(error: ProviderError | None) -> str:
    """In words that hold no vendor's text."""
    if error is None:
        return "its breaker is open"
    status = f", status {error.status}" if error.status else ""
    return f"{type(error).__name__}{status}"


def _blame_request(error: ProviderRejectsRequest) -> BadRequest:
    """The vendor's words go to the caller, whose request they are about, and nowhere else."""
    return BadRequest(
        error.detail_for_caller or "The provider rejects the request as invalid.",
        code=error.code or "provider_rejected_request",
        param=error.param,
    )
