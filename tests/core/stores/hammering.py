"""What one of several processes does to a store that they share. Imported by each of them."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import pytest

from app import policy
from app.errors import StoreUnavailable
from app.storage.base import (
    AdmissionRequest,
    Admitted,
    Claim,
    Decision,
    RateLimit,
    Reservation,
    Store,
)

from .asking import PLENTY, days_around, reason, settlement

Connect = Callable[[], Store]

_barrier: Barrier | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What each process asks for, all of them for the same few callers."""

    requests: int
    at_once: int = 1
    callers: int = 1
    amount_nano_usd: int | None = None
    cap_nano_usd: int = PLENTY
    key: str | None = None
    rate_limit: int = 1_000_000

    def request(self) -> AdmissionRequest:
        return AdmissionRequest(
            uuid.uuid4().hex,
            f"caller{random.randrange(self.callers)}",
            RateLimit(self.rate_limit, 600),
            Claim(self.key, "body", 600) if self.key else None,
            self._reservation(),
        )

    def _reservation(self) -> Reservation | None:
        if self.amount_nano_usd is None:
            return None
        cap = self.cap_nano_usd
        return Reservation(self.amount_nano_usd, cap, cap, days_around(time.time()))


def join(barrier: Barrier) -> None:
    """Called once in each process."""
    global _barrier
    _barrier = barrier
    # Who gets in is asked here, not how long a machine takes that runs other tests beside.
    pytest.MonkeyPatch().setattr(policy, "STORE_TIMEOUT_SECONDS", 20.0)


def open_store(connect: Connect) -> str:
    """Opens the store at the same moment as all others; `open`, or what went wrong."""

    async def run() -> str:
        store = connect()
        _wait_for_all()
        try:
            await store.open()
            await store.ping()
        except StoreUnavailable as error:
            return _explain(error)
        finally:
            await store.close()
        return "open"

    return asyncio.run(run())


def ask_at_once(connect: Connect, wish: Wish) -> Counter[str]:
    """Asks for everything in one go and settles nothing; counts what was decided."""

    async def ask(store: Store) -> list[str]:
        return await asyncio.gather(*(_decision(store, wish) for _ in range(wish.requests)))

    return asyncio.run(_with_store(connect, ask))


def run_in_turn(connect: Connect, wish: Wish) -> Counter[str]:
    """Admits and settles, so many at once, at a cost of half the reservation."""

    async def ask(store: Store) -> list[str]:
        places = asyncio.Semaphore(wish.at_once)

        async def run() -> str:
            async with places:
                return await _settled_decision(store, wish)

        return await asyncio.gather(*(run() for _ in range(wish.requests)))

    return asyncio.run(_with_store(connect, ask))


async def _with_store(
    connect: Connect, work: Callable[[Store], Awaitable[list[str]]]
) -> Counter[str]:
    store = connect()
    await store.open()
    _wait_for_all()
    try:
        return Counter(await work(store))
    finally:
        await store.close()


async def _decision(store: Store, wish: Wish) -> str:
    request = wish.request()
    try:
        return _told(request, await store.admit(request))
    except StoreUnavailable as error:
        return _explain(error)


async def _settled_decision(store: Store, wish: Wish) -> str:
    request = wish.request()
    try:
        decision: Decision = await store.admit(request)
        if isinstance(decision, Admitted) and request.reservation is not None:
            await store.settle(settlement(request, request.reservation.amount_nano_usd // 2))
    except StoreUnavailable as error:
        return _explain(error)
    return _told(request, decision)


def _told(request: AdmissionRequest, decision: Decision) -> str:
    """What was decided; admission also says by its figures whether that was within the cap."""
    reservation = request.reservation
    if isinstance(decision, Admitted) and reservation is not None:
        assert decision.budget is not None
        if decision.budget.committed_nano_usd > reservation.limit_nano_usd:
            return "admitted beyond the cap"
    return reason(decision)


def _explain(error: StoreUnavailable) -> str:
    return f"{error.detail} {error.__cause__}"


def _wait_for_all() -> None:
    assert _barrier is not None
    _barrier.wait(timeout=30)
