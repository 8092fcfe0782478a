"""One claim is one run: what a repeat gets while it runs, after it, and when nobody ended it."""

import pytest

from app.storage.base import RateLimit, Store

from ..backends import Backend
from .asking import NOON, admitted, claim, refused, replayed, request, reservation, settlement

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R6")]

FIVE = RateLimit(5, 10.0)


async def test_a_running_request_is_not_run_again(store: Store) -> None:
    """While a claim is held, a repeat is refused with the time left of its lease."""
    await admitted(store, request(claim=claim(lease_seconds=30)))
    refusal = await refused(store, request(claim=claim()), now=NOON + 10)
    assert refusal.reason == "in_flight"
    assert refusal.retry_after_seconds == 20


async def test_a_finished_request_is_replayed(store: Store) -> None:
    """Once a request has been answered, a repeat gets the stored reply, byte for byte."""
    first = request(claim=claim())
    await admitted(store, first)
    reply = bytes(range(256)) * 100
    await store.settle(settlement(first, reply=reply, keep=True), now=NOON + 1)
    for second in (1, 2, 50):
        assert (await replayed(store, request(claim=claim()), now=NOON + second)).reply == reply


@pytest.mark.parametrize("finished", [False, True])
async def test_a_key_belongs_to_one_body(store: Store, finished: bool) -> None:
    """The same key with another body is refused, whether the first is running or done."""
    first = request(claim=claim(body="one"))
    await admitted(store, first)
    if finished:
        await store.settle(settlement(first, reply=b"reply", keep=True), now=NOON)
    refusal = await refused(store, request(claim=claim(body="other")))
    assert refusal.reason == "key_reused"


async def test_a_reply_too_large_to_keep_is_not_run_again(store: Store) -> None:
    """A request whose reply was not stored is refused rather than run and paid again."""
    first = request(claim=claim())
    await admitted(store, first)
    await store.settle(settlement(first, reply=None, keep=True), now=NOON)
    assert (await refused(store, request(claim=claim()))).reason == "reply_not_stored"


async def test_a_failed_request_may_be_run_again(store: Store) -> None:
    """A released claim is free at once, also for another body."""
    first = request(claim=claim(body="one"))
    await admitted(store, first)
    await store.settle(settlement(first), now=NOON)
    await admitted(store, request(claim=claim(body="other")))


async def test_a_claim_ends_with_its_lease(store: Store) -> None:
    """A claim that nobody settled, its worker being killed, is free when its lease is over."""
    await admitted(store, request(claim=claim(lease_seconds=30)))
    await refused(store, request(claim=claim()), now=NOON + 29.999_999)
    await admitted(store, request(claim=claim()), now=NOON + 30)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_late_settlement_leaves_the_next_owner_alone(store: Store, keep: bool) -> None:
    """Who settles after its lease has run out changes nothing of the claim's new owner's."""
    late = request(claim=claim(lease_seconds=30))
    await admitted(store, late)
    owner = request(claim=claim(lease_seconds=30))
    await admitted(store, owner, now=NOON + 40)
    await store.settle(settlement(late, reply=b"late", keep=keep), now=NOON + 41)
    assert (await refused(store, request(claim=claim()), now=NOON + 42)).reason == "in_flight"
    await store.settle(settlement(owner, reply=b"owner", keep=True), now=NOON + 43)
    assert (await replayed(store, request(claim=claim()), now=NOON + 44)).reply == b"owner"


async def test_a_late_settlement_without_a_next_owner_is_kept(store: Store) -> None:
    """A reply that comes after the lease, before anybody has taken over, still serves repeats."""
    late = request(claim=claim(lease_seconds=30))
    await admitted(store, late)
    await store.settle(settlement(late, reply=b"late", keep=True), now=NOON + 40)
    assert (await replayed(store, request(claim=claim()), now=NOON + 41)).reply == b"late"


async def test_a_reply_expires(store: Store) -> None:
    """A reply is kept for its time to live, counted from its settlement, and no longer."""
    first = request(claim=claim(lease_seconds=5))
    await admitted(store, first)
    await store.settle(settlement(first, reply=b"reply", keep=True, ttl_seconds=60), now=NOON + 4)
    await replayed(store, request(claim=claim()), now=NOON + 63.999_999)
    await admitted(store, request(claim=claim()), now=NOON + 64)


@pytest.mark.parametrize("finished", [False, True])
async def test_a_claim_may_be_taken_over(store: Store, finished: bool) -> None:
    """A request that takes over runs whatever is there, and from then on the claim is its own."""
    first = request(claim=claim())
    await admitted(store, first)
    if finished:
        await store.settle(settlement(first, reply=b"first", keep=True), now=NOON)
    second = request(claim=claim(takes_over=True))
    await admitted(store, second)
    assert (await refused(store, request(claim=claim()))).reason == "in_flight"
    await store.settle(settlement(first, reply=b"first", keep=True), now=NOON)
    assert (await refused(store, request(claim=claim()))).reason == "in_flight"
    await store.settle(settlement(second, reply=b"second", keep=True), now=NOON)
    assert (await replayed(store, request(claim=claim()))).reply == b"second"


async def test_keys_do_not_meet(store: Store) -> None:
    """Another key is another request, and a request without one is never a repeat."""
    await admitted(store, request(claim=claim("one")))
    await admitted(store, request(claim=claim("other")))
    await admitted(store, request())
    await admitted(store, request())


async def test_a_replay_takes_a_place_and_no_money(store: Store, backend: Backend) -> None:
    """A replay counts toward the rate limit and never toward the budget."""
    first = request(rate=FIVE, claim=claim(), reserve=reservation(100))
    await admitted(store, first)
    await store.settle(settlement(first, 60, reply=b"reply", keep=True), now=NOON)
    before = backend.books()
    for remaining in (3, 2, 1, 0):
        repeat = request(rate=FIVE, claim=claim(), reserve=reservation(100, cap=1))
        assert (await replayed(store, repeat)).rate.remaining == remaining
    assert (await refused(store, request(rate=FIVE, claim=claim()))).reason == "rate"
    assert backend.books() == before


@pytest.mark.parametrize("refusal", ["in_flight", "key_reused", "reply_not_stored"])
async def test_refusals_consume_nothing(store: Store, backend: Backend, refusal: str) -> None:
    """A repeat that is refused takes no place, no money and no claim."""
    first = request(rate=FIVE, claim=claim(), reserve=reservation(100))
    await admitted(store, first)
    if refusal == "reply_not_stored":
        await store.settle(settlement(first, 60, keep=True), now=NOON)
    before = backend.books()
    body = "other" if refusal == "key_reused" else "body"
    for _ in range(10):
        repeat = request(rate=FIVE, claim=claim(body=body), reserve=reservation(100))
        decision = await refused(store, repeat)
        assert (decision.reason, decision.rate.remaining) == (refusal, 4)
    assert backend.books() == before
    assert (await admitted(store, request(rate=FIVE))).rate.remaining == 3
