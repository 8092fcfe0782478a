"""When a failed attempt is worth another one at the same provider, and how long to wait first."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ... import policy
from ...errors import ProviderError, ProviderTimeout, ProviderUnavailable
from .deadline import Deadline

T = TypeVar("T")


class RetryBudget:
    """Retries are earned by first attempts, so that an outage does not multiply its own load."""

    def __init__(self, ratio: float, reserve: float) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve

    def first_attempt(self) -> None:
        self._tokens = min(self._reserve, self._tokens + self._ratio)

    def try_retry(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Retry:
    """The owner of all retries: no client below it and no caller above it repeats a call."""

    max_attempts: int
    budget: RetryBudget
    sleep: Callable[[float], Awaitable[None]]
    random: random.Random

    async def call(
        self, attempt: Callable[[], Awaitable[T]], deadline: Deadline, *, others_left: bool
    ) -> T:
        """Runs `attempt` until it succeeds or is not worth repeating; raises its last error.

        With other providers left, a timeout is not repeated (the same one may have billed), nor is
        a wait begun that is longer than the longest backoff.
        """
        self.budget.first_attempt()
        try:
            # Most calls end here, and need none of the machinery below.
            return await attempt()
        except ProviderError as error:
            failed = [error]

        async def first_or_next() -> T:
            if failed:
                raise failed.pop()
            return await attempt()

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: _is_worth_repeating(error, others_left)),
            wait=self._wait_seconds,
            stop=lambda state: self._must_stop(state, deadline, others_left),
            sleep=self.sleep,
            reraise=True,
        )
        return await retrying(first_or_next)

    def _wait_seconds(self, state: RetryCallState) -> float:
        """The vendor's wish, or 0.5, 1, 2, 4, 8 s with up to a quarter more."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ProviderError) and error.retry_after_seconds is not None:
            return error.retry_after_seconds
        backoff = policy.BACKOFF_BASE_SECONDS * 2.0 ** (state.attempt_number - 1)
        return min(policy.BACKOFF_MAX_SECONDS, backoff) * self.random.uniform(1.0, 1.25)

    def _must_stop(self, state: RetryCallState, deadline: Deadline, others_left: bool) -> bool:
        wait = state.upcoming_sleep
        if state.attempt_number >= self.max_attempts or not deadline.allows(wait):
            return True
        if others_left and wait > policy.BACKOFF_MAX_SECONDS * 1.25:
            return True
        return not self.budget.try_retry()


def _is_worth_repeating(error: BaseException, others_left: bool) -> bool:
    if isinstance(error, ProviderTimeout):
        return not others_left
    return isinstance(error, ProviderUnavailable)
