"""Rate limit, idempotency and budget, decided together before a call; settled together after it.

Two trips to the store on the plain path. A refused request has consumed nothing.
"""

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from ... import policy
from ...caller import Caller
from ...errors import (
    BudgetExhausted,
    CallerBudgetExhausted,
    IdempotencyKeyReused,
    ReplyNotStored,
    RequestInFlight,
    ServiceError,
    Shortage,
    StoreUnavailable,
)
from ...messages import ChatReply
from ...storage.base import (
    AdmissionRequest,
    Admitted,
    BudgetState,
    Claim,
    RateLimit,
    Refused,
    Replay,
    Reservation,
    Settlement,
    Store,
    TopUp,
)
from .budget import NANO_PER_USD, BudgetCalendar, Spending, cost_header, remaining_header, usd
from .idempotency import decode_reply, encode_reply
from .rate_limit import rate_limit_headers, rate_limited

T = TypeVar("T")

DO_NOT_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's SDKs that waiting a moment will not help."""


@dataclass(frozen=True, slots=True)
class Limits:
    rate: RateLimit
    daily_nano_usd: int
    daily_per_caller_nano_usd: int
    reply_ttl_seconds: float


@dataclass(frozen=True, slots=True)
class StoredReply:
    reply: ChatReply
    provider: str


@dataclass(slots=True)
class Operation:
    """An admitted call. Whoever holds it settles it, whatever happens."""

    id: str
    caller: str
    claim_key: str | None
    spending: Spending


class Admission:
    """`on_budget(state)` hears of the day's figures after each step that changed them,
    `on_exhausted(day)` of each refusal because the day's global cap is reached."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        calendar: BudgetCalendar,
        backlog: "SettlementBacklog",
        *,
        on_budget: Callable[[BudgetState], None],
        on_exhausted: Callable[[str], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._calendar = calendar
        self._on_budget = on_budget
        self._on_exhausted = on_exhausted
        self._backlog = backlog

    async def admit(
        self, caller: Caller, claim: Claim | None, worst_case_nano_usd: int
    ) -> Operation | StoredReply:
        """One place in the window, the claim and the reservation, or none of them.

        Returns the stored reply when the request ran before. Raises `ServiceError`.
        """
        operation_id = secrets.token_hex(16)
        reservation = Reservation(
            worst_case_nano_usd,
            self._limits.daily_nano_usd,
            self._limits.daily_per_caller_nano_usd,
            self._calendar.around(time.time()),
        )
        operation = Operation(
            operation_id,
            caller.name,
            claim.key if claim else None,
            Spending(worst_case_nano_usd, lambda amount: self._top_up(operation_id, amount)),
        )
        request = AdmissionRequest(operation_id, caller.name, self._limits.rate, claim, reservation)
        try:
            decision = await self._backlog.watch(self._store.admit(request))
        except StoreUnavailable as error:
            if error.outcome_unknown:
                self._give_back(operation)
            raise
        except asyncio.CancelledError:
            self._give_back(operation)
            raise
        caller.tell(rate_limit_headers(decision.rate))
        match decision:
            case Replay():
                caller.tell(cost_header(caller.record.cost_nano_usd))
                return StoredReply(*decode_reply(decision.reply))
            case Refused():
                self._note_budget(caller, decision.budget)
                if decision.reason == "budget" and decision.budget is not None:
                    self._on_exhausted(decision.budget.day)
                raise _refusal(decision, self._limits, worst_case_nano_usd)
            case Admitted():
                self._note_budget(caller, decision.budget)
                return operation

    async def admit_request(self, caller: Caller) -> None:
        """One place in the window, for an endpoint that calls no model."""
        request = AdmissionRequest(secrets.token_hex(16), caller.name, self._limits.rate)
        decision = await self._backlog.watch(self._store.admit(request))
        caller.tell(rate_limit_headers(decision.rate))
        if isinstance(decision, Refused):
            raise _refusal(decision, self._limits, worst_case_nano_usd=0)

    async def settle(
        self,
        caller: Caller,
        operation: Operation,
        *,
        reply: ChatReply | None = None,
        provider: str = "",
    ) -> None:
        """Charges what the operation cost; with `reply`, keeps it for a repeat of the request.

        Without `reply` the claim is released. When the store cannot be reached, the settlement is
        kept and written later.
        """
        charges = operation.spending.charges
        caller.record.charges.extend(charges)
        caller.tell(cost_header(caller.record.cost_nano_usd))
        whose = (operation.id, operation.caller, charges, operation.claim_key)
        if reply is None or operation.claim_key is None:
            settlement = Settlement(*whose)
        else:
            stored = encode_reply(reply, provider)
            small_enough = len(stored) <= policy.MAX_STORED_REPLY_BYTES
            ttl_seconds = self._limits.reply_ttl_seconds
            settlement = Settlement(*whose, "done", stored if small_enough else None, ttl_seconds)
        self._note_budget(caller, await self._backlog.settle(settlement))

    def _note_budget(self, caller: Caller, state: BudgetState | None) -> None:
        if state is not None:
            caller.tell(remaining_header(state, self._limits.daily_per_caller_nano_usd))
            self._on_budget(state)

    def _give_back(self, operation: Operation) -> None:
        """Whatever an admission of unknown outcome may have taken."""
        self._backlog.put(Settlement(operation.id, operation.caller, claim_key=operation.claim_key))

    async def _top_up(self, operation_id: str, amount_nano_usd: int) -> bool:
        request = TopUp(
            operation_id,
            amount_nano_usd,
            self._limits.daily_nano_usd,
            self._limits.daily_per_caller_nano_usd,
        )
        return await self._backlog.watch(self._store.top_up(request))


class SettlementBacklog:
    """Settlements that could not be written wait here, in order and bounded, until they can.

    `on_gone(reason, waiting)` hears when the store goes away, `on_back(lost)` when it is back:
    settlements for which there was no room are lost, and their reservations stay charged.
    `on_change(waiting, lost)` hears of each that begins or ceases to wait, and how many were lost
    by that.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_gone: Callable[[str, int], None],
        on_back: Callable[[int], None],
        on_change: Callable[[int, int], None] = lambda waiting, lost: None,
    ) -> None:
        self._store = store
        self._on_gone = on_gone
        self._on_back = on_back
        self._on_change = on_change
        self._waiting: deque[Settlement] = deque(maxlen=policy.SETTLEMENT_BACKLOG)
        self._task: asyncio.Task[None] | None = None
        self._reachable = True
        self._lost = 0

    async def watch(self, step: Awaitable[T]) -> T:
        """Takes a step of the store, and note of whether it answers; only a change is reported."""
        try:
            result = await step
        except StoreUnavailable as error:
            if self._reachable:
                self._reachable = False
                self._on_gone(error.reason, len(self._waiting))
            raise
        if not self._reachable:
            self._reachable = True
            self._on_back(self._lost)
            self._lost = 0
        return result

    async def settle(self, settlement: Settlement) -> BudgetState | None:
        """The day's figures; `None` when they are not known, or not yet."""
        step = asyncio.ensure_future(self._store.settle(settlement))
        try:
            return await self.watch(asyncio.shield(step))
        except StoreUnavailable:
            self.put(settlement)
        except asyncio.CancelledError:
            # The step goes on, and nobody is left to hear how it ends: it is taken once more.
            step.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self.put(settlement)
            raise
        return None

    def put(self, settlement: Settlement) -> None:
        """Takes a settlement to be written in the background. Writing it twice does no harm."""
        lost = int(len(self._waiting) == self._waiting.maxlen)
        self._lost += lost
        self._waiting.append(settlement)
        self._on_change(len(self._waiting), lost)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_when_possible())

    async def close(self, grace_seconds: float) -> int:
        """Waits for what is left; returns how many settlements are given up."""
        if self._task is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._task
        return self._lost + len(self._waiting)

    async def _write_when_possible(self) -> None:
        while self._waiting:
            settlement = self._waiting[0]
            try:
                await self.watch(self._store.settle(settlement))
            except StoreUnavailable:
                await asyncio.sleep(policy.SETTLEMENT_RETRY_SECONDS)
            else:
                # A full backlog may have pushed it out meanwhile.
                with suppress(ValueError):
                    self._waiting.remove(settlement)
                self._on_change(len(self._waiting), 0)


def _refusal(refused: Refused, limits: Limits, worst_case_nano_usd: int) -> ServiceError:
    match refused.reason:
        case "rate":
            return rate_limited(refused)
        case "in_flight":
            return RequestInFlight(
                "The same request is still running; repeat it later to get its reply.",
                retry_after_seconds=policy.IN_FLIGHT_RETRY_AFTER_SECONDS,
            )
        case "key_reused":
            return IdempotencyKeyReused(
                "This Idempotency-Key came with another body before; use a new key.",
                param="Idempotency-Key",
            )
        case "reply_not_stored":
            return ReplyNotStored(
                "The request has run and was charged, but its reply was too large to keep"
                f" (limit {policy.MAX_STORED_REPLY_BYTES} bytes); use a new key to run it again.",
                headers=DO_NOT_RETRY,
            )
        case "budget":
            committed = refused.budget.committed_nano_usd if refused.budget else 0
            return BudgetExhausted(
                f"The daily budget of ${usd(limits.daily_nano_usd)} leaves no room for this"
                f" request, which may cost ${usd(worst_case_nano_usd)}; wait until midnight.",
                retry_after_seconds=math.ceil(refused.retry_after_seconds),
                headers=DO_NOT_RETRY,
                shortage=_in_dollars(limits.daily_nano_usd, worst_case_nano_usd, committed),
            )
        case "caller_budget":
            spent = refused.budget.caller_committed_nano_usd if refused.budget else 0
            limit = limits.daily_per_caller_nano_usd
            left = max(0, limit - spent)
            return CallerBudgetExhausted(
                f"Your daily budget of ${usd(limit)} has ${usd(left)} left, and this request may"
                f" cost ${usd(worst_case_nano_usd)}; ask for fewer tokens (max_tokens), or wait"
                " until midnight.",
                retry_after_seconds=math.ceil(refused.retry_after_seconds),
                headers=DO_NOT_RETRY,
                shortage=_in_dollars(limit, worst_case_nano_usd, spent),
            )


def _in_dollars(limit: int, asked: int, committed: int) -> Shortage:
    return Shortage(
        limit / NANO_PER_USD, asked / NANO_PER_USD, max(0, limit - committed) / NANO_PER_USD
    )
