"""Takes steps of a store and tells what they cost, in a process of its own.

`python -m benchmarks.growth.steps STORAGE SCENE SIZE...`, where SCENE is `callers` or `ledger` and
`app` is that of a rendered service. It brings a store to each size and says `{}`; then, for each
line on its standard input, a size and how many calls to admit and settle and days' books to read
there, it does so and tells the CPU time of one in JSON: its own and that of the store's server,
which it leads.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from app.errors import StoreUnavailable
from app.storage.base import Store
from sandbox.stores import place

from ..guardrails import usage
from ..guardrails.load import LoadFailed
from .fill import History, call, fill_by_calls, fill_postgres, fill_redis, fill_sqlite

CALLERS_A_DAY = 1_000
"""Of the ledger's."""


@dataclass(frozen=True, slots=True)
class Filled:
    store: Store
    history: History


def main(storage: str, scene: str, sizes: Sequence[int]) -> int:
    with place() as variables, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        folder = Path(variables["SQLITE_PATH"]).parent if storage == "sqlite" else Path()
        filled: dict[int, Filled] = {}
        try:
            for size in sizes:
                history = _history(scene, size)
                filled[size] = runner.run(_filled(storage, variables, folder, history))
            print("{}", flush=True)
            for line in sys.stdin:
                size, steps, books = map(int, line.split())
                told = runner.run(_measure(filled[size], steps, books))
                print(json.dumps(told), flush=True)
        except (LoadFailed, StoreUnavailable) as error:
            print(json.dumps({"failed": str(error)}), flush=True)
        finally:
            for each in filled.values():
                runner.run(each.store.close())
    return 0


def _history(scene: str, size: int) -> History:
    now = time.time()
    return History(size, 1, now) if scene == "callers" else History(CALLERS_A_DAY, size, now)


async def _filled(
    storage: str, variables: Mapping[str, str], folder: Path, history: History
) -> Filled:
    store_type: Any = importlib.import_module(f"app.storage.{storage}").Store
    service = f"callers-{history.callers}-days-{history.days}"
    path = folder / f"{service}.db"
    values = {**{name.lower(): value for name, value in variables.items()}, "sqlite_path": path}
    store: Store = store_type(store_type.settings_type(**values), service)
    await store.open()
    match storage:
        case "sqlite":
            fill_sqlite(path, history)
        case "postgres":
            fill_postgres(variables["DATABASE_URL"], service, history)
        case "redis":
            fill_redis(variables["REDIS_URL"], service, history)
        case _:
            await fill_by_calls(store, history)
    return Filled(store, history)


async def _measure(filled: Filled, steps: int, books: int) -> dict[str, float]:
    store, history = filled.store, filled.history
    *_, day = history.names
    chosen = random.choices(range(history.callers), k=steps)
    with _cpu(steps) as step:
        for number in chosen:
            await call(store, history.caller(number), day)
    told = {"step_seconds": sum(step), "server_seconds": step[1]}
    if books:
        days = random.choices(history.names, k=books)
        with _cpu(books) as book:
            for name in days:
                await store.day_book(name)
        told["book_seconds"] = sum(book)
    return told


@contextmanager
def _cpu(times: int) -> Iterator[list[float]]:
    """CPU seconds for each time, when the block has ended: of this program, of its children."""
    seconds: list[float] = []
    before = time.process_time(), _children()
    yield seconds
    after = time.process_time(), _children()
    seconds += [(end - start) / times for start, end in zip(before, after, strict=True)]


def _children() -> float:
    return sum(usage.cpu_seconds(child.pid) for child in psutil.Process().children())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], [int(size) for size in sys.argv[3:]]))
