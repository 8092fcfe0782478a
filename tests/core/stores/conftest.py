"""A store that is open, and processes that use one."""

import itertools
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import pytest

from app.storage.base import Store

from ..backends import Backend
from .hammering import Connect, Wish, join, open_store

W = TypeVar("W")

PROCESSES = 8


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = backend.connect()
    await store.open()
    yield store
    await store.close()


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Names that nothing has yet, for examples that share a store."""
    return (f"example{number}" for number in itertools.count())


class Processes:
    """Eight processes that begin each task together."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def open(self, connect: Connect) -> list[str]:
        tasks = [self._pool.submit(open_store, connect) for _ in range(PROCESSES)]
        return [task.result(timeout=60) for task in tasks]

    def count(
        self, work: Callable[[Connect, Wish], Counter[str]], connect: Connect, wish: Wish
    ) -> Counter[str]:
        """What all processes together were told."""
        return self.each(work, connect, [wish] * PROCESSES)

    def each(
        self, work: Callable[[Connect, W], Counter[str]], connect: Connect, wishes: Sequence[W]
    ) -> Counter[str]:
        """The same where each has a wish of its own."""
        tasks = [self._pool.submit(work, connect, wish) for wish in wishes]
        return sum((task.result(timeout=60) for task in tasks), Counter())


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, spawn, initializer=join, initargs=(barrier,)) as pool:
        yield Processes(pool)
