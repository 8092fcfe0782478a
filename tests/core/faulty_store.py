"""A store whose steps go wrong as they do over a network, and whose clock can be set."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from app.errors import StoreUnavailable
from app.storage.base import (
    AdmissionRequest,
    BudgetState,
    Decision,
    Settlement,
    Store,
    TopUp,
)

from .counted_store import CountedStore

T = TypeVar("T")

Mishap = Literal["none", "not carried out", "reply lost", "carried out late"]
"""What becomes of one step. Whoever asked knows of the first two what was done, of the last two it
does not."""


class FaultyStore(CountedStore):
    """The port in front of a real store.

    `mishaps` are taken one by one by the steps of their kind; `late` are the steps that are still
    under way, and `ahead_seconds` is how far the store's clock is ahead of this machine's.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.mishaps: dict[str, deque[Mishap]] = {"admit": deque(), "top_up": deque()}
        self.mishaps["settle"] = deque()
        self.late: list[Callable[[], Awaitable[object]]] = []
        self.ahead_seconds = 0.0

    @property
    def now(self) -> float:
        return time.time() + self.ahead_seconds

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        return await self._step(
            "admit", lambda: super(FaultyStore, self).admit(request, now=self.now)
        )

    async def top_up(self, request: TopUp) -> bool:
        return await self._step("top_up", lambda: super(FaultyStore, self).top_up(request))

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        return await self._step(
            "settle", lambda: super(FaultyStore, self).settle(settlement, now=self.now)
        )

    async def arrive(self) -> None:
        """Everything that is still under way is carried out."""
        while self.late:
            await self.late.pop(0)()

    async def _step(self, kind: str, step: Callable[[], Awaitable[T]]) -> T:
        waiting = self.mishaps[kind]
        match waiting.popleft() if waiting else "none":
            case "none":
                return await step()
            case "reply lost":
                await step()
            case "carried out late":
                self.late.append(step)
            case _:
                raise _unavailable(outcome_unknown=False)
        raise _unavailable(outcome_unknown=True)


def _unavailable(*, outcome_unknown: bool) -> StoreUnavailable:
    error = StoreUnavailable("The store does not answer; try again.", retry_after_seconds=2)
    error.outcome_unknown = outcome_unknown
    error.reason = "a test's mishap"
    return error
