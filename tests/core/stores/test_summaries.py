"""Summaries are kept until they expire; nothing depends on them."""

import pytest

from app.storage.base import Store

from .asking import NOON

pytestmark = [pytest.mark.anyio, pytest.mark.promise("C5")]


async def test_a_summary_is_kept(store: Store) -> None:
    """What was written under a key is read under it, and under no other."""
    await store.write_summary("one", "They spoke of rain.\n\u2028☂", 60, now=NOON)
    assert await store.read_summary(["one"], now=NOON) == (0, "They spoke of rain.\n\u2028☂")
    assert await store.read_summary(["other"], now=NOON) is None


async def test_the_first_of_many_is_read(store: Store) -> None:
    """Of a hundred keys the first one that has a text counts, in the order they are given in, which
    is neither their own nor the order of writing."""
    keys = [f"key{number * 37 % 100}" for number in range(100)]
    assert await store.read_summary(keys, now=NOON) is None
    for place in (41, 99, 57):
        await store.write_summary(keys[place], f"text {place}", 60, now=NOON)
    assert await store.read_summary(keys, now=NOON) == (41, "text 41")
    assert await store.read_summary(keys[42:], now=NOON) == (15, "text 57")
    assert await store.read_summary(keys[::-1], now=NOON) == (0, "text 99")


async def test_a_summary_is_replaced(store: Store) -> None:
    """The latest text counts, and so does its time to live."""
    await store.write_summary("one", "old", 10, now=NOON)
    await store.write_summary("one", "new", 60, now=NOON)
    assert await store.read_summary(["one"], now=NOON + 30) == (0, "new")


async def test_a_summary_expires(store: Store) -> None:
    """A summary is there until its time is over, and then the next of the wanted ones is."""
    await store.write_summary("one", "text", 60, now=NOON)
    await store.write_summary("two", "older", 90, now=NOON)
    wanted = ["one", "two"]
    assert await store.read_summary(wanted, now=NOON + 59.999_999) == (0, "text")
    assert await store.read_summary(wanted, now=NOON + 60) == (1, "older")
    assert await store.read_summary(wanted, now=NOON + 90) is None
