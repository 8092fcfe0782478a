"""The stores under test, and their books read past the port: what is charged, reserved, claimed."""

import itertools
import json
import sqlite3
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import redis
from psycopg import sql
from pydantic import SecretStr

from app.storage.base import Store
from app.storage.memory import EVERYONE, NEWCOMERS, MemorySettings, Operation
from app.storage.memory import Store as MemoryStore
from app.storage.postgres import PostgresSettings
from app.storage.postgres import Store as PostgresStore
from app.storage.redis import RedisSettings
from app.storage.redis import Store as RedisStore
from app.storage.sqlite import SQLiteSettings
from app.storage.sqlite import Store as SQLiteStore

Sums = Mapping[tuple[str, str], tuple[int, int]]
"""(day, caller) to (settled, reserved); the empty caller is everyone."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a store has on record. `counter` decides admission, `ledger` adds up the operations, and
    `spent` the charges that a person reads, by (day, caller)."""

    counter: Sums
    ledger: Sums
    spent: Mapping[tuple[str, str], int]
    open_operations: int
    running_claims: int
    charged_nano_usd: int

    @property
    def balanced(self) -> bool:
        """Whether the counter equals the ledger, and both what a person reads."""
        settled = {key: sums[0] for key, sums in self.ledger.items() if key[1] and sums[0]}
        spent = {key: cost for key, cost in self.spent.items() if cost}
        return _without_zeros(self.counter) == _without_zeros(self.ledger) and spent == settled

    def on(self, days: Container[str]) -> "Books":
        """The same with only these days' sums."""
        spent = {key: cost for key, cost in self.spent.items() if key[0] in days}
        return replace(
            self, counter=_of(days, self.counter), ledger=_of(days, self.ledger), spent=spent
        )


_services = itertools.count()


@dataclass(frozen=True, slots=True)
class Backend:
    """A place that stores keep their data in. `connect` makes one more store on it, and can be sent
    to another process if such stores may share it."""

    connect: Callable[[], Store]
    books: Callable[[], Books]


@dataclass(frozen=True, slots=True)
class SQLiteFile:
    """Makes stores on one file; can be sent to another process."""

    path: Path

    def __call__(self) -> Store:
        return SQLiteStore(SQLiteSettings(sqlite_path=self.path), "service")

    def books(self) -> Books:
        with closing(sqlite3.connect(self.path, timeout=5)) as db:
            db.execute("BEGIN")  # one look at all of them, whatever is written meanwhile
            counter = db.execute("SELECT day, caller, settled, reserved FROM budget").fetchall()
            operations = db.execute("SELECT day, caller, cost, reserved FROM operation").fetchall()
            spent = db.execute(
                "SELECT day, caller, sum(cost) FROM spent GROUP BY day, caller"
            ).fetchall()
            (running,) = db.execute("SELECT count(*) FROM claim WHERE state = 'running'").fetchone()
        return Books(
            counter={(day, caller): (settled, held) for day, caller, settled, held in counter},
            ledger=_add_up(operations),
            spent={(day, caller): cost for day, caller, cost in spent},
            open_operations=sum(cost is None for _, _, cost, _ in operations),
            running_claims=running,
            charged_nano_usd=sum(cost or 0 for _, _, cost, _ in operations),
        )


@dataclass(frozen=True, slots=True)
class PostgresSchema:
    """Makes stores of one service on one database; can be sent to another process."""

    url: str
    service: str

    def __call__(self) -> PostgresStore:
        return PostgresStore(PostgresSettings(database_url=SecretStr(self.url)), self.service)

    def books(self, db: psycopg.Connection) -> Books:
        """What the service's tables hold; there are none before a store is opened."""
        with db.transaction():
            db.execute("SELECT set_config('search_path', quote_ident(%s), true)", [self.service])
            counter = db.execute("SELECT day, caller, settled, reserved FROM budget").fetchall()
            operations = db.execute("SELECT day, caller, cost, reserved FROM operation").fetchall()
            spent = db.execute(
                "SELECT day, caller, sum(cost) FROM spent GROUP BY day, caller"
            ).fetchall()
            running = db.execute("SELECT 1 FROM claim WHERE state = 'running'").fetchall()
        return Books(
            counter={(day, caller): (settled, held) for day, caller, settled, held in counter},
            ledger=_add_up(operations),
            spent={(day, caller): int(cost) for day, caller, cost in spent},
            open_operations=sum(cost is None for _, _, cost, _ in operations),
            running_claims=len(running),
            charged_nano_usd=sum(cost or 0 for _, _, cost, _ in operations),
        )


# One step, so that no other process's writes come between. Values stay strings: none is rounded.
READ_ALL = """
local found = {}
for _, kind in ipairs({'operation', 'budget', 'spent', 'claim'}) do
  local hashes = {}
  for _, key in ipairs(redis.call('KEYS', ARGV[1] .. kind .. ':*')) do
    hashes[#hashes + 1] = {key, redis.call('HGETALL', key)}
  end
  found[#found + 1] = hashes
end
return found
"""


@dataclass(frozen=True, slots=True)
class RedisService:
    """Makes stores of one service on a server that it may share; can be sent to another process."""

    url: str
    service: str

    def __call__(self) -> Store:
        return RedisStore(RedisSettings(redis_url=SecretStr(self.url)), self.service)

    @property
    def prefix(self) -> str:
        return f"{{{self.service}}}:"

    def keys(self, client: redis.Redis) -> list[bytes]:
        return list(client.scan_iter(f"{self.prefix}*", count=1_000))

    def books(self) -> Books:
        with redis.Redis.from_url(self.url) as client:
            found = client.eval(READ_ALL, 1, self.prefix, self.prefix)
        operations, budgets, spent, claims = (list(_hashes(kind)) for kind in found)
        reserved = [operation for _, operation in operations if "day" in operation]
        return Books(
            counter=_sums_of(budgets),
            ledger=_add_up(
                (o["day"], o["caller"], int(o["cost"]) if "cost" in o else None, int(o["reserved"]))
                for o in reserved
            ),
            spent=_charges_in(spent),
            open_operations=sum("cost" not in operation for operation in reserved),
            running_claims=sum("done" not in claim for _, claim in claims),
            charged_nano_usd=sum(int(operation.get("cost", 0)) for operation in reserved),
        )


class MemoryStores:
    """Makes stores that share nothing; the books are those of the latest."""

    def __init__(self) -> None:
        self._latest = MemoryStore(MemorySettings(), "service")

    def __call__(self) -> Store:
        self._latest = MemoryStore(MemorySettings(), "service")
        return self._latest

    def books(self) -> Books:
        store = self._latest
        ledger = store._ledger
        counter = {
            (name, caller): (account.settled, account.reserved)
            for (name, caller), account in ledger._accounts.items()
        }
        for day in ledger._days.values():
            counter[day.name, EVERYONE] = (day.everyone.settled, day.everyone.reserved)
            if day.newcomers.settled or day.newcomers.reserved:
                shared = (day.newcomers.settled, day.newcomers.reserved)
                counter[day.name, day.newcomers.caller] = shared
        settled = [o for o in store._settled.values() if isinstance(o, Operation)]
        operations = [*store._open.values(), *settled]
        accounts = [*ledger._accounts.items()]
        accounts += [((day.name, NEWCOMERS), day.newcomers) for day in ledger._days.values()]
        return Books(
            counter=counter,
            ledger=_add_up((o.day.name, o.account.caller, o.cost, o.reserved) for o in operations),
            spent={
                key: sum(charge.cost_nano_usd for charge in account.spent.values())
                for key, account in accounts
            },
            open_operations=sum(o.cost is None for o in operations),
            running_claims=sum(claim.state == "running" for claim in store._claims.values()),
            charged_nano_usd=sum(o.cost or 0 for o in operations),
        )


def sqlite_backend(folder: Path) -> Backend:
    file = SQLiteFile(folder / "store.db")
    return Backend(file, file.books)


@contextmanager
def postgres_backend(url: str) -> Iterator[Backend]:
    """A service that no other test has, whose schema is dropped in the end."""
    schema = PostgresSchema(url, f"a-service-{next(_services)}")
    with psycopg.connect(url, autocommit=True) as db:
        yield Backend(schema, lambda: schema.books(db))
        name = sql.Identifier(schema.service)
        db.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))


@contextmanager
def redis_backend(url: str) -> Iterator[Backend]:
    """A service of its own on the server, of which nothing is left in the end."""
    service = RedisService(url, f"service-{uuid.uuid4().hex}")
    yield Backend(service, service.books)
    with redis.Redis.from_url(url) as client:
        for key in service.keys(client):
            client.unlink(key)


def memory_backend() -> Backend:
    stores = MemoryStores()
    return Backend(stores, stores.books)


def _add_up(operations: Iterable[tuple[str, str, int | None, int]]) -> Sums:
    """What operations come to, each a day, a caller, its cost (if settled) and its reservation."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for day, caller, cost, reserved in operations:
        for whose in (EVERYONE, caller):
            settled_sum, reserved_sum = sums.get((day, whose), (0, 0))
            sums[day, whose] = (
                settled_sum + (cost or 0),
                reserved_sum + (reserved if cost is None else 0),
            )
    return sums


Hashes = Iterable[tuple[str, Mapping[str, str]]]
"""What each key's name ends with, and its fields."""


def _hashes(found: Iterable[tuple[bytes, list[bytes]]]) -> Hashes:
    for key, flat in found:
        texts = [text.decode("utf-8", "replace") for text in flat]
        yield key.decode().rpartition(":")[2], dict(zip(texts[::2], texts[1::2], strict=True))


def _sums_of(budgets: Hashes) -> Sums:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for day, budget in budgets:
        for name in budget:
            caller = name.partition(" ")[2]
            fields = (f"{kind} {caller}".rstrip() for kind in ("settled", "reserved"))
            settled, held = (int(budget.get(field, 0)) for field in fields)
            sums[day, caller] = (settled, held)
    return sums


def _charges_in(spent: Hashes) -> Mapping[tuple[str, str], int]:
    charges: dict[tuple[str, str], int] = {}
    for day, measures in spent:
        for field, value in measures.items():
            measure, _, what = field.partition(" ")
            if measure == "cost":
                key = day, json.loads(what)[0]
                charges[key] = charges.get(key, 0) + int(value)
    return charges


def _without_zeros(sums: Sums) -> Sums:
    return {key: value for key, value in sums.items() if value != (0, 0)}


def _of(days: Container[str], sums: Sums) -> Sums:
    return {key: value for key, value in sums.items() if key[0] in days}
