"""What is set aside and charged, to the nano-dollar, on the day that the store's clock is in."""

import functools
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from app.guardrails.resources.budget import BudgetCalendar
from app.storage.base import (
    AdmissionRequest,
    Admitted,
    BudgetDay,
    BudgetState,
    RateLimit,
    Reservation,
    Store,
)

from ..backends import Backend
from .asking import (
    NOON,
    admitted,
    claim,
    days_around,
    refused,
    replayed,
    request,
    reservation,
    settlement,
    top_up,
)

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R3")]

HALF_DAY = 12 * 3_600
YESTERDAY, TODAY, TOMORROW = days_around(NOON)


async def test_the_cap_is_exact(store: Store) -> None:
    """The budget is used to its last nano-dollar, and not beyond."""
    await admitted(store, request(reserve=reservation(70, cap=100)))
    assert (await refused(store, request(reserve=reservation(31, cap=100)))).reason == "budget"
    await admitted(store, request(reserve=reservation(30, cap=100)))
    assert (await refused(store, request(reserve=reservation(1, cap=100)))).reason == "budget"
    await admitted(store, request(reserve=reservation(0, cap=100)))


async def test_each_caller_has_a_cap(store: Store) -> None:
    """A caller at its own cap is refused by that, while others still have theirs."""
    await admitted(store, request("ada", reserve=reservation(60, cap=100, caller_cap=60)))
    refusal = await refused(store, request("ada", reserve=reservation(1, cap=100, caller_cap=60)))
    assert refusal.reason == "caller_budget"
    await admitted(store, request("grace", reserve=reservation(40, cap=100, caller_cap=60)))
    refusal = await refused(store, request("alan", reserve=reservation(1, cap=100, caller_cap=60)))
    assert refusal.reason == "budget"


@pytest.mark.parametrize("caps", [{"cap": 1}, {"caller_cap": 1}])
async def test_a_refusal_lasts_to_the_end_of_the_day(store: Store, caps: dict[str, int]) -> None:
    """`retry_after_seconds` leads to the day's end, where the request is admitted."""
    refusal = await refused(store, request(reserve=reservation(2, **caps)), now=NOON + 0.25)
    assert refusal.retry_after_seconds == HALF_DAY - 0.25
    await admitted(store, request(reserve=reservation(1, **caps)))
    await refused(store, request(reserve=reservation(1, **caps)), now=NOON + HALF_DAY - 0.001)
    await admitted(store, request(reserve=reservation(1, **caps)), now=NOON + HALF_DAY)


async def test_refusals_consume_nothing(store: Store, backend: Backend) -> None:
    """A request that the budget refuses takes no place, no claim and no money."""
    rate = RateLimit(2, 10.0)
    before = backend.books()
    for _ in range(10):
        asked = request(rate=rate, claim=claim(), reserve=reservation(2, cap=1))
        assert (await refused(store, asked)).rate.remaining == 2
    assert backend.books() == before
    await admitted(store, request(rate=rate, claim=claim(), reserve=reservation(1, cap=1)))


async def test_the_rate_limit_is_asked_first(store: Store) -> None:
    """Of several reasons to refuse, the rate limit comes first, the claim next, the budget last."""
    everything = functools.partial(
        request, rate=RateLimit(2, 10.0), claim=claim(), reserve=reservation(1, cap=1)
    )
    await admitted(store, everything())
    assert (await refused(store, everything())).reason == "in_flight"
    assert (await refused(store, everything(claim=claim("other")))).reason == "budget"
    await admitted(store, everything(claim=None, reserve=None))
    assert (await refused(store, everything())).reason == "rate"


async def test_a_replay_needs_no_budget(store: Store) -> None:
    """A repeat of what has been paid is replayed although the day's budget is used up."""
    first = request(claim=claim(), reserve=reservation(1, cap=1))
    await admitted(store, first)
    await store.settle(settlement(first, 1, reply=b"reply", keep=True), now=NOON)
    await replayed(store, request(claim=claim(), reserve=reservation(1, cap=1)))


async def test_the_days_figures_are_told(store: Store) -> None:
    """Admission and settlement say what is settled and committed, for everyone and the caller."""
    one, other = request("ada", reserve=reservation(50)), request("grace", reserve=reservation(30))
    assert (await admitted(store, one)).budget == BudgetState(TODAY.name, 0, 50, 50)
    assert (await admitted(store, other)).budget == BudgetState(TODAY.name, 0, 80, 30)
    assert await store.settle(settlement(one, 20), now=NOON) == BudgetState(TODAY.name, 20, 50, 20)
    assert await store.settle(settlement(other, 30), now=NOON) == BudgetState(
        TODAY.name, 50, 50, 30
    )


async def test_without_a_reservation_there_are_no_figures(store: Store) -> None:
    """A request that calls no model touches no budget."""
    plain = request()
    assert (await admitted(store, plain)).budget is None
    assert await store.settle(settlement(plain), now=NOON) is None


async def test_what_was_not_spent_is_given_back(store: Store) -> None:
    """A settlement below the reservation makes room for the next request."""
    first = request(reserve=reservation(100, cap=100))
    await admitted(store, first)
    await refused(store, request(reserve=reservation(90, cap=100)))
    await store.settle(settlement(first, 10), now=NOON)
    await admitted(store, request(reserve=reservation(90, cap=100)))


async def test_settling_twice_is_settling_once(store: Store, backend: Backend) -> None:
    """A settlement that is repeated, even with another cost, changes nothing any more."""
    first = request(claim=claim(), reserve=reservation(100))
    await admitted(store, first)
    assert await store.settle(settlement(first, 40, reply=b"one", keep=True), now=NOON)
    books = backend.books()
    assert await store.settle(settlement(first, 40, reply=b"one", keep=True), now=NOON) is None
    assert await store.settle(settlement(first, 90, reply=b"two", keep=True), now=NOON) is None
    assert await store.settle(settlement(first, 0), now=NOON) is None
    assert backend.books() == books
    assert books.charged_nano_usd == 40
    assert (await replayed(store, request(claim=claim()))).reply == b"one"


async def test_settling_the_unknown_changes_nothing(store: Store, backend: Backend) -> None:
    """An operation that was never admitted cannot be settled, nor end somebody's claim."""
    owner = request(claim=claim(), reserve=reservation(100))
    await admitted(store, owner)
    books = backend.books()
    stranger = request(claim=claim(), reserve=reservation(100))
    assert await store.settle(settlement(stranger, 100), now=NOON) is None
    assert await store.settle(settlement(stranger, 1, reply=b"x", keep=True), now=NOON) is None
    assert backend.books() == books
    assert (await refused(store, request(claim=claim()))).reason == "in_flight"


async def test_a_settlement_may_come_before_its_admission(store: Store, backend: Backend) -> None:
    """What was given up before it arrived takes nothing when it does, neither place nor money."""
    asked = request(rate=RateLimit(2, 10.0), claim=claim(), reserve=reservation(1, cap=1))
    await store.settle(settlement(asked), now=NOON)
    late = await admitted(store, asked, now=NOON + 1)
    assert late.rate.remaining == 2
    books = backend.books()
    assert books.balanced
    assert (books.counter, books.open_operations, books.running_claims) == ({}, 0, 0)
    await admitted(store, request(claim=claim(), reserve=reservation(1, cap=1)), now=NOON + 1)


@pytest.mark.parametrize("caps", [{"cap": 100}, {"caller_cap": 100}])
async def test_a_refusal_tells_what_is_committed(store: Store, caps: dict[str, int]) -> None:
    """So that the caller can be told what is left."""
    spent, running = request(reserve=reservation(50)), request(reserve=reservation(30))
    await admitted(store, spent)
    await store.settle(settlement(spent, 20), now=NOON)
    await admitted(store, running)
    refusal = await refused(store, request(reserve=reservation(51, **caps)))
    assert refusal.budget == BudgetState(TODAY.name, 20, 50, 50)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("UTC", "2026-03-29", 24),
    ],
)
@pytest.mark.promise("R8")
async def test_a_days_length_is_its_time_zones(
    store: Store, zone: str, day: str, hours: float
) -> None:
    """From midnight to midnight where the owner is, also when clocks change: what is spent in its
    first second counts in its last one, and not a second later."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp()
    calendar = BudgetCalendar(ZoneInfo(zone))

    def one(moment: float) -> AdmissionRequest:
        return request(reserve=Reservation(1, 1, 1, calendar.around(moment)))

    await admitted(store, one(midnight), now=midnight)
    last = midnight + hours * 3_600 - 1
    assert (await refused(store, one(last), now=last)).retry_after_seconds == 1
    await admitted(store, one(last + 1), now=last + 1)


async def test_a_cost_beyond_the_reservation_is_charged(store: Store, backend: Backend) -> None:
    """What a call really cost is charged in full, and counts against the cap."""
    first = request(reserve=reservation(10, cap=100))
    await admitted(store, first)
    state = await store.settle(settlement(first, 95), now=NOON)
    assert state is not None and state.committed_nano_usd == 95
    await refused(store, request(reserve=reservation(6, cap=100)))
    assert backend.books().balanced


async def test_the_reservations_day_is_charged(store: Store, backend: Backend) -> None:
    """A call that ends after midnight is charged to the day on which it was admitted."""
    late = request(reserve=reservation(100, cap=100))
    await admitted(store, late, now=NOON + HALF_DAY - 1)
    state = await store.settle(settlement(late, 70), now=NOON + HALF_DAY + 5)
    assert state == BudgetState(TODAY.name, 70, 70, 70)
    await admitted(store, request(reserve=reservation(100, cap=100)), now=NOON + HALF_DAY + 6)
    assert set(backend.books().counter) == {
        (TODAY.name, ""),
        (TODAY.name, "ada"),
        (TOMORROW.name, ""),
        (TOMORROW.name, "ada"),
    }


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (YESTERDAY.starts_at - 100, YESTERDAY),
        (YESTERDAY.starts_at, YESTERDAY),
        (TODAY.starts_at - 0.000_01, YESTERDAY),
        (TODAY.starts_at, TODAY),
        (TODAY.ends_at - 0.000_01, TODAY),
        (TODAY.ends_at, TOMORROW),
        (TOMORROW.ends_at + 100, TOMORROW),
    ],
)
async def test_the_stores_clock_picks_the_day(store: Store, moment: float, day: BudgetDay) -> None:
    """Among the days offered the store's own clock decides, the nearest if it is in none."""
    decision = await admitted(store, request(reserve=reservation(1)), now=moment)
    assert decision.budget is not None
    assert decision.budget.day == day.name


async def test_the_clock_is_the_stores_without_an_override(store: Store) -> None:
    """Without `now`, a reservation lands on the day that is today."""
    days = days_around(time.time())
    asked = request(reserve=Reservation(1, 10, 10, days))
    decision = await store.admit(asked)
    assert isinstance(decision, Admitted) and decision.budget is not None
    assert decision.budget.day in {days[1].name, days_around(time.time())[1].name}


async def test_a_top_up_adds_to_the_reservation(store: Store, backend: Backend) -> None:
    """What is added counts like the reservation itself, and one settlement ends both."""
    first = request(reserve=reservation(50, cap=100))
    await admitted(store, first)
    assert await store.top_up(top_up(first, 50, cap=100, caller_cap=100))
    await refused(store, request(reserve=reservation(1, cap=100)))
    state = await store.settle(settlement(first, 60), now=NOON)
    assert state == BudgetState(TODAY.name, 60, 60, 60)
    assert backend.books().balanced


@pytest.mark.parametrize("caps", [{"cap": 100}, {"caller_cap": 100}])
async def test_a_refused_top_up_changes_nothing(
    store: Store, backend: Backend, caps: dict[str, int]
) -> None:
    """A top-up beyond either cap is refused, and the reservation stays as it was."""
    first = request(reserve=reservation(50, **caps))
    await admitted(store, first)
    books = backend.books()
    assert not await store.top_up(top_up(first, 51, **caps))
    assert backend.books() == books
    assert await store.top_up(top_up(first, 50, **caps))


async def test_only_an_open_operation_is_topped_up(store: Store, backend: Backend) -> None:
    """An operation that is settled, or was never admitted, gets nothing more."""
    ended = request(reserve=reservation(50))
    await admitted(store, ended)
    await store.settle(settlement(ended, 20), now=NOON)
    books = backend.books()
    assert not await store.top_up(top_up(ended, 1))
    assert not await store.top_up(top_up(request(), 1))
    assert backend.books() == books


@pytest.mark.parametrize("settled", [False, True])
async def test_the_same_operation_is_admitted_once(
    store: Store, backend: Backend, settled: bool
) -> None:
    """An admission that is repeated, its answer having been lost, consumes nothing more."""
    rate = RateLimit(5, 10.0)
    first = request(rate=rate, claim=claim(), reserve=reservation(100, cap=100))
    decision = await admitted(store, first)
    if settled:
        await store.settle(settlement(first, 100, reply=b"reply", keep=True), now=NOON)
    books = backend.books()
    for _ in range(10):
        again = await admitted(store, first)
        assert again.rate.remaining == decision.rate.remaining
    assert backend.books() == books
    assert (await admitted(store, request(rate=rate))).rate.remaining == 3
