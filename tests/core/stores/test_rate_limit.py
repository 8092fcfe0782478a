"""No window ever admits more than the limit, and who waits as told is admitted."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.storage.base import Admitted, RateLimit, RateState, Refused, Store

from .asking import NOON, admitted, refused, request

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R1")]

THREE = RateLimit(3, 10.0)


async def test_the_window_is_exact(store: Store) -> None:
    """A place comes free exactly one window after it was taken, and not a microsecond before."""
    for second in (0, 1, 2):
        await admitted(store, request(rate=THREE), now=NOON + second)
    for moment in (2, 9, 9.999_999):
        await refused(store, request(rate=THREE), now=NOON + moment)
    await admitted(store, request(rate=THREE), now=NOON + 10)
    await refused(store, request(rate=THREE), now=NOON + 10.999_999)
    await admitted(store, request(rate=THREE), now=NOON + 11)


async def test_a_refusal_says_how_long_to_wait(store: Store) -> None:
    """`retry_after_seconds` is the time until the oldest place comes free."""
    for second in (0, 1, 2):
        await admitted(store, request(rate=THREE), now=NOON + second)
    refusal = await refused(store, request(rate=THREE), now=NOON + 4.25)
    assert refusal.reason == "rate"
    assert refusal.retry_after_seconds == 5.75
    assert refusal.rate == RateState(3, 0, 5.75, 10.0)


async def test_refusals_consume_nothing(store: Store) -> None:
    """However often a caller is refused, it is admitted at the same moment."""
    for _ in range(3):
        await admitted(store, request(rate=THREE))
    for tick in range(1, 100):
        await refused(store, request(rate=THREE), now=NOON + tick / 10)
    for _ in range(3):
        await admitted(store, request(rate=THREE), now=NOON + 10)


async def test_the_standing_is_told(store: Store) -> None:
    """Each decision says what remains after it, and when the next place comes free."""
    first = await admitted(store, request(rate=THREE))
    second = await admitted(store, request(rate=THREE), now=NOON + 4)
    assert first.rate == RateState(3, 2, 10.0, 10.0)
    assert second.rate == RateState(3, 1, 6.0, 10.0)
    later = await admitted(store, request(rate=THREE), now=NOON + 60)
    assert later.rate == RateState(3, 2, 10.0, 10.0)


async def test_callers_do_not_share_a_window(store: Store) -> None:
    """One caller's requests take no place of another's."""
    for _ in range(3):
        await admitted(store, request("ada", rate=THREE))
    await refused(store, request("ada", rate=THREE))
    assert (await admitted(store, request("grace", rate=THREE))).rate.remaining == 2


async def test_a_lowered_limit_holds_at_once(store: Store) -> None:
    """With a lower limit than before, callers wait until few enough requests are in the window."""
    for second in range(5):
        await admitted(store, request(rate=RateLimit(5, 10)), now=NOON + second)
    refusal = await refused(store, request(rate=RateLimit(2, 10)), now=NOON + 5)
    assert refusal.retry_after_seconds == 8
    await refused(store, request(rate=RateLimit(2, 10)), now=NOON + 12.999)
    await admitted(store, request(rate=RateLimit(2, 10)), now=NOON + 13)


async def test_many_at_one_moment_are_all_counted(store: Store) -> None:
    """Requests of the same microsecond take a place each."""
    limit = RateLimit(50, 10.0)
    for _ in range(50):
        await admitted(store, request(rate=limit))
    await refused(store, request(rate=limit))


async def test_the_clock_may_be_set_back(store: Store) -> None:
    """Places come free in the order of their times, whatever the order they were taken in."""
    for second in (5, 1, 3):
        await admitted(store, request(rate=THREE), now=NOON + second)
    refusal = await refused(store, request(rate=THREE), now=NOON + 6)
    assert refusal.rate == RateState(3, 0, 5.0, 10.0)
    await admitted(store, request(rate=THREE), now=NOON + 11)
    assert (await refused(store, request(rate=THREE), now=NOON + 12)).retry_after_seconds == 1


one_store_for_all = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Each example has a caller of its own instead."""

gaps = st.lists(st.integers(0, 4_000), min_size=1, max_size=60)
"""Between arrivals, in units of 0.7 ms: no sum of them is a whole second up to 6."""


class Clock:
    now = NOON

    def time(self) -> float:
        return self.now


@one_store_for_all
@given(gaps, st.integers(1, 6), st.sampled_from([1, 2, 3, 5]))
async def test_it_decides_as_the_oracle_does(
    store: Store, names: Iterator[str], gaps: list[int], limit: int, window_seconds: int
) -> None:
    """Whenever requests arrive, those admitted are the ones that `limits`' moving window admits."""
    caller = next(names)
    clock = Clock()
    oracle = MovingWindowRateLimiter(MemoryStorage())
    item = RateLimitItemPerSecond(limit, window_seconds)
    ticks = 0
    with patch("limits.storage.memory.time", clock):
        for gap in gaps:
            ticks += gap
            clock.now = NOON + ticks * 0.0007
            decision = await store.admit(
                request(caller, rate=RateLimit(limit, window_seconds)), now=clock.now
            )
            assert isinstance(decision, Admitted) is oracle.hit(item, caller)


@one_store_for_all
@given(gaps, st.integers(1, 6), st.sampled_from([1, 2, 3, 5]))
async def test_waiting_as_told_succeeds(
    store: Store, names: Iterator[str], gaps: list[int], limit: int, window_seconds: int
) -> None:
    """Who is refused is refused until just before the time it was told, and then admitted."""
    caller = next(names)
    rate = RateLimit(limit, window_seconds)
    now = NOON
    admissions: list[float] = []
    for gap in gaps:
        now = round(now + gap * 0.0007, 6)
        decision = await store.admit(request(caller, rate=rate), now=now)
        if isinstance(decision, Refused):
            early = now + decision.retry_after_seconds - 0.000_01
            if early > now:
                await refused(store, request(caller, rate=rate), now=early)
            now = round(now + decision.retry_after_seconds, 6)
            await admitted(store, request(caller, rate=rate), now=now)
        admissions.append(now)
    for start, moment in enumerate(admissions):
        inside = [at for at in admissions[start:] if at - moment < window_seconds - 0.000_01]
        assert len(inside) <= limit
