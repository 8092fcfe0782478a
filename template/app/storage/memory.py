"""The memory of one process: exact for one worker, nothing to install or to run, gone at its end.

Each operation is a plain section without `await`: the event loop runs nothing else until it is
over, which is what makes it atomic. What has expired is dropped a few at a time, so that memory is
bounded and no step takes long.
"""

import time
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Literal, Protocol, TypeVar

from .. import policy
from ..messages import Charge
from .base import (
    AdmissionRequest,
    Admitted,
    BudgetDay,
    BudgetState,
    Claim,
    DayBook,
    Decision,
    RateLimit,
    RateState,
    Refused,
    Replay,
    Reservation,
    Settlement,
    Spent,
    StoreSettings,
    TopUp,
)

MAX_CALLERS: Final = 50_000
"""Callers with a window of their own, and accounts of callers; newcomers beyond them share one."""
MAX_SETTLED_OPERATIONS: Final = 50_000
"""Settled operations that are still known when they are repeated; the oldest gives way."""

EVERYONE: Final = ""
"""The account that adds up all callers; no caller can have an empty name."""
NEWCOMERS: Final = ":newcomers"
"""The account of those who came when all others were taken; no caller's name begins like this."""


class Expiring(Protocol):
    @property
    def expires_at(self) -> int: ...


K = TypeVar("K")
E = TypeVar("E", bound=Expiring)


class MemorySettings(StoreSettings):
    """Nothing: there is no place to choose."""


@dataclass(slots=True)
class Window:
    """The places that a caller has taken, oldest first; each comes free after `span`."""

    span: int = 0
    taken: deque[int] = field(default_factory=deque)

    @property
    def expires_at(self) -> int:
        """When the last of them comes free."""
        return self.taken[-1] + self.span if self.taken else 0

    def standing(self, limit: RateLimit, now: int) -> tuple[RateState, float | None]:
        """Where the caller stands, and how long to wait when no place is free."""
        self.span = _span(limit.window_seconds)
        while self.taken and self.taken[0] + self.span <= now:
            self.taken.popleft()
        used = len(self.taken)
        reset = (self.taken[0] + self.span - now) / 1e6 if used else limit.window_seconds
        remaining = max(0, limit.requests - used)
        state = RateState(limit.requests, remaining, reset, limit.window_seconds)
        if used < limit.requests:
            return state, None
        # More than the limit are on record when the owner has lowered it.
        blocking = self.taken[used - limit.requests]
        return state, (blocking + self.span - now) / 1e6

    def take_place(self, now: int) -> None:
        if self.taken and now < self.taken[-1]:
            insort(self.taken, now)  # the clock was set back
        else:
            self.taken.append(now)


@dataclass(frozen=True, slots=True)
class Sharer:
    expires_at: int


class Windows:
    """A window for each of `MAX_CALLERS` callers, in the order of their latest requests.

    In this order they expire and make room, as all windows of a service are equally long. Further
    newcomers share one. Whoever has taken a place there stays until it has come free: with a window
    of its own before that, a caller could take twice its limit.
    """

    def __init__(self) -> None:
        self._own: OrderedDict[str, Window] = OrderedDict()
        self._shared = Window()
        self._sharers: OrderedDict[str, Sharer] = OrderedDict()

    def of(self, caller: str, now: int) -> Window:
        """The window that the caller is counted in; a new one is not kept before a place is taken
        in it."""
        window = self._own.get(caller)
        if window is not None:
            return window
        sharer = self._sharers.get(caller)
        if sharer is not None and sharer.expires_at > now:
            return self._shared
        return Window() if self._has_room(now) else self._shared

    def take_place(self, caller: str, window: Window, now: int) -> None:
        window.take_place(now)
        if window is self._shared:
            self._put_last(self._sharers, caller, Sharer(window.expires_at), now)
        else:
            self._put_last(self._own, caller, window, now)

    def _has_room(self, now: int) -> bool:
        return len(self._own) < MAX_CALLERS or _first(self._own).expires_at <= now

    def _put_last(self, kept: OrderedDict[str, E], caller: str, value: E, now: int) -> None:
        # One comes and two may go: those that have expired cannot pile up.
        _drop_expired(kept, now, at_most=2)
        kept[caller] = value
        kept.move_to_end(caller)


@dataclass(slots=True)
class HeldClaim:
    fingerprint: str
    operation_id: str
    expires_at: int
    state: Literal["running", "done"] = "running"
    reply: bytes | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    text: str
    expires_at: int


@dataclass(slots=True)
class Account:
    """What was spent, and what may yet be, in a day that ends at `ends_at`.

    One that has made room goes on in the account that has taken it over.
    """

    caller: str
    ends_at: int
    settled: int = 0
    reserved: int = 0
    spent: dict[tuple[str, str], Charge] = field(default_factory=dict)
    _heir: "Account | None" = None

    def add(self, *, settled: int, reserved: int, charges: Iterable[Charge] = ()) -> None:
        self.settled += settled
        self.reserved += reserved
        for charge in charges:
            key = charge.provider, charge.model
            self.spent[key] = self.spent[key] + charge if key in self.spent else charge
        if self._heir is not None:
            self._heir.add(settled=settled, reserved=reserved, charges=charges)

    def hand_over_to(self, heir: "Account") -> None:
        heir.add(settled=self.settled, reserved=self.reserved, charges=self.spent.values())
        self._heir = heir

    @property
    def committed(self) -> int:
        return self.settled + self.reserved

    @property
    def expires_at(self) -> int:
        return self.ends_at + _span(policy.LEDGER_DAYS * 86_400)


@dataclass(frozen=True, slots=True)
class Day:
    name: str
    everyone: Account
    newcomers: Account

    @property
    def expires_at(self) -> int:
        return self.everyone.expires_at


@dataclass(slots=True)
class Operation:
    """A reservation in its caller's account, and what it came to. `cost` is `None` until then."""

    day: Day
    account: Account
    reserved: int = 0
    cost: int | None = None

    @property
    def expires_at(self) -> int:
        return self.day.expires_at

    def state(self) -> BudgetState:
        everyone = self.day.everyone
        return BudgetState(
            self.day.name, everyone.settled, everyone.committed, self.account.committed
        )

    def over_budget(
        self, amount: int, limit: int, caller_limit: int
    ) -> Literal["budget", "caller_budget"] | None:
        if self.day.everyone.committed + amount > limit:
            return "budget"
        if self.account.committed + amount > caller_limit:
            return "caller_budget"
        return None

    def reserve(self, amount: int) -> None:
        self.reserved += amount
        for account in (self.day.everyone, self.account):
            account.add(settled=0, reserved=amount)

    def settle(self, charges: tuple[Charge, ...]) -> None:
        self.cost = sum(charge.cost_nano_usd for charge in charges)
        for account in (self.day.everyone, self.account):
            account.add(settled=self.cost, reserved=-self.reserved, charges=charges)


@dataclass(frozen=True, slots=True)
class NeverAdmitted:
    """An operation that was settled, at nothing, although nobody had admitted it."""

    settled_at: int

    @property
    def expires_at(self) -> int:
        return self.settled_at + _span(policy.LEDGER_DAYS * 86_400)

    def state(self) -> None:
        """It has no day."""


class Ledger:
    """The days' sums, which are exact, and the accounts of `MAX_CALLERS` callers.

    Accounts are in the order of their days; those of a day that is over make room. Further
    newcomers share one account for the day.
    """

    def __init__(self) -> None:
        self._days: OrderedDict[str, Day] = OrderedDict()
        self._accounts: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def new_operation(self, budget_day: BudgetDay, caller: str, now: int) -> Operation:
        """An operation on the caller's account; neither is kept before `keep`."""
        day = self._days.get(budget_day.name) or _new_day(budget_day)
        account = self._accounts.get((day.name, caller))
        if account is None and self._has_room(now):
            account = Account(caller, day.everyone.ends_at)
        return Operation(day, account or day.newcomers)

    def keep(self, operation: Operation) -> None:
        day, account = operation.day, operation.account
        self._days.setdefault(day.name, day)
        key = (day.name, account.caller)
        if account is day.newcomers or key in self._accounts:
            return
        if len(self._accounts) >= MAX_CALLERS:
            (over, _), oldest = self._accounts.popitem(last=False)
            oldest.hand_over_to(self._days[over].newcomers)
        self._accounts[key] = account

    def book(self, name: str) -> DayBook:
        day = self._days.get(name)
        accounts = [a for (other, _), a in self._accounts.items() if other == name]
        accounts = sorted([*accounts, *([day.newcomers] if day else [])], key=lambda a: a.caller)
        return DayBook(
            name,
            tuple(
                Spent(account.caller, charge)
                for account in accounts
                for _, charge in sorted(account.spent.items())
            ),
            tuple((account.caller, account.reserved) for account in accounts if account.reserved),
        )

    def sweep(self, now: int) -> None:
        _drop_expired(self._days, now, at_most=policy.SWEEP_BATCH)
        _drop_expired(self._accounts, now, at_most=policy.SWEEP_BATCH)

    def _has_room(self, now: int) -> bool:
        return len(self._accounts) < MAX_CALLERS or _first(self._accounts).ends_at <= now


class Store:
    name: ClassVar[str] = "memory"
    settings_type: ClassVar[type[StoreSettings]] = MemorySettings
    shared_between_processes: ClassVar[bool] = False

    def __init__(self, settings: StoreSettings, service: str) -> None:
        assert isinstance(settings, MemorySettings)
        self._windows = Windows()
        self._claims: OrderedDict[str, HeldClaim] = OrderedDict()
        self._ledger = Ledger()
        self._open: OrderedDict[str, Operation] = OrderedDict()
        self._settled: OrderedDict[str, Operation | NeverAdmitted] = OrderedDict()
        self._summaries: OrderedDict[str, Summary] = OrderedDict()
        self._steps = 0

    async def open(self) -> None:
        """Nothing to connect to."""

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        at = _micros(now)
        self._sweep_in_turn(at)
        window = self._windows.of(request.caller, at)
        rate, retry_after = window.standing(request.rate_limit, at)
        known = self._open.get(request.operation_id) or self._settled.get(request.operation_id)
        if known is not None:
            return Admitted(rate, known.state())
        if retry_after is not None:
            return Refused("rate", rate, retry_after)
        earlier = self._earlier_run(request.claim, rate, at)
        if isinstance(earlier, Refused):
            return earlier
        if isinstance(earlier, Replay):
            self._windows.take_place(request.caller, window, at)
            return replace(earlier, rate=_one_less(rate))
        budget: BudgetState | None = None
        if request.reservation is not None:
            reserved = self._reserve(request, request.reservation, rate, at)
            if isinstance(reserved, Refused):
                return reserved
            budget = reserved
        self._windows.take_place(request.caller, window, at)
        if request.claim is not None:
            self._claims[request.claim.key] = HeldClaim(
                request.claim.fingerprint,
                request.operation_id,
                at + _span(request.claim.lease_seconds),
            )
        return Admitted(_one_less(rate), budget)

    async def top_up(self, request: TopUp) -> bool:
        operation = self._open.get(request.operation_id)
        if operation is None:
            return False
        amount = request.amount_nano_usd
        if operation.over_budget(amount, request.limit_nano_usd, request.caller_limit_nano_usd):
            return False
        operation.reserve(amount)
        return True

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        at = _micros(now)
        self._sweep_in_turn(at)
        self._settle_claim(settlement, at)
        return self._settle_cost(settlement, at)

    async def day_book(self, day: str) -> DayBook:
        return self._ledger.book(day)

    async def read_summary(
        self, keys: Sequence[str], *, now: float | None = None
    ) -> tuple[int, str] | None:
        at = _micros(now)
        for place, key in enumerate(keys):
            summary = self._summaries.get(key)
            if summary is not None and summary.expires_at > at:
                return place, summary.text
        return None

    async def write_summary(
        self, key: str, text: str, ttl_seconds: float, *, now: float | None = None
    ) -> None:
        self._summaries[key] = Summary(text, _micros(now) + _span(ttl_seconds))

    async def ping(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to disconnect from."""

    def _earlier_run(
        self, claim: Claim | None, rate: RateState, now: int
    ) -> Refused | Replay | None:
        held = self._claims.get(claim.key) if claim is not None else None
        if claim is None or held is None or claim.takes_over or held.expires_at <= now:
            return None
        if held.fingerprint != claim.fingerprint:
            return Refused("key_reused", rate)
        if held.state == "running":
            return Refused("in_flight", rate, (held.expires_at - now) / 1e6)
        return Refused("reply_not_stored", rate) if held.reply is None else Replay(rate, held.reply)

    def _reserve(
        self, request: AdmissionRequest, reservation: Reservation, rate: RateState, now: int
    ) -> Refused | BudgetState:
        day = _day_of(reservation.days, now)
        operation = self._ledger.new_operation(day, request.caller, now)
        amount = reservation.amount_nano_usd
        limits = (reservation.limit_nano_usd, reservation.caller_limit_nano_usd)
        refusal = operation.over_budget(amount, *limits)
        if refusal is not None:
            return Refused(refusal, rate, day.ends_at - now / 1e6, operation.state())
        self._ledger.keep(operation)
        operation.reserve(amount)
        self._open[request.operation_id] = operation
        return operation.state()

    def _settle_claim(self, settlement: Settlement, now: int) -> None:
        key = settlement.claim_key
        held = self._claims.get(key) if key is not None else None
        if key is None or held is None or held.state != "running":
            return
        if held.operation_id != settlement.operation_id:
            return
        if settlement.claim == "release":
            del self._claims[key]
            return
        held.state = "done"
        # A copy: orjson's bytes keep the 4 kB that they were written in.
        held.reply = bytes(memoryview(settlement.reply)) if settlement.reply is not None else None
        held.expires_at = now + _span(settlement.reply_ttl_seconds)

    def _settle_cost(self, settlement: Settlement, now: int) -> BudgetState | None:
        if settlement.operation_id in self._settled:
            return None
        operation = self._open.pop(settlement.operation_id, None)
        if operation is not None:
            operation.settle(settlement.charges)
        if len(self._settled) >= MAX_SETTLED_OPERATIONS:
            self._settled.popitem(last=False)
        # One that is not known may be on its way yet: then it finds itself settled.
        self._settled[settlement.operation_id] = operation or NeverAdmitted(now)
        return operation.state() if operation else None

    def _sweep_in_turn(self, now: int) -> None:
        """Forgets what has expired, every so many steps, a bounded batch at a time."""
        self._steps += 1
        if self._steps % policy.SWEEP_EVERY_STEPS:
            return
        batch = policy.SWEEP_BATCH
        _drop_expired_in_turn(self._claims, now, at_most=batch)
        _drop_expired_in_turn(self._summaries, now, at_most=batch)
        _drop_expired(self._open, now, at_most=batch)
        _drop_expired(self._settled, now, at_most=batch)
        self._ledger.sweep(now)


def _drop_expired(kept: OrderedDict[K, E], now: int, *, at_most: int) -> None:
    """From the front, for what is kept in the order in which it expires."""
    for _ in range(at_most):
        if not kept or _first(kept).expires_at > now:
            return
        kept.popitem(last=False)


def _drop_expired_in_turn(kept: OrderedDict[K, E], now: int, *, at_most: int) -> None:
    """Looks at some, and next time at the next: for what expires in any order."""
    for _ in range(min(at_most, len(kept))):
        key, value = kept.popitem(last=False)
        if value.expires_at > now:
            kept[key] = value


def _first(kept: OrderedDict[K, E]) -> E:
    return next(iter(kept.values()))


def _new_day(day: BudgetDay) -> Day:
    ends_at = _span(day.ends_at)
    return Day(day.name, Account(EVERYONE, ends_at), Account(NEWCOMERS, ends_at))


def _micros(now: float | None) -> int:
    return time.time_ns() // 1_000 if now is None else _span(now)


def _span(seconds: float) -> int:
    return round(seconds * 1e6)


def _day_of(days: tuple[BudgetDay, ...], now: int) -> BudgetDay:
    """The day that the clock is in; the nearest one when it is outside of all."""
    for day in days:
        if now < _span(day.ends_at):
            return day
    return days[-1]


def _one_less(rate: RateState) -> RateState:
    remaining = max(0, rate.remaining - 1)
    return RateState(rate.limit, remaining, rate.reset_seconds, rate.window_seconds)
