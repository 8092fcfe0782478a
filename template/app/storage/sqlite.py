"""One SQLite file: exact across the processes of one host, nothing to install or to run.

All statements run in one dedicated thread, so the event loop never waits for the disk. Writers
take the lock at the start of their transaction (`BEGIN IMMEDIATE`), which is what makes admission
one atomic step.
"""

import asyncio
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

from pydantic import Field

from .. import policy
from ..errors import StoreUnavailable
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

T = TypeVar("T")

EVERYONE: Final = ""
"""The budget row that adds up all callers; no caller can have an empty name."""
LOCK_POLL_SECONDS: Final = 0.005
"""More often would be fairer, and slower: a process that takes over reads the file's pages anew."""


class SQLiteSettings(StoreSettings):
    sqlite_path: Path = Field(
        default=Path("data/service.db"),
        description="The database file; its folder is created when missing.",
    )

    def production_problems(self) -> dict[str, str]:
        folder = self.sqlite_path.absolute().parent
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not _is_writable(existing):
            return {"SQLITE_PATH": "is in a folder that cannot be written; choose a mounted volume"}
        return {}


class Store:
    name: ClassVar[str] = "sqlite"
    settings_type: ClassVar[type[StoreSettings]] = SQLiteSettings
    shared_between_processes: ClassVar[bool] = True

    def __init__(self, settings: StoreSettings, service: str) -> None:
        assert isinstance(settings, SQLiteSettings)
        self._path = settings.sqlite_path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._sql = _read_statements()
        self._steps = 0

    async def open(self) -> None:
        await self._run(self._migrate)

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        return await self._run(lambda db: self._admit(db, request, now))

    async def top_up(self, request: TopUp) -> bool:
        return await self._run(lambda db: self._top_up(db, request))

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        return await self._run(lambda db: self._settle(db, settlement, now))

    async def day_book(self, day: str) -> DayBook:
        return await self._run(lambda db: self._day_book(db, day))

    async def read_summary(
        self, keys: Sequence[str], *, now: float | None = None
    ) -> tuple[int, str] | None:
        def read(db: sqlite3.Connection) -> tuple[int, str] | None:
            row = self._one(db, "find_summary", keys=json.dumps(keys), now=_micros(now))
            return None if row is None else (int(row[0]), str(row[1]))

        return await self._run(read)

    async def write_summary(
        self, key: str, text: str, ttl_seconds: float, *, now: float | None = None
    ) -> None:
        expires_at = _micros(now) + _span(ttl_seconds)
        await self._run(
            lambda db: self._execute(db, "put_summary", key=key, text=text, expires_at=expires_at)
        )

    async def ping(self) -> None:
        await self._run(lambda db: db.execute("SELECT 1 FROM budget LIMIT 1").fetchone())

    async def close(self) -> None:
        def close_connection() -> None:
            if self._connection is not None:
                self._connection.close()

        await asyncio.wrap_future(self._thread.submit(close_connection))
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in the store's thread, for at most `STORE_TIMEOUT_SECONDS`."""

        def connected() -> T:
            try:
                return _when_free(lambda: work(self._connected()))
            except sqlite3.Error:
                # The next call opens the file anew: it may have been moved, restored or remounted.
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                raise

        future = self._thread.submit(connected)
        try:
            async with asyncio.timeout(policy.STORE_TIMEOUT_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            # The thread is still at it, and nothing can stop it half-way.
            raise _unavailable(error, outcome_unknown=not future.cancelled()) from error
        except (sqlite3.Error, OSError) as error:
            raise _unavailable(error, outcome_unknown=False) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path,
            timeout=0,  # `_when_free` waits
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Brings the file up to the newest of the numbered migrations, each of which ends by
        writing its number into the file."""
        migrations = [name for name in self._sql if name.startswith("migration_")]
        with _transaction(db):
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > len(migrations):
                raise sqlite3.DatabaseError(
                    f"the file has schema {version}, made by a newer version of this service; this"
                    f" one knows {len(migrations)}"
                )
            for migration in migrations[version:]:
                for statement in self._sql[migration].split(";"):
                    db.execute(statement)

    # Admission

    def _admit(
        self, db: sqlite3.Connection, request: AdmissionRequest, at: float | None
    ) -> Decision:
        with _transaction(db):
            # Read behind the lock: who waited for it must not count as having come before.
            now = _micros(at)
            self._sweep_in_turn(db, now)
            if self._one(db, "find_operation", id=request.operation_id):
                return self._repeat(db, request, now)
            rate, used, retry_after = self._rate_state(db, request, now)
            if retry_after is not None:
                return Refused("rate", rate, retry_after)
            earlier = self._earlier_run(db, request.claim, rate, now)
            if isinstance(earlier, Refused):
                return earlier
            if isinstance(earlier, Replay):
                self._count_request(db, request, used, now)
                return replace(earlier, rate=_one_less(rate))
            budget: BudgetState | None = None
            if request.reservation is not None:
                reserved = self._reserve(db, request, request.reservation, rate, now)
                if isinstance(reserved, Refused):
                    return reserved
                budget = reserved
            self._count_request(db, request, used, now)
            if request.claim is not None:
                self._execute(
                    db,
                    "put_claim",
                    key=request.claim.key,
                    fingerprint=request.claim.fingerprint,
                    operation_id=request.operation_id,
                    expires_at=now + _span(request.claim.lease_seconds),
                )
            return Admitted(_one_less(rate), budget)

    def _repeat(self, db: sqlite3.Connection, request: AdmissionRequest, now: int) -> Admitted:
        """The operation owns what it was given; if it was settled before it came, nothing."""
        rate, _, _ = self._rate_state(db, request, now)
        row = self._one(db, "find_operation", id=request.operation_id)
        return Admitted(rate, self._budget_state(db, str(row[1]), request.caller) if row else None)

    def _rate_state(
        self, db: sqlite3.Connection, request: AdmissionRequest, now: int
    ) -> tuple[RateState, int, float | None]:
        """The caller's standing, the places used, and how long to wait when none is free."""
        caller, limit = request.caller, request.rate_limit
        window = _span(limit.window_seconds)
        row = self._one(db, "rate_used", caller=caller)
        used: int = row[0] if row else 0
        gone = self._execute(db, "forget_rate_events", caller=caller, expired=now - window)
        if gone:
            used -= gone
            self._execute(db, "set_rate_used", caller=caller, used=used, expires_at=0)
        oldest = self._one(db, "oldest_rate_event", caller=caller)
        reset = (oldest[0] + window - now) / 1e6 if oldest else limit.window_seconds
        state = _rate(limit, limit.requests - used, reset)
        if used < limit.requests:
            return state, used, None
        # More than the limit are on record when the owner has lowered it.
        blocking = self._one(db, "nth_rate_event", caller=caller, offset=used - limit.requests)
        assert blocking is not None
        return state, used, (blocking[0] + window - now) / 1e6

    def _count_request(
        self, db: sqlite3.Connection, request: AdmissionRequest, used: int, now: int
    ) -> None:
        caller, operation_id = request.caller, request.operation_id
        expires_at = now + _span(request.rate_limit.window_seconds)
        self._execute(db, "add_rate_event", caller=caller, now=now, operation_id=operation_id)
        self._execute(db, "set_rate_used", caller=caller, used=used + 1, expires_at=expires_at)

    def _earlier_run(
        self, db: sqlite3.Connection, claim: Claim | None, rate: RateState, now: int
    ) -> Refused | Replay | None:
        row = self._one(db, "find_claim", key=claim.key) if claim is not None else None
        if claim is None or row is None or claim.takes_over:
            return None
        fingerprint, _, state, reply, expires_at = row
        if expires_at <= now:
            return None
        if fingerprint != claim.fingerprint:
            return Refused("key_reused", rate)
        if state == "running":
            return Refused("in_flight", rate, (expires_at - now) / 1e6)
        return Refused("reply_not_stored", rate) if reply is None else Replay(rate, bytes(reply))

    # Budget

    def _reserve(
        self,
        db: sqlite3.Connection,
        request: AdmissionRequest,
        reservation: Reservation,
        rate: RateState,
        now: int,
    ) -> Refused | BudgetState:
        day = _day_of(reservation.days, now)
        refusal = self._over_budget(
            db,
            day.name,
            request.caller,
            reservation.amount_nano_usd,
            reservation.limit_nano_usd,
            reservation.caller_limit_nano_usd,
        )
        if refusal is not None:
            state = self._budget_state(db, day.name, request.caller)
            return Refused(refusal, rate, day.ends_at - now / 1e6, state)
        amount = reservation.amount_nano_usd
        self._add_to_budget(db, day.name, request.caller, settled=0, reserved=amount)
        self._execute(
            db,
            "add_operation",
            id=request.operation_id,
            caller=request.caller,
            day=day.name,
            now=now,
            reserved=amount,
        )
        return self._budget_state(db, day.name, request.caller)

    def _over_budget(
        self,
        db: sqlite3.Connection,
        day: str,
        caller: str,
        amount: int,
        limit: int,
        caller_limit: int,
    ) -> Literal["budget", "caller_budget"] | None:
        state = self._budget_state(db, day, caller)
        if state.committed_nano_usd + amount > limit:
            return "budget"
        if state.caller_committed_nano_usd + amount > caller_limit:
            return "caller_budget"
        return None

    def _budget_state(self, db: sqlite3.Connection, day: str, caller: str) -> BudgetState:
        settled, committed = self._one(db, "budget_of", day=day, caller=EVERYONE) or (0, 0)
        _, caller_committed = self._one(db, "budget_of", day=day, caller=caller) or (0, 0)
        return BudgetState(day, settled, committed, caller_committed)

    def _add_to_budget(
        self, db: sqlite3.Connection, day: str, caller: str, *, settled: int, reserved: int
    ) -> None:
        for scope in (EVERYONE, caller):
            self._execute(
                db, "add_to_budget", day=day, caller=scope, settled=settled, reserved=reserved
            )

    def _top_up(self, db: sqlite3.Connection, request: TopUp) -> bool:
        with _transaction(db):
            row = self._one(db, "find_operation", id=request.operation_id)
            if row is None or row[3] is not None:
                return False
            caller, day, _, _ = row
            amount = request.amount_nano_usd
            limits = (request.limit_nano_usd, request.caller_limit_nano_usd)
            if self._over_budget(db, day, caller, amount, *limits):
                return False
            self._add_to_budget(db, day, caller, settled=0, reserved=amount)
            self._execute(db, "raise_reservation", id=request.operation_id, amount=amount)
            return True

    # Settlement

    def _settle(
        self, db: sqlite3.Connection, settlement: Settlement, at: float | None
    ) -> BudgetState | None:
        with _transaction(db):
            now = _micros(at)
            self._sweep_in_turn(db, now)
            self._settle_claim(db, settlement, now)
            return self._settle_cost(db, settlement, now)

    def _settle_claim(self, db: sqlite3.Connection, settlement: Settlement, now: int) -> None:
        if settlement.claim_key is None:
            return
        owner = {"key": settlement.claim_key, "operation_id": settlement.operation_id}
        if settlement.claim == "release":
            self._execute(db, "release_claim", **owner)
            return
        expires_at = now + _span(settlement.reply_ttl_seconds)
        self._execute(db, "finish_claim", reply=settlement.reply, expires_at=expires_at, **owner)

    def _settle_cost(
        self, db: sqlite3.Connection, settlement: Settlement, now: int
    ) -> BudgetState | None:
        row = self._one(db, "find_operation", id=settlement.operation_id)
        if row is None:
            # Its admission may be on its way yet: then it finds itself settled.
            self._execute(
                db,
                "add_settled_operation",
                id=settlement.operation_id,
                caller=settlement.caller,
                day=_utc_day(now),
                now=now,
            )
            return None
        caller, day, reserved, cost = row
        if cost is not None:
            return None
        cost = settlement.cost_nano_usd
        self._add_to_budget(db, day, caller, settled=cost, reserved=-reserved)
        self._execute(db, "settle_operation", id=settlement.operation_id, cost=cost)
        for charge in settlement.charges:
            self._execute(
                db,
                "add_spent",
                day=day,
                caller=caller,
                provider=charge.provider,
                model=charge.model,
                calls=charge.calls,
                input_tokens=charge.input_tokens,
                output_tokens=charge.output_tokens,
                cost=charge.cost_nano_usd,
            )
        return self._budget_state(db, day, caller)

    def _day_book(self, db: sqlite3.Connection, day: str) -> DayBook:
        with _transaction(db, "BEGIN"):
            spent = db.execute(self._sql["spent_on"], {"day": day}).fetchall()
            reserved = db.execute(self._sql["reserved_on"], {"day": day}).fetchall()
        return DayBook(
            day,
            tuple(Spent(caller, Charge(*charge)) for caller, *charge in spent),
            tuple((caller, amount) for caller, amount in reserved),
        )

    def _sweep_in_turn(self, db: sqlite3.Connection, now: int) -> None:
        """Forgets what has expired, every so many steps, a bounded batch at a time."""
        self._steps += 1
        if self._steps % policy.SWEEP_EVERY_STEPS:
            return
        batch = policy.SWEEP_BATCH
        self._execute(db, "sweep_claims", now=now, batch=batch)
        self._execute(db, "sweep_summaries", now=now, batch=batch)
        oldest_day = _utc_day(now - _span(policy.LEDGER_DAYS * 86_400))
        self._execute(db, "sweep_operations", oldest_day=oldest_day, batch=batch)
        self._execute(db, "sweep_budgets", oldest_day=oldest_day, batch=batch)
        self._execute(db, "sweep_spent", oldest_day=oldest_day, batch=batch)
        callers = db.execute(self._sql["expired_callers"], {"now": now, "batch": batch})
        for (caller,) in callers.fetchall():
            self._execute(db, "forget_caller_events", caller=caller)
            self._execute(db, "forget_caller", caller=caller)

    def _one(
        self, db: sqlite3.Connection, statement: str, **values: object
    ) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = db.execute(self._sql[statement], values).fetchone()
        return row

    def _execute(self, db: sqlite3.Connection, statement: str, **values: object) -> int:
        return db.execute(self._sql[statement], values).rowcount


def _unavailable(error: Exception, *, outcome_unknown: bool) -> StoreUnavailable:
    unavailable = StoreUnavailable(
        f"The store does not answer ({type(error).__name__}); try again.",
        retry_after_seconds=policy.STORE_RETRY_AFTER_SECONDS,
    )
    unavailable.outcome_unknown = outcome_unknown
    unavailable.reason = str(error) or f"no answer in {policy.STORE_TIMEOUT_SECONDS:g} s"
    return unavailable


def _when_free(work: Callable[[], T]) -> T:
    """Does `work`, which is all or nothing, as soon as no other process has the file locked.

    SQLite by itself looks for that ever more rarely, down to ten times a second: under load the
    others leave it no gap to meet. After half of the store's limit it gives up, so that whoever
    waits learns the outcome in time.
    """
    give_up_at = time.monotonic() + policy.STORE_TIMEOUT_SECONDS / 2
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up_at:
                raise
            time.sleep(LOCK_POLL_SECONDS)


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _read_statements() -> dict[str, str]:
    text = resources.files(__package__).joinpath("sqlite.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


def _micros(now: float | None) -> int:
    return time.time_ns() // 1_000 if now is None else _span(now)


def _span(seconds: float) -> int:
    return round(seconds * 1e6)


def _utc_day(now: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(now / 1e6))


def _day_of(days: tuple[BudgetDay, ...], now: int) -> BudgetDay:
    """The day that the clock is in; the nearest one when it is outside of all."""
    for day in days:
        if now < _span(day.ends_at):
            return day
    return days[-1]


def _rate(limit: RateLimit, remaining: int, reset_seconds: float) -> RateState:
    return RateState(limit.requests, max(0, remaining), reset_seconds, limit.window_seconds)


def _one_less(rate: RateState) -> RateState:
    return replace(rate, remaining=max(0, rate.remaining - 1))


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
