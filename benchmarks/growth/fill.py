"""Brings a store to where a service's callers and days would have brought it.

A million callers come in hours, not in a benchmark: where a store has a language of its own, what
their calls leave is written in it at once. `tests/benchmarks` holds that to what calls do leave.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from app import policy
from app.messages import Charge
from app.storage.base import (
    AdmissionRequest,
    Admitted,
    BudgetDay,
    Claim,
    RateLimit,
    Reservation,
    Settlement,
    Store,
)

from ..guardrails.load import LoadFailed

RATE_LIMIT = RateLimit(10_000_000, 3_600.0)
"""Never reached, and so long that no window ends while it is measured."""
ENOUGH_NANO_USD = 10**15
RESERVED_NANO_USD = 5_000_000
CHARGE = Charge("openai", "gpt-6-luna", 1_000_000, 1, 400, 100)
REPLY = b"x" * 500
BATCH = 5_000
SETTLED_SECONDS = 3_600
"""As `app/storage/redis.py` has it."""


@dataclass(frozen=True, slots=True)
class History:
    """One settled call of each of `callers` on each of the `days` up to that of `now`."""

    callers: int
    days: int
    now: float

    @property
    def names(self) -> list[str]:
        """Of the days, the oldest first."""
        today = datetime.fromtimestamp(self.now, UTC).date()
        return [(today - timedelta(days=n)).isoformat() for n in reversed(range(self.days))]

    def caller(self, number: int) -> str:
        return f"caller-{number:07}"


def budget_day(name: str) -> BudgetDay:
    starts_at = datetime.fromisoformat(name).replace(tzinfo=UTC).timestamp()
    return BudgetDay(name, starts_at, starts_at + policy.DAY_SECONDS)


async def call(
    store: Store, caller: str, day: str, *, keyed: bool = True, now: float | None = None
) -> None:
    """One admission and one settlement; `keyed` with a claim, and a reply that is kept. Raises
    `LoadFailed` if it is refused."""
    operation_id = uuid.uuid4().hex
    claim = Claim(f"{caller} {operation_id}", "a fingerprint", 100.0) if keyed else None
    reservation = Reservation(
        RESERVED_NANO_USD, ENOUGH_NANO_USD, ENOUGH_NANO_USD, (budget_day(day),)
    )
    request = AdmissionRequest(operation_id, caller, RATE_LIMIT, claim, reservation)
    decision = await store.admit(request, now=now)
    if not isinstance(decision, Admitted):
        raise LoadFailed(f"The store {store.name} refused a call: {decision}")
    settlement = Settlement(operation_id, caller, (CHARGE,))
    if claim is not None:
        settlement = replace(
            settlement, claim_key=claim.key, claim="done", reply=REPLY, reply_ttl_seconds=300.0
        )
    await store.settle(settlement, now=now)


async def fill_by_calls(store: Store, history: History) -> None:
    for day in history.names:
        # The time of day is the same on all.
        now = budget_day(day).starts_at + history.now % policy.DAY_SECONDS
        for number in range(history.callers):
            await call(store, history.caller(number), day, keyed=False, now=now)


def fill_sqlite(path: Path, history: History) -> None:
    """The file of a store that has been opened."""
    *statements, drop = _statements("fill.sqlite.sql").values()
    values = {**_values(history), "days": json.dumps(history.names)}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        for statement in [*statements, drop]:
            db.execute(statement, values)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # Else the store's first checkpoint would have all of it to write.
    with path.open("rb+") as file:
        os.fsync(file)


def fill_postgres(url: str, service: str, history: History) -> None:
    """The schema of a store that has been opened."""
    values = {**_values(history), "days": history.names}
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(service)))
        for name, statement in _statements("fill.postgres.sql").items():
            db.execute(statement.encode(), None if name == "analyze" else values)


def fill_redis(url: str, service: str, history: History) -> None:
    text = resources.files(__package__).joinpath("fill.lua").read_text(encoding="utf-8")
    prefix = f"{{{service}}}:"
    *_, today = history.names
    values = _values(history)
    with redis.Redis.from_url(url) as server:
        script = server.register_script(text)
        for day in history.names:
            for first, last in _batches(history.callers):
                script(
                    [f"{prefix}budget:{day}"],
                    [
                        *(prefix, day, first, last, values["now"]),
                        values["window"] if day == today else "",
                        *(policy.LEDGER_DAYS * 86_400, SETTLED_SECONDS),
                        *(values["reserved"], values["cost"]),
                        *(values["input_tokens"], values["output_tokens"]),
                        *(values["provider"], values["model"]),
                    ],
                )


def _batches(callers: int) -> Iterator[tuple[int, int]]:
    for first in range(0, callers, BATCH):
        yield first, min(first + BATCH, callers) - 1


def _values(history: History) -> dict[str, int | str]:
    *_, today = history.names
    return {
        "callers": history.callers,
        "today": today,
        "now": round(history.now * 1e6),
        "window": round(RATE_LIMIT.window_seconds * 1e6),
        "reserved": RESERVED_NANO_USD,
        "cost": CHARGE.cost_nano_usd,
        "input_tokens": CHARGE.input_tokens,
        "output_tokens": CHARGE.output_tokens,
        "provider": CHARGE.provider,
        "model": CHARGE.model,
    }


def _statements(name: str) -> dict[str, str]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: each.strip() for name, each in zip(parts[1::2], parts[2::2], strict=True)}
