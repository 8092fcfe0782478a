"""Tasks that are told of each of their awaits, so that a test can cut them off at any of them."""

import asyncio
import functools
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from app.tasks import Tasks

T = TypeVar("T")


class SteppedTasks(Tasks):
    """`at_await(task, awaited)` runs at each await; what it returns is awaited instead."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = super().start(self._stepped(work))
        self.started.append(task)
        return task

    def at_await(self, task: asyncio.Task[Any], awaited: Any) -> Any:
        return awaited

    async def _stepped(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._step(work)

    @types.coroutine
    def _step(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        resume = functools.partial(work.send, None)
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                yield self.at_await(task, awaited)
            except BaseException as error:
                resume = functools.partial(work.throw, error)
            else:
                resume = functools.partial(work.send, None)
