"""One point in time that bounds everything done for a request."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` is on the event loop's clock, for `asyncio.timeout_at`."""

    at: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Self:
        return cls(clock() + seconds, clock)

    @property
    def remaining_seconds(self) -> float:
        return self.at - self.clock()

    def allows(self, seconds: float) -> bool:
        """Whether a wait of `seconds` would end before the deadline."""
        return seconds < self.remaining_seconds
