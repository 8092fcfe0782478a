"""What only a file of SQLite's can go through."""

import asyncio
import sqlite3
import threading
import time
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from app import policy
from app.errors import StoreUnavailable
from app.storage.base import RateLimit, Store

from ..backends import SQLiteFile
from .asking import NOON, admitted, request, reservation, settlement

pytestmark = pytest.mark.anyio


async def opened(path: Path) -> Store:
    store = SQLiteFile(path)()
    await store.open()
    return store


async def test_who_waits_for_the_lock_comes_after_it(tmp_path: Path) -> None:
    """An admission is timed when it is decided, not when it began to wait for its turn."""
    path = tmp_path / "store.db"
    store = await opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.admit(request()))
        await asyncio.sleep(0.05)
        released_at = time.time()
        other.execute("COMMIT")
        await waiting
        ((decided_at,),) = other.execute("SELECT at FROM rate_event").fetchall()
    assert decided_at / 1e6 >= released_at
    await store.close()


async def test_a_locked_file_is_given_up_in_time(tmp_path: Path) -> None:
    """While another process holds the lock every step fails within 3 s, and recovers after."""
    path = tmp_path / "store.db"
    store = await opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        steps = [store.admit(request(reserve=reservation(1)), now=NOON) for _ in range(5)]
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        assert time.monotonic() - started < 3
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        other.execute("ROLLBACK")
    await admitted(store, request())
    await store.close()


async def test_a_busy_file_starves_nobody(tmp_path: Path) -> None:
    """Another process takes the lock again and again, and leaves it for 6 ms of each 130: whoever
    looks for it only now and then does not find it free within the limit."""
    path = tmp_path / "store.db"
    store = await opened(path)
    taken, over = threading.Event(), threading.Event()

    def keep_it_busy() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            while not over.is_set():
                with suppress(sqlite3.OperationalError):
                    other.execute("BEGIN IMMEDIATE")
                    taken.set()
                    over.wait(0.124)
                    taken.clear()
                    other.execute("COMMIT")
                    time.sleep(0.006)

    busy = asyncio.create_task(asyncio.to_thread(keep_it_busy))
    try:
        for _ in range(20):
            await asyncio.to_thread(taken.wait)
            await admitted(store, request())
    finally:
        over.set()
        await busy
        await store.close()


async def test_a_folder_is_made(tmp_path: Path) -> None:
    """The folder of the file need not be there."""
    store = await opened(tmp_path / "a" / "b" / "store.db")
    await store.ping()
    await store.close()


async def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    """A path that leads nowhere is the store's own kind of error, without the path's content."""
    (tmp_path / "file").write_text("no folder")
    store = SQLiteFile(tmp_path / "file" / "store.db")()
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()


async def test_who_is_gone_leaves_the_file_with_its_window(tmp_path: Path) -> None:
    """Callers who come once and never again are forgotten when their window is over, also where no
    model is called; nothing is left of them but what the last window holds."""
    path = tmp_path / "store.db"
    store = await opened(path)
    rate = RateLimit(5, 60.0)
    for second in range(600):
        await admitted(store, request(f"address:{second}", rate=rate), now=NOON + second)
    with closing(sqlite3.connect(path)) as db:
        for table in ("rate_count", "rate_event"):
            ((kept,),) = db.execute(f"SELECT count(*) FROM {table}").fetchall()
            assert kept <= 60 + policy.SWEEP_EVERY_STEPS, table
    await store.close()


async def test_a_day_that_is_over_goes_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many callers it had, no step forgets more of them than a batch; in the end all."""
    monkeypatch.setattr(policy, "SWEEP_EVERY_STEPS", 1)
    monkeypatch.setattr(policy, "SWEEP_BATCH", 10)
    path = tmp_path / "store.db"
    store = await opened(path)
    for number in range(100):
        first = request(f"caller{number}", reserve=reservation(5))
        await admitted(store, first)
        await store.settle(settlement(first, 5), now=NOON)
    later = NOON + (policy.LEDGER_DAYS + 2) * policy.DAY_SECONDS
    with closing(sqlite3.connect(path)) as db:
        kept = {"budget": [101], "spent": [100], "operation": [100]}
        for _ in range(11):
            await admitted(store, request("one who calls no model"), now=later)
            for table, counts in kept.items():
                counts += db.execute(f"SELECT count(*) FROM {table}").fetchone()
    for table, counts in kept.items():
        assert all(more - less <= 10 for more, less in pairwise(counts)), table
        assert counts[-1] == 0, table
    await store.close()


async def test_a_file_of_a_newer_service_is_refused(tmp_path: Path) -> None:
    """Rather than to misread it, the service does not start, and says both numbers."""
    path = tmp_path / "store.db"
    await (await opened(path)).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    store = SQLiteFile(path)()
    with pytest.raises(StoreUnavailable) as failure:
        await store.open()
    assert "schema 99" in failure.value.reason and "knows 1" in failure.value.reason
    await store.close()
