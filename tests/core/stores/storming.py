"""What one of several processes does in a storm: everything that a store can be asked, at once, by
few callers with few keys. Imported by each of them."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

from app import policy
from app.errors import StoreUnavailable
from app.storage.base import Admitted, RateLimit, Store

from .asking import NOON, claim, reason, request, reservation, settlement, top_up

CALLERS = ("ada", "grace", "alan")
KEYS = ("one", "other", "third")
AT_ONCE = 12
ROUNDS = 40


CAPS = (200, 10_000)
CALLER_CAPS = (80, 10_000)
"""Near enough to be reached, and again after refunds, or out of reach."""


@dataclass(frozen=True, slots=True)
class Storm:
    seed: int


def storm(connect: Callable[[], Store], wish: Storm) -> Counter[str]:
    """Counts what came of it: decisions, and the store's errors by their text."""
    return asyncio.run(_storm(connect, wish))


async def _storm(connect: Callable[[], Store], wish: Storm) -> Counter[str]:
    store = connect()
    await store.open()
    outcomes: Counter[str] = Counter()
    # Sweeps all the time, of claims that end all the time.
    with patch.object(policy, "SWEEP_EVERY_STEPS", 3):
        await asyncio.gather(
            *(_one(store, wish, random.Random(wish.seed + n), outcomes) for n in range(AT_ONCE))
        )
    await store.close()
    return outcomes


async def _one(store: Store, wish: Storm, chance: random.Random, outcomes: Counter[str]) -> None:
    for number in range(ROUNDS):
        # Each round is a little later for all, so that windows and claims end on the way.
        now = NOON + number / 10
        cap, caller_cap = chance.choice(CAPS), chance.choice(CALLER_CAPS)
        asked = request(
            chance.choice(CALLERS),
            operation=uuid.uuid4().hex,
            rate=RateLimit(200, 1),
            claim=claim(chance.choice(KEYS), lease_seconds=0.3) if chance.random() < 0.5 else None,
            reserve=reservation(10, cap=cap, caller_cap=caller_cap),
        )
        ended = settlement(asked, chance.randrange(10), reply=b"reply", keep=chance.random() < 0.5)
        try:
            if chance.random() < 0.1:
                # Its caller has gone: the settlement may come first.
                await asyncio.gather(
                    store.settle(settlement(asked), now=now), store.admit(asked, now=now)
                )
                outcomes["given back"] += 1
                continue
            decision = await store.admit(asked, now=now)
            outcomes[reason(decision)] += 1
            if not isinstance(decision, Admitted):
                continue
            if chance.random() < 0.3:
                await store.top_up(top_up(asked, 5, cap=cap))
            await asyncio.gather(store.settle(ended, now=now), store.settle(ended, now=now))
        except StoreUnavailable as error:
            outcomes[f"{error.detail} {error.reason}"] += 1
