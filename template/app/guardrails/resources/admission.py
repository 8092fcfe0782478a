"""Rate limit, idempotency and budget, decided together before a call; settled together after it.

Two trips to the store on the plain path. A refused request has consumed nothing.
"""

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from ... import policy
from ...caller import Caller
from ...errors import (
    BudgetExhausted,
    CallerBudgetExhausted,
    IdempotencyKeyReused,
    ReplyNotStored,
    RequestInFlight,
    ServiceError,
    StoreUnavailable,
)
from ...messages import ChatReply, TokenUsage
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
from .budget import BudgetCalendar, Spending
from .idempotency import decode_reply, encode_reply
from .rate_limit import rate_limit_headers, rate_limited

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
        operation_id = uuid.uuid4().hex
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
            decision = await self._store.admit(request)
        except StoreUnavailable as error:
            self._backlog.store_is(reachable=False)
            if error.outcome_unknown:
                self._give_back(operation)
            raise
        except asyncio.CancelledError:
            self._give_back(operation)
            raise
        self._backlog.store_is(reachable=True)
        caller.headers.update(rate_limit_headers(decision.rate))
        match decision:
            case Refused():
                if decision.reason == "budget":
                    self._on_exhausted(reservation.days[1].name)
                raise _refusal(decision, self._limits)
            case Replay():
                return StoredReply(*decode_reply(decision.reply))
            case Admitted():
                if decision.budget is not None:
                    self._on_budget(decision.budget)
                return operation

    async def admit_request(self, caller: Caller) -> None:
        """One place in the window, for an endpoint that calls no model."""
        decision = await self._store.admit(
            AdmissionRequest(uuid.uuid4().hex, caller.name, self._limits.rate)
        )
        caller.headers.update(rate_limit_headers(decision.rate))
        if isinstance(decision, Refused):
            raise _refusal(decision, self._limits)

    async def settle(
        self,
        operation: Operation,
        *,
        reply: ChatReply | None = None,
        provider: str = "",
        usage: TokenUsage | None = None,
    ) -> None:
        """Charges what the operation cost; with `reply`, keeps it for a repeat of the request.

        Without `reply` the claim is released. When the store cannot be reached, the settlement is
        kept and written later.
        """
        settlement = self._settlement(operation, operation.spending.cost_nano_usd)
        settlement = replace(
            settlement,
            provider=provider,
            model=reply.model if reply else "",
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
        )
        if reply is not None and operation.claim_key is not None:
            stored = encode_reply(reply, provider)
            small_enough = len(stored) <= policy.MAX_STORED_REPLY_BYTES
            settlement = replace(
                settlement,
                claim="done",
                reply=stored if small_enough else None,
                reply_ttl_seconds=self._limits.reply_ttl_seconds,
            )
        state = await self._backlog.settle(settlement)
        if state is not None:
            self._on_budget(state)

    def _give_back(self, operation: Operation) -> None:
        """Whatever an admission of unknown outcome may have taken."""
        self._backlog.put(self._settlement(operation, 0))

    def _settlement(self, operation: Operation, cost_nano_usd: int) -> Settlement:
        return Settlement(
            operation.id, operation.caller, cost_nano_usd, claim_key=operation.claim_key
        )

    async def _top_up(self, operation_id: str, amount_nano_usd: int) -> bool:
        return await self._store.top_up(
            TopUp(
                operation_id,
                amount_nano_usd,
                self._limits.daily_nano_usd,
                self._limits.daily_per_caller_nano_usd,
            )
        )


class SettlementBacklog:
    """Settlements that could not be written wait here, in order and bounded, until they can.

    `on_transition(reachable, waiting)` hears when the store goes away and when it is back.
    """

    def __init__(self, store: Store, on_transition: Callable[[bool, int], None]) -> None:
        self._store = store
        self._on_transition = on_transition
        self._waiting: deque[Settlement] = deque(maxlen=policy.SETTLEMENT_BACKLOG)
        self._task: asyncio.Task[None] | None = None
        self._reachable = True

    def store_is(self, *, reachable: bool) -> None:
        """Tells what a step has found; only a change is reported."""
        if reachable is not self._reachable:
            self._reachable = reachable
            self._on_transition(reachable, len(self._waiting))

    async def settle(self, settlement: Settlement) -> BudgetState | None:
        try:
            return await asyncio.shield(self._store.settle(settlement))
        except StoreUnavailable:
            self.put(settlement)
            self.store_is(reachable=False)
        except asyncio.CancelledError:
            self.put(settlement)
            raise
        return None

    def put(self, settlement: Settlement) -> None:
        """Takes a settlement to be written in the background. Writing it twice does no harm."""
        self._waiting.append(settlement)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_when_possible())

    async def close(self, grace_seconds: float) -> int:
        """Waits for what is left; returns how many settlements are given up."""
        if self._task is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._task
        return len(self._waiting)

    async def _write_when_possible(self) -> None:
        while self._waiting:
            settlement = self._waiting[0]
            try:
                await self._store.settle(settlement)
            except StoreUnavailable:
                self.store_is(reachable=False)
                await asyncio.sleep(policy.SETTLEMENT_RETRY_SECONDS)
            else:
                # A full backlog may have pushed it out meanwhile.
                with suppress(ValueError):
                    self._waiting.remove(settlement)
                self.store_is(reachable=True)


def _refusal(refused: Refused, limits: Limits) -> ServiceError:
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
            return BudgetExhausted(
                f"The daily budget of {_usd(limits.daily_nano_usd)} leaves no room for this"
                " request; it starts anew at midnight.",
                retry_after_seconds=math.ceil(refused.retry_after_seconds),
                headers=DO_NOT_RETRY,
            )
        case "caller_budget":
            return CallerBudgetExhausted(
                f"Your daily budget of {_usd(limits.daily_per_caller_nano_usd)} leaves no room for"
                " this request; it starts anew at midnight.",
                retry_after_seconds=math.ceil(refused.retry_after_seconds),
                headers=DO_NOT_RETRY,
            )


def _usd(nano_usd: int) -> str:
    """Dollars to the cent, or as many places as a smaller amount needs."""
    exact = f"{nano_usd / 1e9:.9f}".rstrip("0")
    return f"${nano_usd / 1e9:,.2f}" if len(exact.partition(".")[2]) <= 2 else f"${exact}"
