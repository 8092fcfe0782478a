"""The daily cost cap: what a call may cost at most is set aside before it, and settled after.

Unknown usage is never refunded: an attempt that was sent and did not say what it cost is charged
its worst case.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ...storage.base import BudgetDay


@dataclass(frozen=True, slots=True)
class BudgetCalendar:
    """Days from midnight to midnight in one time zone, 23 or 25 hours long when clocks change."""

    zone: ZoneInfo

    def around(self, now: float) -> tuple[BudgetDay, ...]:
        """Yesterday, today and tomorrow: the store picks by its own clock."""
        today = datetime.fromtimestamp(now, self.zone).date()
        midnights = [
            datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp()
            for day in (today + timedelta(days=offset) for offset in (-1, 0, 1, 2))
        ]
        return tuple(
            BudgetDay((today + timedelta(days=offset)).isoformat(), midnights[i], midnights[i + 1])
            for i, offset in enumerate((-1, 0, 1))
        )


@dataclass(slots=True)
class Spending:
    """The account of one operation: what is reserved, what is known to be spent, what may be.

    `top_up(amount)` asks the store for more and says whether it was granted.
    """

    reserved_nano_usd: int
    top_up: Callable[[int], Awaitable[bool]]
    known_nano_usd: int = 0
    unknown_nano_usd: int = 0
    _open_nano_usd: int = field(default=0)

    @property
    def cost_nano_usd(self) -> int:
        """The charge if the operation ended now: an attempt under way counts in full."""
        return self.known_nano_usd + self.unknown_nano_usd + self._open_nano_usd

    async def begin_attempt(self, worst_case_nano_usd: int) -> bool:
        """Makes sure that one more attempt is covered; `False` when the budget refuses."""
        missing = self.cost_nano_usd + worst_case_nano_usd - self.reserved_nano_usd
        if missing > 0:
            if not await self.top_up(missing):
                return False
            self.reserved_nano_usd += missing
        self._open_nano_usd = worst_case_nano_usd
        return True

    def attempt_cost(self, nano_usd: int | None) -> None:
        """The attempt has ended; `None` when nobody knows what it cost."""
        if nano_usd is None:
            self.unknown_nano_usd += self._open_nano_usd
        else:
            self.known_nano_usd += nano_usd
        self._open_nano_usd = 0
