"""The stores under test, and their books read past the port: what is charged, reserved, claimed."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.storage.base import Store
from app.storage.sqlite import EVERYONE, SQLiteSettings
from app.storage.sqlite import Store as SQLiteStore

Sums = Mapping[tuple[str, str], tuple[int, int]]
"""(day, caller) to (settled, reserved); the empty caller is everyone."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a store has on record. `counter` decides admission; `ledger` adds up the operations."""

    counter: Sums
    ledger: Sums
    open_operations: int
    running_claims: int
    charged_nano_usd: int

    @property
    def balanced(self) -> bool:
        """Whether the counter equals the ledger."""
        return _without_zeros(self.counter) == _without_zeros(self.ledger)


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
        return SQLiteStore(SQLiteSettings(sqlite_path=self.path))

    def books(self) -> Books:
        with closing(sqlite3.connect(self.path, timeout=5)) as db:
            counter = db.execute("SELECT day, caller, settled, reserved FROM budget").fetchall()
            operations = db.execute("SELECT day, caller, cost, reserved FROM operation").fetchall()
            (running,) = db.execute("SELECT count(*) FROM claim WHERE state = 'running'").fetchone()
        ledger: dict[tuple[str, str], tuple[int, int]] = {}
        for day, caller, cost, reserved in operations:
            for whose in (EVERYONE, caller):
                settled_sum, reserved_sum = ledger.get((day, whose), (0, 0))
                ledger[day, whose] = (
                    settled_sum + (cost or 0),
                    reserved_sum + (reserved if cost is None else 0),
                )
        return Books(
            counter={(day, caller): (settled, held) for day, caller, settled, held in counter},
            ledger=ledger,
            open_operations=sum(cost is None for _, _, cost, _ in operations),
            running_claims=running,
            charged_nano_usd=sum(cost or 0 for _, _, cost, _ in operations),
        )


def sqlite_backend(folder: Path) -> Backend:
    file = SQLiteFile(folder / "store.db")
    return Backend(file, file.books)


def _without_zeros(sums: Sums) -> Sums:
    return {key: value for key, value in sums.items() if value != (0, 0)}
