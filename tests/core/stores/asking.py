"""What a service asks of its store, with everything that a test does not care about filled in."""

import itertools
from datetime import UTC, datetime, timedelta

from app.messages import Charge
from app.storage.base import (
    AdmissionRequest,
    Admitted,
    BudgetDay,
    Claim,
    Decision,
    RateLimit,
    Refused,
    Replay,
    Reservation,
    Settlement,
    Store,
    TopUp,
)

NOON = datetime(2100, 1, 1, 12, tzinfo=UTC).timestamp()
PLENTY = 10**15
WIDE = RateLimit(1_000_000, 60.0)

_numbers = itertools.count()


def days_around(moment: float) -> tuple[BudgetDay, ...]:
    """Yesterday, today and tomorrow, in UTC."""
    today = datetime.fromtimestamp(moment, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [today + timedelta(days=offset) for offset in (-1, 0, 1, 2)]
    return tuple(
        BudgetDay(start.date().isoformat(), start.timestamp(), end.timestamp())
        for start, end in itertools.pairwise(starts)
    )


def reservation(
    amount: int, *, cap: int = PLENTY, caller_cap: int = PLENTY, moment: float = NOON
) -> Reservation:
    return Reservation(amount, cap, caller_cap, days_around(moment))


def claim(
    key: str = "key", body: str = "body", *, lease_seconds: float = 100, takes_over: bool = False
) -> Claim:
    return Claim(key, body, lease_seconds, takes_over)


def new_operation() -> str:
    return f"operation{next(_numbers)}"


def request(
    caller: str = "ada",
    *,
    operation: str | None = None,
    rate: RateLimit = WIDE,
    claim: Claim | None = None,
    reserve: Reservation | None = None,
) -> AdmissionRequest:
    return AdmissionRequest(operation or new_operation(), caller, rate, claim, reserve)


async def admitted(store: Store, request: AdmissionRequest, *, now: float = NOON) -> Admitted:
    decision = await store.admit(request, now=now)
    assert isinstance(decision, Admitted), decision
    return decision


async def replayed(store: Store, request: AdmissionRequest, *, now: float = NOON) -> Replay:
    decision = await store.admit(request, now=now)
    assert isinstance(decision, Replay), decision
    return decision


async def refused(store: Store, request: AdmissionRequest, *, now: float = NOON) -> Refused:
    decision = await store.admit(request, now=now)
    assert isinstance(decision, Refused), decision
    return decision


def settlement(
    admission: AdmissionRequest,
    cost: int = 0,
    *,
    reply: bytes | None = None,
    keep: bool = False,
    ttl_seconds: float = 100,
) -> Settlement:
    """With `keep` the claim is done, and `reply` is what a repeat gets."""
    return Settlement(
        admission.operation_id,
        admission.caller,
        (Charge("openai", "gpt-6-luna", cost, input_tokens=2 * cost, output_tokens=cost),),
        claim_key=admission.claim.key if admission.claim else None,
        claim="done" if keep else "release",
        reply=reply,
        reply_ttl_seconds=ttl_seconds,
    )


def top_up(
    admission: AdmissionRequest, amount: int, *, cap: int = PLENTY, caller_cap: int = PLENTY
) -> TopUp:
    return TopUp(admission.operation_id, amount, cap, caller_cap)


def reason(decision: Decision) -> str:
    """What was decided, in a word."""
    match decision:
        case Admitted():
            return "admitted"
        case Replay():
            return "replay"
        case Refused():
            return decision.reason
