"""The account of one call: it never costs more than was set aside for it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.guardrails.resources.budget import Spending

pytestmark = pytest.mark.anyio


class Purse:
    """Grants top-ups up to a limit, and keeps their amounts."""

    def __init__(self, limit: int = 10**12) -> None:
        self.limit = limit
        self.granted: list[int] = []

    async def top_up(self, amount: int) -> bool:
        if sum(self.granted) + amount > self.limit:
            return False
        self.granted.append(amount)
        return True


async def test_the_first_attempt_is_covered() -> None:
    """One attempt within the reservation asks for nothing more, and ends at its real cost."""
    purse = Purse()
    spending = Spending(100, purse.top_up)
    assert await spending.begin_attempt(100)
    assert spending.cost_nano_usd == 100
    spending.attempt_cost(30)
    assert (spending.cost_nano_usd, purse.granted) == (30, [])


async def test_an_attempt_that_cost_nothing_is_forgotten() -> None:
    """After a refusal that was never processed, the next attempt needs no top-up."""
    purse = Purse()
    spending = Spending(100, purse.top_up)
    for _ in range(5):
        assert await spending.begin_attempt(100)
        spending.attempt_cost(0)
    assert (spending.cost_nano_usd, purse.granted) == (0, [])


async def test_an_ambiguous_attempt_stays_charged() -> None:
    """An attempt of unknown cost is charged its worst case, and the next one is added to it."""
    purse = Purse()
    spending = Spending(100, purse.top_up)
    assert await spending.begin_attempt(100)
    spending.attempt_cost(None)
    assert await spending.begin_attempt(80)
    assert purse.granted == [80]
    spending.attempt_cost(20)
    assert spending.cost_nano_usd == 120


async def test_a_refused_top_up_forbids_the_attempt() -> None:
    """Without room for one more worst case there is no attempt, and nothing is charged for it."""
    purse = Purse(limit=50)
    spending = Spending(100, purse.top_up)
    assert await spending.begin_attempt(100)
    spending.attempt_cost(None)
    assert not await spending.begin_attempt(51)
    assert (spending.cost_nano_usd, spending.reserved_nano_usd) == (100, 100)


costs = st.tuples(st.integers(0, 10**9), st.one_of(st.none(), st.floats(0, 1)))


@given(st.integers(0, 10**9), st.lists(costs, max_size=8), st.integers(0, 10**10))
def test_cost_never_exceeds_the_reservation(
    reserved: int, attempts: list[tuple[int, float | None]], limit: int
) -> None:
    """Whatever attempts cost, up to their worst case, the charge is covered at every moment."""
    purse = Purse(limit)
    spending = Spending(reserved, purse.top_up)

    async def run() -> None:
        for worst_case, share in attempts:
            if not await spending.begin_attempt(worst_case):
                return
            assert spending.cost_nano_usd <= reserved + sum(purse.granted)
            spending.attempt_cost(None if share is None else int(worst_case * share))
            assert spending.cost_nano_usd <= reserved + sum(purse.granted)

    asyncio.run(run())
    assert spending.reserved_nano_usd == reserved + sum(purse.granted)
