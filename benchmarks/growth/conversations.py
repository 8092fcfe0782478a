"""Conversations of any length, and what their callers send of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

WORDS_A_MESSAGE = 50
TEXT = """
service request answer budget caller limit window stream provider history token message please
explain why the quick breaker opens after some failures and when it closes again because our
customers in Lisbon reported that yesterday evening nothing was delivered to them although every
invoice had been paid in advance and nobody could tell where those parcels were stored or how long
it would take until a replacement arrives with another driver who knows about fragile goods
"""
WORDS = tuple(TEXT.split())

Message = dict[str, str]


def conversation(turns: int, seed: int = 0) -> list[Message]:
    """So many questions, each answered but the last; another one for each `seed`."""
    words = random.Random(seed)
    return [
        {"role": "assistant" if n % 2 else "user", "content": _text(words)}
        for n in range(2 * turns - 1)
    ]


def known(turns: int, number: int) -> Iterator[list[Message]]:
    """The usual case: all that was said before is sent again, with one more question."""
    *before, _ = conversation(turns)
    for seed in range(number):
        yield [*before, {"role": "user", "content": _text(random.Random(f"question {seed}"))}]


def unknown(turns: int, number: int, first_seed: int) -> Iterator[list[Message]]:
    """Conversations of which no message was sent before."""
    for seed in range(first_seed, first_seed + number):
        yield conversation(turns, seed)


def body(messages: list[Message], **parameters: Any) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "messages": messages, **parameters}


def _text(words: random.Random) -> str:
    return " ".join(words.choices(WORDS, k=WORDS_A_MESSAGE)).capitalize() + "."
