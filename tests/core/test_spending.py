"""The account of one call: it never costs more than was set aside for it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.guardrails.resources.budget import Spending, usd
from app.messages import Charge, TokenUsage

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R3")]

MODEL = ("openai", "gpt-6-luna")
USAGE = TokenUsage(20, 10)


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
    assert await spending.begin_attempt(*MODEL, 100)
    assert spending.cost_nano_usd == 100
    spending.attempt_cost(30, USAGE)
    assert (spending.cost_nano_usd, purse.granted) == (30, [])


async def test_an_attempt_that_cost_nothing_is_forgotten() -> None:
    """After a refusal that was never processed, the next attempt needs no top-up."""
    purse = Purse()
    spending = Spending(100, purse.top_up)
    for _ in range(5):
        assert await spending.begin_attempt(*MODEL, 100)
        spending.attempt_was_free()
    assert (spending.cost_nano_usd, purse.granted) == (0, [])


async def test_an_ambiguous_attempt_stays_charged() -> None:
    """An attempt of unknown cost is charged its worst case, and the next one is added to it."""
    purse = Purse()
    spending = Spending(100, purse.top_up)
    assert await spending.begin_attempt(*MODEL, 100)
    spending.attempt_is_unknown()
    assert await spending.begin_attempt(*MODEL, 80)
    assert purse.granted == [80]
    spending.attempt_cost(20, USAGE)
    assert spending.cost_nano_usd == 120


async def test_a_refused_top_up_forbids_the_attempt() -> None:
    """Without room for one more worst case there is no attempt, and nothing is charged for it."""
    purse = Purse(limit=50)
    spending = Spending(100, purse.top_up)
    assert await spending.begin_attempt(*MODEL, 100)
    spending.attempt_is_unknown()
    assert not await spending.begin_attempt(*MODEL, 51)
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
            if not await spending.begin_attempt(*MODEL, worst_case):
                return
            assert spending.cost_nano_usd <= reserved + sum(purse.granted)
            if share is None:
                spending.attempt_is_unknown()
            else:
                spending.attempt_cost(int(worst_case * share), USAGE)
            assert spending.cost_nano_usd <= reserved + sum(purse.granted)

    asyncio.run(run())
    assert spending.reserved_nano_usd == reserved + sum(purse.granted)


async def test_each_model_has_one_charge() -> None:
    """Attempts at one model add up; one under way counts in full, one never processed does not."""
    spending = Spending(1_000, Purse().top_up)
    assert await spending.begin_attempt("openai", "gpt", 100)
    spending.attempt_cost(7, USAGE)
    assert await spending.begin_attempt("openai", "gpt", 100)
    spending.attempt_is_unknown()
    assert await spending.begin_attempt("openai", "gpt", 100)
    spending.attempt_was_free()
    assert await spending.begin_attempt("anthropic", "claude", 40)
    assert spending.charges == (
        Charge("openai", "gpt", 107, calls=2, input_tokens=20, output_tokens=10),
        Charge("anthropic", "claude", 40),
    )
    assert spending.cost_nano_usd == 147


@pytest.mark.parametrize(
    ("nano_usd", "written"),
    [(0, "0"), (1, "0.000000001"), (12_000, "0.000012"), (10**10, "10"), (1_500_000_000, "1.5")],
)
def test_dollars_are_written_exactly(nano_usd: int, written: str) -> None:
    """Plain digits, without a power of ten and without a rounded place."""
    assert usd(nano_usd) == written
