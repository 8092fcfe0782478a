"""What the vendors do: a seeded mixture of good answers and of every way to fail."""

import random
from collections.abc import Iterator, Sequence

from sandbox.faults import Fault
from sandbox.model import Reply

CARDS: Sequence[tuple[int, Fault]] = [
    (24, Fault()),
    (16, Fault(reply=Reply(chunks=12, chunk_delay_seconds=0.03))),
    (4, Fault(delay_seconds=0.4)),
    (2, Fault(reply=Reply(reasoning_tokens=20))),
    (2, Fault(reply=Reply(usage=False))),
    # All comes byte by byte, the usage last; or would have come, after all of the text.
    (1, Fault(reply=Reply(chunks=4), drip_seconds=0.001)),
    (1, Fault(action="close", after_chunks=99)),
    (1, Fault(action="stall", after_chunks=99)),
    # Errors
    (2, Fault(status=500)),
    (1, Fault(error="overloaded")),
    (2, Fault(status=429, headers={"retry-after": "0.1"})),
    (1, Fault(error="quota_exhausted")),
    (1, Fault(error="invalid_api_key")),
    (1, Fault(error="content_policy")),
    (1, Fault(html=True)),
    (1, Fault(html=True, status=200)),
    # Broken connections
    (1, Fault(action="reset")),
    (1, Fault(action="reset", after_chunks=2)),
    (1, Fault(action="close")),
    (1, Fault(action="close", after_chunks=3)),
    # Silence
    (1, Fault(delay_seconds=1.5)),
    (1, Fault(action="stall")),
    (1, Fault(action="stall", after_chunks=0)),
    (1, Fault(action="stall", after_chunks=2)),
    # Answers that are none
    (1, Fault(action="end", after_chunks=4)),
    (1, Fault(action="garble", after_chunks=1)),
    (1, Fault(action="error_event", error="overloaded")),
    (1, Fault(action="error_event", error="overloaded", after_chunks=2)),
]
"""How often each is in a deck. Each deck deals every fault, so that none is seen late for the first
time."""

DECKS = 50


def mixture(seed: str) -> list[Fault]:
    """The same for the same seed."""
    return list(_dealt(random.Random(seed)))


def _dealt(chance: random.Random) -> Iterator[Fault]:
    for _ in range(DECKS):
        deck = [card for count, card in CARDS for _ in range(count)]
        chance.shuffle(deck)
        yield from deck
