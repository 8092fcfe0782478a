"""The daily cost cap: what a call may cost at most is set aside before it, and settled after.

Unknown usage is never refunded: an attempt that was sent and did not say what it cost is charged
its worst case.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from ...messages import Charge, TokenUsage
from ...storage.base import BudgetDay, BudgetState

NANO_PER_USD: Final = 10**9


@dataclass(slots=True)
class BudgetCalendar:
    """Days from midnight to midnight in one time zone, 23 or 25 hours long when clocks change."""

    zone: ZoneInfo
    _last: tuple[BudgetDay, ...] = field(default=(), init=False, repr=False, compare=False)

    def around(self, now: float) -> tuple[BudgetDay, ...]:
        """Yesterday, today and tomorrow: the store picks by its own clock."""
        if not self._last or not self._last[1].starts_at <= now < self._last[1].ends_at:
            self._last = self._days(now)
        return self._last

    def _days(self, now: float) -> tuple[BudgetDay, ...]:
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
    """The account of one operation: what is reserved for it, and what each attempt came to.

    `top_up(amount)` asks the store for more and says whether it was granted.
    """

    reserved_nano_usd: int
    top_up: Callable[[int], Awaitable[bool]]
    _ended: list[Charge] = field(default_factory=list)
    _under_way: Charge | None = None

    @property
    def charges(self) -> tuple[Charge, ...]:
        """One for each model, if the operation ended now: an attempt under way counts in full."""
        return _by_model((*self._ended, *((self._under_way,) if self._under_way else ())))

    @property
    def cost_nano_usd(self) -> int:
        return sum(charge.cost_nano_usd for charge in self.charges)

    async def begin_attempt(
        self, provider: str, model: str, worst_case_nano_usd: int, *, set_aside_nano_usd: int = 0
    ) -> bool:
        """Makes sure that one more attempt is covered, and beside it what stays set aside for a
        later one; `False` when the budget refuses."""
        needed = self.cost_nano_usd + worst_case_nano_usd + set_aside_nano_usd
        missing = needed - self.reserved_nano_usd
        if missing > 0:
            if not await self.top_up(missing):
                return False
            self.reserved_nano_usd += missing
        self._under_way = Charge(provider, model, worst_case_nano_usd)
        return True

    def attempt_was_free(self) -> None:
        """The attempt has ended and was provably never processed."""
        self._under_way = None

    def attempt_is_unknown(self) -> None:
        """The attempt has ended and nobody knows what it cost: its worst case stays charged."""
        if self._under_way is not None:
            self._ended.append(self._under_way)
        self._under_way = None

    def attempt_cost(self, nano_usd: int, usage: TokenUsage) -> None:
        """The attempt has ended, and this is what it cost."""
        it = self._under_way
        if it is not None:
            tokens = usage.input_tokens, usage.output_tokens
            self._ended.append(Charge(it.provider, it.model, nano_usd, it.calls, *tokens))
        self._under_way = None


def usd(nano_usd: int) -> str:
    """Dollars in plain digits, exact: `0.000012`."""
    whole, rest = divmod(nano_usd, NANO_PER_USD)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def cost_header(nano_usd: int) -> dict[str, str]:
    """What this request has cost."""
    return {"x-cost-usd": usd(nano_usd)}


def remaining_header(state: BudgetState, caller_limit_nano_usd: int) -> dict[str, str]:
    """What the caller may still spend today, beyond what is set aside for its running calls."""
    remaining = max(0, caller_limit_nano_usd - state.caller_committed_nano_usd)
    return {"x-budget-remaining-usd": usd(remaining)}


def _by_model(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    sums: dict[tuple[str, str], Charge] = {}
    for charge in charges:
        key = charge.provider, charge.model
        sums[key] = sums[key] + charge if key in sums else charge
    return tuple(sums.values())
