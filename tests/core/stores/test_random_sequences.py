"""Whatever happens in whatever order, a store decides as a few dictionaries would."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app import policy
from app.storage.base import (
    AdmissionRequest,
    Admitted,
    BudgetState,
    Claim,
    RateLimit,
    Refused,
    Replay,
    Reservation,
    Store,
)

from ..backends import Backend
from .asking import NOON, claim, days_around, new_operation, reason, request, settlement, top_up

T = TypeVar("T")

RATE = RateLimit(6, 10.0)
WINDOW_MS = 10_000
CAP, CALLER_CAP = 100, 60
DAY_SECONDS = 86_400


@dataclass
class Operation:
    caller: str
    day: str
    reserved: int
    cost: int | None = None


@dataclass
class Held:
    owner: str
    fingerprint: str
    expires_at: int
    done: bool = False
    reply: bytes | None = None


@dataclass
class Model:
    """The rules of the port, told again as plainly as possible. Times are in milliseconds."""

    taken: dict[str, list[int]] = field(default_factory=dict)
    claims: dict[str, Held] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    ended_before: set[str] = field(default_factory=set)
    """Operations that were settled without a reservation, or before they had one."""

    def admit(self, request: AdmissionRequest, now: int) -> str:
        if request.operation_id in self.operations or request.operation_id in self.ended_before:
            return "admitted"
        window = [at for at in self.taken.get(request.caller, []) if at > now - WINDOW_MS]
        if len(window) >= RATE.requests:
            return "rate"
        earlier = self._earlier(request.claim, now)
        if earlier == "replay":
            self.taken[request.caller] = [*window, now]
        if earlier is not None:
            return earlier
        if request.reservation is not None:
            day = self._day(request.reservation, now)
            refusal = self._over_budget(day, request.caller, request.reservation.amount_nano_usd)
            if refusal is not None:
                return refusal
            self.operations[request.operation_id] = Operation(
                request.caller, day, request.reservation.amount_nano_usd
            )
        self.taken[request.caller] = [*window, now]
        if request.claim is not None:
            self.claims[request.claim.key] = Held(
                request.operation_id,
                request.claim.fingerprint,
                now + round(request.claim.lease_seconds * 1_000),
            )
        return "admitted"

    def top_up(self, operation_id: str, amount: int) -> bool:
        operation = self.operations.get(operation_id)
        if operation is None or operation.cost is not None:
            return False
        if self._over_budget(operation.day, operation.caller, amount):
            return False
        operation.reserved += amount
        return True

    def settle(
        self, request: AdmissionRequest, cost: int, keep: bool, reply: bytes | None, expires: int
    ) -> BudgetState | None:
        held = self.claims.get(request.claim.key) if request.claim else None
        if request.claim and held and held.owner == request.operation_id and not held.done:
            if keep:
                held.done, held.reply, held.expires_at = True, reply, expires
            else:
                del self.claims[request.claim.key]
        operation = self.operations.get(request.operation_id)
        if operation is None:
            self.ended_before.add(request.operation_id)
        if operation is None or operation.cost is not None:
            return None
        operation.cost = cost
        return self.state(operation.day, operation.caller)

    def is_late(self, request: AdmissionRequest, now: int) -> bool:
        held = self.claims.get(request.claim.key) if request.claim else None
        return held is not None and not held.done and held.expires_at <= now

    def state(self, day: str, caller: str) -> BudgetState:
        everyone = [o for o in self.operations.values() if o.day == day]
        settled = sum(o.cost or 0 for o in everyone)
        return BudgetState(
            day,
            settled,
            settled + sum(o.reserved for o in everyone if o.cost is None),
            sum(o.reserved if o.cost is None else o.cost for o in everyone if o.caller == caller),
        )

    def _earlier(self, claim: Claim | None, now: int) -> str | None:
        held = self.claims.get(claim.key) if claim else None
        if claim is None or held is None or claim.takes_over or held.expires_at <= now:
            return None
        if held.fingerprint != claim.fingerprint:
            return "key_reused"
        if not held.done:
            return "in_flight"
        return "reply_not_stored" if held.reply is None else "replay"

    def _over_budget(self, day: str, caller: str, amount: int) -> str | None:
        state = self.state(day, caller)
        if state.committed_nano_usd + amount > CAP:
            return "budget"
        if state.caller_committed_nano_usd + amount > CALLER_CAP:
            return "caller_budget"
        return None

    def _day(self, reservation: Reservation, now: int) -> str:
        # Asked again after all of the days that it came with, a request is charged to the last.
        days = reservation.days
        return next((d.name for d in days if now / 1_000 < d.ends_at), days[-1].name)


class Sequences(RuleBasedStateMachine):
    """Two callers with three keys between them, at limits that are soon reached."""

    backend: ClassVar[Backend]
    runner: ClassVar[asyncio.Runner]
    store: ClassVar[Store]
    runs: ClassVar[int] = 0

    asked: Bundle[AdmissionRequest] = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        # Days, callers and keys of its own, in the store that all examples share.
        type(self).runs += 1
        self.ms = round(NOON + type(self).runs * 20 * DAY_SECONDS) * 1_000
        self.prefix = f"run{type(self).runs}-"
        self.model = Model()

    @property
    def now(self) -> float:
        return self.ms / 1_000

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return type(self).runner.run(work)

    @rule(
        target=asked,
        who=st.sampled_from(["ada", "grace"]),
        key=st.sampled_from([None, "one", "other"]),
        body=st.sampled_from(["this", "that"]),
        takes_over=st.sampled_from([False, False, True]),
        amount=st.sampled_from([None, 0, 1, 20, 45]),
        lease_seconds=st.sampled_from([3, 50]),
    )
    def admit(
        self,
        who: str,
        key: str | None,
        body: str,
        takes_over: bool,
        amount: int | None,
        lease_seconds: float,
    ) -> Any:
        asked = request(
            self.prefix + who,
            operation=new_operation(),
            rate=RATE,
            claim=claim(self.prefix + key, body, lease_seconds=lease_seconds, takes_over=takes_over)
            if key
            else None,
            reserve=Reservation(amount, CAP, CALLER_CAP, days_around(self.now))
            if amount is not None
            else None,
        )
        self.decide(asked)
        return multiple(asked)

    @rule(asked=asked)
    def admit_again(self, asked: AdmissionRequest) -> None:
        # What was refused, or had no reservation, is decided anew; what was admitted is not.
        self.ms += 1
        self.decide(asked)

    def decide(self, asked: AdmissionRequest) -> None:
        expected = self.model.admit(asked, self.ms)
        decision = self.run(self.store.admit(asked, now=self.now))
        assert reason(decision) == expected
        used = [at for at in self.model.taken.get(asked.caller, ()) if at > self.ms - WINDOW_MS]
        assert decision.rate.remaining == RATE.requests - len(used)
        match decision:
            case Admitted(budget=budget) if budget is not None:
                assert budget == self.model.state(budget.day, asked.caller)
            case Replay(reply=reply):
                assert asked.claim is not None
                assert reply == self.model.claims[asked.claim.key].reply
            case Refused(reason="rate", retry_after_seconds=wait):
                assert abs(wait * 1_000 - (used[0] + WINDOW_MS - self.ms)) < 0.01

    @rule(asked=asked, amount=st.sampled_from([1, 20, 50]))
    def top_up(self, asked: AdmissionRequest, amount: int) -> None:
        granted = self.run(self.store.top_up(top_up(asked, amount, cap=CAP, caller_cap=CALLER_CAP)))
        assert granted is self.model.top_up(asked.operation_id, amount)

    @rule(
        asked=asked,
        cost=st.sampled_from([0, 1, 20, 45]),
        keep=st.booleans(),
        reply=st.sampled_from([None, b"reply"]),
        ttl_seconds=st.sampled_from([3, 50]),
    )
    def settle(
        self,
        asked: AdmissionRequest,
        cost: int,
        keep: bool,
        reply: bytes | None,
        ttl_seconds: int,
    ) -> None:
        # A claim whose lease is over may be gone already: whether it keeps a late reply is luck.
        keep = keep and not self.model.is_late(asked, self.ms)
        ended = settlement(asked, cost, reply=reply, keep=keep, ttl_seconds=ttl_seconds)
        state = self.run(self.store.settle(ended, now=self.now))
        expires = self.ms + ttl_seconds * 1_000
        assert state == self.model.settle(asked, cost, keep, reply, expires)

    @rule(seconds=st.sampled_from([0.5, 3, 10, 50, DAY_SECONDS / 3]))
    def time_passes(self, seconds: float) -> None:
        self.ms += round(seconds * 1_000)

    @invariant()
    def the_counter_equals_the_ledger(self) -> None:
        # What earlier examples have left is being swept, the days' sums before their operations.
        books = self.backend.books().on({o.day for o in self.model.operations.values()})
        assert books.balanced
        for operation in self.model.operations.values():
            state = self.model.state(operation.day, operation.caller)
            settled, reserved = books.counter[operation.day, ""]
            assert (settled, settled + reserved) == (
                state.settled_nano_usd,
                state.committed_nano_usd,
            )


@pytest.mark.promise("R4")
def test_random_sequences_follow_the_rules(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each decision is the one that the rules give, and the counter always equals the ledger."""
    # What has expired is swept at every opportunity, so that decisions cannot depend on it.
    monkeypatch.setattr(policy, "SWEEP_EVERY_STEPS", 1)
    with asyncio.Runner() as runner:
        store = backend.connect()
        runner.run(store.open())
        machine = type(
            "Sequences", (Sequences,), {"backend": backend, "runner": runner, "store": store}
        )
        try:
            run_state_machine_as_test(
                machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
            )
        finally:
            runner.run(store.close())
