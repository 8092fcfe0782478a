"""Which failures are worth another attempt at the same provider, and how long it waits."""

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    Billing,
    BudgetExhausted,
    ProviderError,
    ProviderRefusesAccount,
    ProviderRejectsRequest,
    ProviderTimeout,
    ProviderUnavailable,
)
from app.guardrails.availability.deadline import Deadline
from app.guardrails.availability.retry import Retry, RetryBudget

pytestmark = pytest.mark.anyio

START = 1_000.0


class Script:
    """A provider that fails as told and then answers, on a clock that only waiting moves."""

    def __init__(self, failures: Iterable[Exception]) -> None:
        self._failures = iter(failures)
        self.now = START
        self.attempts = 0
        self.waits: list[tuple[float, float]] = []
        """When each wait began, and how long it was."""

    async def attempt(self) -> str:
        self.attempts += 1
        failure = next(self._failures, None)
        if failure is not None:
            raise failure
        return "answer"

    async def sleep(self, seconds: float) -> None:
        self.waits.append((self.now, seconds))
        self.now += seconds

    async def run(
        self,
        *,
        max_attempts: int = 3,
        deadline_seconds: float = 1_000,
        others_left: bool = False,
        budget: RetryBudget | None = None,
        seed: int = 1,
    ) -> str:
        retry = Retry(
            max_attempts, budget or RetryBudget(0.2, 100), self.sleep, random.Random(seed)
        )
        deadline = Deadline(START + deadline_seconds, clock=lambda: self.now)
        return await retry.call(self.attempt, deadline, others_left=others_left)

    @property
    def seconds(self) -> list[float]:
        return [seconds for _, seconds in self.waits]


def unavailable(
    status: int | None = 500, retry_after_seconds: float | None = None
) -> ProviderUnavailable:
    return ProviderUnavailable(
        "unavailable",
        billing=Billing.AMBIGUOUS,
        status=status,
        retry_after_seconds=retry_after_seconds,
    )


TIMEOUT = ProviderTimeout("fell silent", billing=Billing.AMBIGUOUS)


@pytest.mark.promise("A3")
@given(st.integers(0, 10**6))
def test_waits_grow(seed: int) -> None:
    """Waits double from half a second to eight, each longer by up to a quarter."""
    script = Script([unavailable()] * 7)
    asyncio.run(script.run(max_attempts=10, seed=seed))
    for wait, base in zip(script.seconds, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
        assert base <= wait <= 1.25 * base
    assert script.seconds[:5] == sorted(script.seconds[:5])


@pytest.mark.promise("A3")
async def test_waits_are_spread() -> None:
    """Two callers that fail together do not come back together."""
    one, other = Script([unavailable()]), Script([unavailable()])
    await one.run(seed=1)
    await other.run(seed=2)
    assert one.seconds != other.seconds


@pytest.mark.promise("A3")
async def test_attempts_are_limited() -> None:
    """After MAX_ATTEMPTS the last failure is raised, and no wait comes before that."""
    failures = [unavailable(status) for status in (500, 502, 503, 504)]
    script = Script(failures)
    with pytest.raises(ProviderUnavailable) as raised:
        await script.run(max_attempts=3)
    assert raised.value is failures[2]
    assert (script.attempts, len(script.waits)) == (3, 2)


@pytest.mark.promise("A3")
@pytest.mark.parametrize("status", [None, 408, 409, 429, 500, 503, 529])
async def test_what_may_pass_is_repeated(status: int | None) -> None:
    """Broken connections, 408, 409, 429 and 5xx are tried again."""
    script = Script([unavailable(status)])
    assert await script.run() == "answer"
    assert script.attempts == 2


@pytest.mark.promise("A3")
@pytest.mark.parametrize(
    "failure",
    [
        ProviderRejectsRequest("answered 400", status=400),
        ProviderRefusesAccount("answered 401", billing=Billing.NOTHING, status=401),
        BudgetExhausted("nothing left today"),
        ValueError("a fault of ours"),
    ],
    ids=repr,
)
async def test_what_will_not_pass_is_not_repeated(failure: Exception) -> None:
    """The caller's fault, a refused account and errors of our own are raised at once."""
    script = Script([failure])
    with pytest.raises(type(failure)):
        await script.run()
    assert (script.attempts, script.waits) == (1, [])


@pytest.mark.promise("A1")
async def test_a_timeout_goes_to_the_next_provider() -> None:
    """A provider that fell silent may have billed: it is only asked again when it is the last."""
    script = Script([TIMEOUT])
    with pytest.raises(ProviderTimeout):
        await script.run(others_left=True)
    assert script.attempts == 1
    alone = Script([TIMEOUT])
    assert await alone.run(others_left=False) == "answer"
    assert alone.attempts == 2


@pytest.mark.promise("A3")
@pytest.mark.parametrize("wish", [0.0, 0.05, 3.0, 60.0])
async def test_the_vendors_wish_is_granted(wish: float) -> None:
    """`Retry-After` is waited exactly, whether it is shorter or longer than the backoff."""
    script = Script([unavailable(429, wish)])
    assert await script.run() == "answer"
    assert script.seconds == [wish]


async def test_a_long_wish_goes_to_the_next_provider() -> None:
    """With another provider left, a wait beyond the longest backoff is not begun."""
    script = Script([unavailable(429, 60)])
    with pytest.raises(ProviderUnavailable):
        await script.run(others_left=True)
    assert (script.attempts, script.waits) == (1, [])


wishes = st.one_of(st.none(), st.floats(0, 200))


@pytest.mark.promise("A2")
@given(st.lists(wishes, max_size=9), st.floats(0, 300), st.integers(1, 10), st.booleans())
def test_no_wait_crosses_the_deadline(
    wishes: list[float | None], deadline_seconds: float, max_attempts: int, others_left: bool
) -> None:
    """Whatever vendors wish for, every wait that is begun ends before the deadline."""
    script = Script([unavailable(503, wish) for wish in wishes])

    async def run() -> None:
        with suppress(ProviderError):
            await script.run(
                max_attempts=max_attempts,
                deadline_seconds=deadline_seconds,
                others_left=others_left,
            )

    asyncio.run(run())
    assert all(began + wait <= START + deadline_seconds + 1e-6 for began, wait in script.waits)
    assert script.attempts <= max_attempts


@pytest.mark.promise("A3")
async def test_a_storm_earns_few_retries() -> None:
    """In an outage retries are at most the reserve and a fifth of the first attempts."""
    budget = RetryBudget(ratio=0.2, reserve=10)
    attempts = 0
    for _ in range(200):
        script = Script([unavailable()] * 3)
        with pytest.raises(ProviderUnavailable):
            await script.run(budget=budget)
        attempts += script.attempts
    assert 200 < attempts <= 200 + 10 + 0.2 * 200


@pytest.mark.promise("A3")
async def test_quiet_times_earn_the_reserve_back() -> None:
    """Once spent, retries are earned again by calls that succeed, up to the reserve."""
    budget = RetryBudget(ratio=0.2, reserve=2)
    assert [budget.try_retry() for _ in range(3)] == [True, True, False]
    for _ in range(1_000):
        assert await Script([]).run(budget=budget) == "answer"
    assert [budget.try_retry() for _ in range(3)] == [True, True, False]
