"""What a person reads of a day: who spent what on which model, and what is still set aside."""

import pytest

from app.messages import Charge
from app.storage.base import DayBook, Settlement, Spent, Store

from .asking import NOON, admitted, days_around, refused, request, reservation, settlement

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R3")]

_, TODAY, TOMORROW = days_around(NOON)


def charge(cost: int, provider: str = "openai", model: str = "gpt", calls: int = 1) -> Charge:
    return Charge(provider, model, cost, calls, input_tokens=10 * calls, output_tokens=calls)


async def spend(store: Store, who: str, *charges: Charge, now: float = NOON) -> None:
    asked = request(who, reserve=reservation(1_000))
    await admitted(store, asked, now=now)
    ended = Settlement(asked.operation_id, who, charges)
    assert await store.settle(ended, now=now) is not None


async def test_a_day_without_calls_is_empty(store: Store) -> None:
    """Of a day on which nothing happened there is nothing to tell."""
    assert await store.day_book(TODAY.name) == DayBook(TODAY.name, (), ())


async def test_charges_add_up_by_caller_and_model(store: Store) -> None:
    """Each line is one caller's one model, in order, with its calls, tokens and cost."""
    await spend(store, "grace", charge(5, "openai", "gpt"))
    await spend(store, "ada", charge(7, "openai", "gpt"), charge(2, "anthropic", "claude"))
    await spend(store, "ada", charge(70, "openai", "gpt", calls=3))
    book = await store.day_book(TODAY.name)
    assert book.spent == (
        Spent("ada", charge(2, "anthropic", "claude")),
        Spent("ada", charge(77, "openai", "gpt", calls=4)),
        Spent("grace", charge(5, "openai", "gpt")),
    )
    assert (book.reserved, book.settled_nano_usd) == ((), 84)


ODD = ["a,b", '"', "\\", '\\"', "{}", "NULL", "", " x ", "m:é\u2028☂", "'; --"]


async def test_models_may_have_any_name(store: Store) -> None:
    """What a vendor calls its model is told as it is, whatever it means to a store."""
    await spend(store, "ada", *(charge(n, model=name) for n, name in enumerate(ODD)))
    book = await store.day_book(TODAY.name)
    assert {spent.charge.model: spent.charge.cost_nano_usd for spent in book.spent} == {
        name: n for n, name in enumerate(ODD)
    }


async def test_what_is_set_aside_is_told(store: Store) -> None:
    """A call that has not ended, or whose worker was killed, is there with its reservation."""
    running = request("ada", reserve=reservation(40))
    await admitted(store, running)
    await admitted(store, request("grace", reserve=reservation(2)))
    book = await store.day_book(TODAY.name)
    assert (book.spent, book.reserved, book.reserved_nano_usd) == (
        (),
        (("ada", 40), ("grace", 2)),
        42,
    )
    await store.settle(settlement(running, 30), now=NOON)
    assert (await store.day_book(TODAY.name)).reserved == (("grace", 2),)


async def test_each_day_has_its_book(store: Store) -> None:
    """A charge stands on the day of its admission, not of its settlement."""
    late = request("ada", reserve=reservation(100))
    await admitted(store, late, now=TODAY.ends_at - 1)
    await store.settle(settlement(late, 70), now=TODAY.ends_at + 5)
    await spend(store, "ada", charge(5), now=TODAY.ends_at + 6)
    assert (await store.day_book(TODAY.name)).settled_nano_usd == 70
    assert (await store.day_book(TOMORROW.name)).settled_nano_usd == 5


async def test_settling_twice_is_told_once(store: Store) -> None:
    """A settlement that is repeated adds nothing, and neither does one of nobody's operation."""
    asked = request("ada", reserve=reservation(100))
    await admitted(store, asked)
    for _ in range(3):
        await store.settle(settlement(asked, 70), now=NOON)
    await store.settle(settlement(request("grace"), 7), now=NOON)
    assert (await store.day_book(TODAY.name)).settled_nano_usd == 70


async def test_large_sums_are_exact(store: Store) -> None:
    """To the nano-dollar, at a million dollars a day."""
    million = 10**15
    cap = reservation(million, cap=million, caller_cap=million)
    asked = request("ada", reserve=cap)
    await admitted(store, asked)
    assert (await refused(store, request("ada", reserve=reservation(1, cap=million)))).budget
    await store.settle(settlement(asked, million - 1), now=NOON)
    await admitted(store, request("ada", reserve=reservation(1, cap=million)))
    book = await store.day_book(TODAY.name)
    assert (book.settled_nano_usd, book.reserved_nano_usd) == (million - 1, 1)


@pytest.mark.parametrize("who", ["address:2001:db8:1:2::/64", "ünï/çödé", "a:b|c d\\e%'\"{}", "0"])
async def test_callers_have_any_name(store: Store, who: str) -> None:
    """A name comes back as it was given, whatever is in it."""
    await spend(store, who, charge(5, "openai_compatible", "org/model:tag|x"))
    await admitted(store, request(who, reserve=reservation(2)))
    book = await store.day_book(TODAY.name)
    assert book.spent == (Spent(who, charge(5, "openai_compatible", "org/model:tag|x")),)
    assert book.reserved == ((who, 2),)
