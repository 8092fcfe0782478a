"""Keeps one slow provider from taking every place in the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Bulkhead:
    """At most `limit` calls at a time; more wait, within the deadline of whoever waits."""

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        async with self._places:
            yield
