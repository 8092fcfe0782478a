"""Model calls run in tasks of their own, so that no framework's cancellation cuts them off."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from . import policy
from .errors import ShuttingDown

T = TypeVar("T")


class Tasks:
    """The calls under way. Shutdown waits for them before anything that they use is closed."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.closed = False

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Raises `ShuttingDown` once what was left has been cut off."""
        if self.closed:
            work.close()
            raise shutting_down()
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`; when the one who waits is cancelled, the work goes on to its end.

        Raises `ShuttingDown` when the work itself was cut off.
        """
        task = self.start(work)
        waiting = asyncio.current_task()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not (waiting and waiting.cancelling()):
                raise shutting_down() from None
            raise

    async def drain(self, grace_seconds: float) -> None:
        """Lets the running tasks finish, cuts off those left, and lets these settle."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        self.cut_off()
        if self._running:
            await asyncio.wait(self._running, timeout=policy.CUT_OFF_SECONDS)

    def cut_off(self) -> None:
        """Cancels what still runs; each settles on its way out. Nothing is started any more."""
        self.closed = True
        for task in tuple(self._running):
            task.cancel()


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The service is shutting down; try again.", retry_after_seconds=1)
