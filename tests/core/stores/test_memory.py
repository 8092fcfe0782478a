"""What only the memory of one process has to promise: that it stays small, and whose it is."""

import pickle
from collections.abc import Iterable

import orjson
import psutil
import pytest

from app import policy
from app.storage.base import RateLimit, Store
from app.storage.memory import MAX_CALLERS, MAX_SETTLED_OPERATIONS, MemorySettings
from app.storage.memory import Store as MemoryStore

from ..backends import Backend
from .asking import NOON, admitted, claim, refused, request, reservation, settlement

pytestmark = pytest.mark.anyio

TWO = RateLimit(2, 10.0)
DAY_SECONDS = 86_400


@pytest.fixture
def backend(memory: Backend) -> Backend:
    return memory


def size(store: Store) -> int:
    """Of everything that the store holds but its count of steps, in bytes as written."""
    return len(pickle.dumps({**vars(store), "_steps": 0}))


async def take_places(
    store: Store, callers: Iterable[int], *, rate: RateLimit = TWO, now: float = NOON
) -> None:
    """One place for each of the callers, who are told apart by number."""
    for number in callers:
        await admitted(store, request(f"caller{number}", rate=rate), now=now)


async def take_money(store: Store, callers: Iterable[int], *, now: float = NOON) -> None:
    """One nano-dollar for each of the callers."""
    one = reservation(1, moment=now)
    for number in callers:
        await admitted(store, request(f"caller{number}", reserve=one), now=now)


async def test_newcomers_share_one_window(store: Store) -> None:
    """Beyond 50,000 callers all newcomers together have one window; the others keep their own."""
    await take_places(store, range(MAX_CALLERS - 1))
    for _ in range(2):
        await admitted(store, request("the last", rate=TWO), now=NOON + 1)
    assert (await admitted(store, request("ada", rate=TWO), now=NOON + 1)).rate.remaining == 1
    assert (await admitted(store, request("grace", rate=TWO), now=NOON + 2)).rate.remaining == 0
    refusal = await refused(store, request("alan", rate=TWO), now=NOON + 3)
    assert (refusal.reason, refusal.retry_after_seconds) == ("rate", 8)
    await admitted(store, request("caller0", rate=TWO), now=NOON + 3)
    await refused(store, request("caller0", rate=TWO), now=NOON + 3)
    await refused(store, request("the last", rate=TWO), now=NOON + 3)


async def test_callers_whose_window_has_passed_make_room(store: Store) -> None:
    """A newcomer has a window of its own as soon as one of the others has passed, not before."""
    await take_places(store, [0, 1])
    await take_places(store, range(2, MAX_CALLERS), now=NOON + 1)
    await take_places(store, [0], now=NOON + 2)
    for newcomer in ("ada", "grace"):
        await admitted(store, request(newcomer, rate=TWO), now=NOON + 9)
    await refused(store, request("alan", rate=TWO), now=NOON + 9.999_999)
    for _ in range(2):
        await admitted(store, request("alan", rate=TWO), now=NOON + 10)
    await refused(store, request("edsger", rate=TWO), now=NOON + 10)
    for newcomer in ("edsger", "barbara"):
        for _ in range(2):
            await admitted(store, request(newcomer, rate=TWO), now=NOON + 11)
    assert (await admitted(store, request("caller0", rate=TWO), now=NOON + 11)).rate.remaining == 0


async def test_who_shares_a_window_cannot_move_on_to_another(store: Store) -> None:
    """Who has a place in the window of newcomers stays there until it is free, room or not."""
    await take_places(store, range(MAX_CALLERS))
    await admitted(store, request("ada", rate=TWO), now=NOON + 3)
    await admitted(store, request("alan", rate=TWO), now=NOON + 4)
    assert (await admitted(store, request("grace", rate=TWO), now=NOON + 10)).rate.remaining == 1
    refusal = await refused(store, request("ada", rate=TWO), now=NOON + 10)
    assert refusal.retry_after_seconds == 3
    assert (await admitted(store, request("ada", rate=TWO), now=NOON + 13)).rate.remaining == 1


async def test_the_names_of_those_who_share_are_forgotten(store: Store) -> None:
    """However many newcomers come and go, no more is kept of them than fits in one window."""
    await take_places(store, range(MAX_CALLERS), rate=RateLimit(1, DAY_SECONDS))
    sizes = []
    for number in range(1_000):
        await admitted(store, request(f"new{number:05}", rate=TWO), now=NOON + 6 * number)
        sizes.append(size(store) if number in (10, 999) else 0)
    assert sizes[999] <= sizes[10] + 100


async def test_refusals_leave_nothing_behind(store: Store) -> None:
    """Who is refused is no caller yet, whatever the reason, and takes up no memory."""
    held = request("ada", rate=TWO, claim=claim(), reserve=reservation(1))
    await admitted(store, held)
    await admitted(store, request("ada", rate=TWO))
    before = size(store)
    for number in range(500):
        stranger = f"stranger{number}"
        reserve = reservation(2, cap=1)
        assert (await refused(store, request(stranger, reserve=reserve))).reason == "budget"
        reserve = reservation(2, caller_cap=1)
        assert (await refused(store, request(stranger, reserve=reserve))).reason == "caller_budget"
        assert (await refused(store, request(stranger, claim=claim()))).reason == "in_flight"
        assert (await refused(store, request("ada", rate=TWO))).reason == "rate"
    assert size(store) == before


async def test_newcomers_share_one_account(store: Store, backend: Backend) -> None:
    """Beyond 50,000 callers in a day newcomers have one cap together; the total stays exact."""
    await take_money(store, range(MAX_CALLERS))
    newcomer = request("ada", reserve=reservation(7, caller_cap=10))
    decision = await admitted(store, newcomer)
    assert decision.budget is not None
    assert decision.budget.committed_nano_usd == MAX_CALLERS + 7
    assert decision.budget.caller_committed_nano_usd == 7
    late = request("grace", reserve=reservation(4, caller_cap=10))
    assert (await refused(store, late)).reason == "caller_budget"
    await admitted(store, request("caller0", reserve=reservation(9, caller_cap=10)))
    cap = MAX_CALLERS + 7 + 9
    assert (await refused(store, request(reserve=reservation(1, cap=cap)))).reason == "budget"
    state = await store.settle(settlement(newcomer, 6), now=NOON)
    assert state is not None
    assert (state.settled_nano_usd, state.committed_nano_usd) == (6, cap - 1)
    await admitted(store, late)
    assert backend.books().balanced


async def test_accounts_of_a_day_that_is_over_make_room(store: Store) -> None:
    """The next day has room for as many callers again, and what is still open can be settled."""
    first = request("first", reserve=reservation(5))
    await admitted(store, first)
    await take_money(store, range(MAX_CALLERS - 1))
    tomorrow = NOON + DAY_SECONDS
    await take_money(store, range(MAX_CALLERS), now=tomorrow)
    ten = reservation(10, caller_cap=10, moment=tomorrow)
    await admitted(store, request("ada", reserve=ten), now=tomorrow)
    refusal = await refused(store, request("grace", reserve=ten), now=tomorrow)
    assert refusal.reason == "caller_budget"
    state = await store.settle(settlement(first, 3), now=tomorrow)
    assert state is not None
    assert state.committed_nano_usd == MAX_CALLERS - 1 + 3
    assert state.caller_committed_nano_usd == 3


async def test_settled_operations_are_known_for_a_while(store: Store) -> None:
    """Of the operations that are over, the latest 50,000 are known; the oldest gives way."""
    one = reservation(1)
    settled = [request(reserve=one) for _ in range(MAX_SETTLED_OPERATIONS + 2_000)]
    sizes = []
    for number, asked in enumerate(settled):
        await admitted(store, asked, now=NOON + number / 10)
        await store.settle(settlement(asked, 0), now=NOON + number / 10)
        if number + 1 in (MAX_SETTLED_OPERATIONS, len(settled)):
            sizes.append(size(store))
    assert sizes[1] <= sizes[0] * 1.001
    now = NOON + len(settled) / 10
    for asked, amount in ((settled[-MAX_SETTLED_OPERATIONS], 0), (settled[0], 1)):
        decision = await admitted(store, asked, now=now)
        assert decision.budget is not None
        assert decision.budget.committed_nano_usd == amount


async def live(store: Store, name: str, *, callers: int = 1_000, now: float = NOON) -> None:
    """A call of each caller: one in four never ends, the others leave a reply and a summary."""
    five = reservation(5, moment=now)
    for number in range(callers):
        caller = f"{name}{number:03}"
        asked = request(caller, claim=claim(caller), reserve=five)
        await admitted(store, asked, now=now)
        if number % 4:
            await store.write_summary(caller, "They spoke of rain.", 100, now=now)
            await store.settle(settlement(asked, 3, reply=b"reply", keep=True), now=now)


async def work_alone(store: Store, requests: int, *, now: float) -> None:
    """One caller's requests, enough of them for everything that has expired to be swept."""
    for number in range(requests):
        asked = request("alone")
        await admitted(store, asked, now=now + number * 60)
        await store.settle(settlement(asked), now=now + number * 60)


async def hold(store: Store) -> None:
    """One claim and one summary that outlive everything else."""
    await admitted(store, request("alone", claim=claim("held", lease_seconds=10**8)))
    await store.write_summary("held", "They spoke of rain.", 10**8, now=NOON)


async def test_what_has_expired_leaves_nothing_behind(store: Store) -> None:
    """Once all is over, the store is as small as one in which it never happened."""
    await hold(store)
    await live(store, "caller")
    assert size(store) > 100_000
    much_later = NOON + (policy.LEDGER_DAYS + 2) * DAY_SECONDS
    await work_alone(store, 1_000, now=much_later)
    untouched = MemoryStore(MemorySettings(), "service")
    await hold(untouched)
    await work_alone(untouched, 1_000, now=much_later)
    assert size(store) <= size(untouched) + 10


async def test_what_lives_is_not_swept(store: Store) -> None:
    """Among many sweeps a claim, a summary and a reservation stay until their own time."""
    held = request(claim=claim("held", lease_seconds=10**6), reserve=reservation(5))
    await admitted(store, held)
    await store.write_summary("kept", "They spoke of rain.", 10**6, now=NOON)
    await live(store, "caller")
    await work_alone(store, 1_000, now=NOON + 200)
    now = NOON + 10**6 - 1
    assert (await refused(store, request(claim=claim("held")), now=now)).reason == "in_flight"
    assert await store.read_summary(["kept"], now=now) == (0, "They spoke of rain.")
    state = await store.settle(settlement(held, 4), now=now)
    assert state is not None
    assert state.caller_committed_nano_usd == 4


async def test_memory_does_not_grow_with_time(store: Store) -> None:
    """With as much to do day after day, the store is no larger after months than after weeks."""
    sizes = []
    for day in range(0, 400, 10):
        await live(store, f"day{day:03}-", callers=200, now=NOON + day * DAY_SECONDS)
        sizes.append(size(store))
    assert max(sizes[20:]) <= max(sizes[:20])


async def test_a_reply_takes_no_more_than_it_is_long(store: Store) -> None:
    """20,000 kept replies of 450 bytes take some 27 MB; the buffers that orjson wrote them in would
    take 98."""
    process = psutil.Process()
    before = process.memory_info().rss
    for number in range(20_000):
        asked = request(claim=claim(f"key{number}"), reserve=reservation(1))
        await admitted(store, asked)
        ended = settlement(asked, 1, reply=orjson.dumps("x" * 450), keep=True)
        await store.settle(ended, now=NOON)
    assert process.memory_info().rss - before < 60e6


async def test_stores_share_nothing() -> None:
    """What one store knows is unknown to another, though both are in the same process."""
    one, other = MemoryStore(MemorySettings(), "service"), MemoryStore(MemorySettings(), "service")
    once = RateLimit(1, 10.0)
    asked = request(rate=once, claim=claim(), reserve=reservation(5, cap=5))
    await admitted(one, asked)
    await one.write_summary("one", "They spoke of rain.", 60, now=NOON)
    assert await other.read_summary(["one"], now=NOON) is None
    assert (await admitted(other, asked)).rate.remaining == 0
