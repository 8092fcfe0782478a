"""The port to the store: a handful of operations, each atomic, and the values they exchange.

A store decides admission in one step, so that no two requests can both take the last place, the
last dollar or the same idempotency key. Money is in nano-dollars, time in seconds since the epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from ..messages import Charge
from ..variables import Variables


class StoreSettings(Variables):
    """What a store needs from the environment; each store has a subclass of its own."""

    def production_problems(self) -> dict[str, str]:
        """Values that only development may have: variable name to remedy."""
        return {}

    def secrets(self) -> tuple[str, ...]:
        """Values that must not be written anywhere."""
        return ()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """No window of `window_seconds` admits more than `requests`."""

    requests: int
    window_seconds: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one request once.

    `key` already names caller and route; `fingerprint` is that of the request's body. The claim
    ends with its lease when nobody settles it. One that `takes_over` is granted whoever holds the
    key or has left a reply under it, and theirs ends.
    """

    key: str
    fingerprint: str
    lease_seconds: float
    takes_over: bool = False


@dataclass(frozen=True, slots=True)
class BudgetDay:
    """One day of the budget's calendar: the half-open interval [starts_at, ends_at)."""

    name: str
    starts_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """The worst case of one call, held until it is settled.

    `days` are consecutive; the store picks the one that its own clock is in.
    """

    amount_nano_usd: int
    limit_nano_usd: int
    caller_limit_nano_usd: int
    days: tuple[BudgetDay, ...]


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """Everything that admission decides on, together.

    `operation_id` makes the step repeatable: an operation with a reservation is admitted once and
    owns what it was given. Without `claim` nothing is claimed, without `reservation` nothing is
    reserved, and a repeat is decided anew.
    """

    operation_id: str
    caller: str
    rate_limit: RateLimit
    claim: Claim | None = None
    reservation: Reservation | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """Where the caller stands: `reset_seconds` until the next of the used places comes free."""

    limit: int
    remaining: int
    reset_seconds: float
    window_seconds: float


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The day's figures after the step. `committed` is settled plus reserved."""

    day: str
    settled_nano_usd: int
    committed_nano_usd: int
    caller_committed_nano_usd: int


@dataclass(frozen=True, slots=True)
class Admitted:
    rate: RateState
    budget: BudgetState | None


@dataclass(frozen=True, slots=True)
class Replay:
    """The request ran before; this is its stored reply. It counts as one request."""

    rate: RateState
    reply: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was consumed.

    - `rate`: come back after `retry_after_seconds`
    - `in_flight`: the same request is running
    - `key_reused`: the key belongs to another body
    - `reply_not_stored`: it ran, and its reply was too large to keep
    - `budget`, `caller_budget`: the day's cap would be crossed; `retry_after_seconds` to its end,
      and `budget` says where it stands
    """

    reason: Literal[
        "rate", "in_flight", "key_reused", "reply_not_stored", "budget", "caller_budget"
    ]
    rate: RateState
    retry_after_seconds: float = 0.0
    budget: BudgetState | None = None


Decision = Admitted | Replay | Refused


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an operation ended. Settling twice is settling once.

    The sum of `charges`, at most one for each model, replaces the reservation, on the reservation's
    day. `claim` says what becomes of the claim: `done` stores `reply` (`None`: too large to keep),
    `release` frees it.
    """

    operation_id: str
    caller: str
    charges: tuple[Charge, ...] = ()
    claim_key: str | None = None
    claim: Literal["done", "release"] = "release"
    reply: bytes | None = None
    reply_ttl_seconds: float = 0.0

    @property
    def cost_nano_usd(self) -> int:
        return sum(charge.cost_nano_usd for charge in self.charges)


@dataclass(frozen=True, slots=True)
class TopUp:
    """One more worst case for an operation that holds a reservation."""

    operation_id: str
    amount_nano_usd: int
    limit_nano_usd: int
    caller_limit_nano_usd: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What one caller has spent on one model in a day."""

    caller: str
    charge: Charge


@dataclass(frozen=True, slots=True)
class DayBook:
    """One day of the ledger.

    `reserved` holds, by caller, what is set aside for calls that are running or whose worker was
    killed; together with `spent` it makes up what the day's cap counts.
    """

    day: str
    spent: tuple[Spent, ...]
    reserved: tuple[tuple[str, int], ...]

    @property
    def settled_nano_usd(self) -> int:
        return sum(spent.charge.cost_nano_usd for spent in self.spent)

    @property
    def reserved_nano_usd(self) -> int:
        return sum(amount for _, amount in self.reserved)


class Store(Protocol):
    """A store. Every method raises `StoreUnavailable` when the store cannot answer in time."""

    name: ClassVar[str]
    settings_type: ClassVar[type[StoreSettings]]
    shared_between_processes: ClassVar[bool]
    """Whether several worker processes see the same limits; otherwise only one is allowed."""

    def __init__(self, settings: StoreSettings, service: str) -> None:
        """Connects to nothing yet. `service` keeps services apart that share a server."""

    async def open(self) -> None:
        """Connects and brings the schema up to date."""

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        """All or nothing, in this order: rate limit, idempotency, budget.

        `now` overrides the store's clock; only tests pass it.
        """

    async def top_up(self, request: TopUp) -> bool:
        """Adds to the reservation, or refuses and changes nothing."""

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        """Exactly once. `None` when there was no reservation to settle (or no longer).

        An operation that is settled before its admission arrives, as may happen when a connection
        broke in between, consumes nothing when it does.
        """

    async def day_book(self, day: str) -> DayBook:
        """Who spent what on which model, by the day's name; sorted by caller, provider, model."""

    async def read_summary(
        self, keys: Sequence[str], *, now: float | None = None
    ) -> tuple[int, str] | None:
        """The first of `keys` that has an unexpired text: its place among them, and the text."""

    async def write_summary(
        self, key: str, text: str, ttl_seconds: float, *, now: float | None = None
    ) -> None: ...

    async def ping(self) -> None:
        """Returns when a step could be taken now."""

    async def close(self) -> None: ...
