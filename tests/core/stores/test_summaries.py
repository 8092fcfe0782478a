"""Summaries are kept until they expire; nothing depends on them."""

import pytest

from app.storage.base import Store

from .asking import NOON

pytestmark = pytest.mark.anyio


async def test_a_summary_is_kept(store: Store) -> None:
    """What was written under a key is read under it, and under no other."""
    await store.write_summary("one", "They spoke of rain.\n\u2028☂", 60, now=NOON)
    assert await store.read_summary("one", now=NOON) == "They spoke of rain.\n\u2028☂"
    assert await store.read_summary("other", now=NOON) is None


async def test_a_summary_is_replaced(store: Store) -> None:
    """The latest text counts, and so does its time to live."""
    await store.write_summary("one", "old", 10, now=NOON)
    await store.write_summary("one", "new", 60, now=NOON)
    assert await store.read_summary("one", now=NOON + 30) == "new"


async def test_a_summary_expires(store: Store) -> None:
    """A summary is there until its time is over, and then no more."""
    await store.write_summary("one", "text", 60, now=NOON)
    assert await store.read_summary("one", now=NOON + 59.999_999) == "text"
    assert await store.read_summary("one", now=NOON + 60) is None
