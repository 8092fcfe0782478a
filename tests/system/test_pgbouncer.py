"""PostgreSQL behind a real pgbouncer, which gives each transaction whichever session is free."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from app.messages import Charge
from app.storage.base import BudgetState, RateLimit, Spent, Store
from sandbox.stores.postgres import temporary_server

from ..core.backends import Books, PostgresSchema
from ..core.stores.asking import (
    NOON,
    admitted,
    claim,
    refused,
    replayed,
    request,
    reservation,
    settlement,
    top_up,
)
from ..core.stores.conftest import PROCESSES, Processes
from ..core.stores.hammering import Wish, ask_at_once, run_in_turn
from ..core.stores.storming import Storm, storm
from ..rendering import kept_port
from .conftest import required, until

pytestmark = pytest.mark.promise("R7")

SESSIONS = 3
"""That the pooler has to the server: fewer than there are processes that use it."""
TODAY = "2100-01-01"


@dataclass(frozen=True, slots=True)
class Pooled:
    """A server, and the pooler in front of it."""

    server: str
    pooler: str

    def connect(self, service: str) -> PostgresSchema:
        return PostgresSchema(self.pooler, service)

    def books(self, service: str) -> Books:
        with psycopg.connect(self.server) as db:
            return self.connect(service).books(db)

    def ask_server(self, query: bytes) -> tuple[object, ...] | None:
        with psycopg.connect(self.server) as db:
            return db.execute(query).fetchone()


@pytest.fixture(scope="module")
def pooled() -> Iterator[Pooled]:
    """In transaction mode; the sessions take turns, so that none of a client's steps in a row has
    the same one, and no parameter at start is forgiven."""
    pgbouncer = required("pgbouncer")
    with (
        temporary_server() as server,
        tempfile.TemporaryDirectory(prefix="pgbouncer-") as name,
        kept_port() as port,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        address = urlsplit(server.url)
        users = folder / "users.txt"
        users.write_text(f'"{address.username}" "{address.password}"\n')
        config = folder / "pgbouncer.ini"
        config.write_text(
            f"""
            [databases]
            * = host={address.hostname} port={address.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {users}
            pool_mode = transaction
            default_pool_size = {SESSIONS}
            max_client_conn = 200
            server_round_robin = 1
            """
        )
        # It refuses to run as root.
        as_whom = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [pgbouncer, *as_whom, str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        netloc = f"{address.username}:{address.password}@127.0.0.1:{port}"
        pooler = address._replace(netloc=netloc).geturl()
        try:
            until(lambda: _answers(pooler), lambda: (folder / "log").read_text())
            yield Pooled(server.url, pooler)
        finally:
            process.terminate()
            process.wait(10)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def in_store(
    connect: Callable[[], Store], work: Callable[[Store], Coroutine[None, None, None]]
) -> None:
    async def run() -> None:
        store = connect()
        await store.open()
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_the_pooler_changes_sessions(pooled: Pooled) -> None:
    """What the other tests rest on: one client's transactions are those of several sessions."""
    with psycopg.connect(pooled.pooler, autocommit=True, prepare_threshold=None) as db:
        others = [psycopg.connect(pooled.pooler, prepare_threshold=None) for _ in range(SESSIONS)]
        for other in others:
            other.execute("SELECT 1")
        for other in others:
            other.commit()
        pids = {db.execute("SELECT pg_backend_pid()").fetchone() for _ in range(20)}
        for other in others:
            other.close()
    assert len(pids) > 1


def test_the_contract_holds_through_it(pooled: Pooled) -> None:
    """Rate limit, claim, budget, settlement, top-up, day book and summaries work as without it."""

    async def work(store: Store) -> None:
        rate = RateLimit(3, 10)
        first = request(rate=rate, claim=claim(), reserve=reservation(50, cap=100))
        assert (await admitted(store, first)).rate.remaining == 2
        assert (await refused(store, request(claim=claim()))).reason == "in_flight"
        assert (await refused(store, request(claim=claim(body="other")))).reason == "key_reused"
        assert (await admitted(store, first)).rate.remaining == 2
        assert await store.top_up(top_up(first, 50, cap=100))
        assert not await store.top_up(top_up(first, 1, cap=100))
        assert (await refused(store, request(reserve=reservation(1, cap=100)))).reason == "budget"
        assert (await store.day_book(TODAY)).reserved == (("ada", 100),)
        ended = settlement(first, 60, reply=b"reply", keep=True)
        assert await store.settle(ended, now=NOON) == BudgetState(TODAY, 60, 60, 60)
        assert await store.settle(ended, now=NOON) is None
        assert (await replayed(store, request(rate=rate, claim=claim()))).reply == b"reply"
        await admitted(store, request(rate=rate))
        assert (await refused(store, request(rate=rate), now=NOON + 9)).retry_after_seconds == 1
        book = await store.day_book(TODAY)
        assert book.spent == (Spent("ada", Charge("openai", "gpt-6-luna", 60, 1, 120, 60)),)
        await store.write_summary("one", "They spoke of rain.", 60, now=NOON)
        assert await store.read_summary(["one"], now=NOON) == (0, "They spoke of rain.")

    in_store(pooled.connect("the-contract"), work)
    assert pooled.books("the-contract").balanced


def test_many_steps_at_once_share_the_sessions(pooled: Pooled) -> None:
    """More steps than there are sessions all go through, and leave nothing in any of them."""

    async def work(store: Store) -> None:
        asked = [request(f"caller{n % 7}", reserve=reservation(1)) for n in range(300)]
        await asyncio.gather(*(admitted(store, one) for one in asked))
        await asyncio.gather(*(store.settle(settlement(one, 1), now=NOON) for one in asked))

    in_store(pooled.connect("at-once"), work)
    assert pooled.books("at-once").charged_nano_usd == 300
    left = b"""
        SELECT pg_backend_pid(),
            (SELECT count(*) FROM pg_prepared_statements),
            (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name LIKE '%timeout'),
            (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
    """
    with psycopg.connect(pooled.pooler, autocommit=True, prepare_threshold=None) as db:
        found = {db.execute(left).fetchone() for _ in range(20)}
    assert {row[1:] for row in found if row} == {(0, 0, 0)}


def test_processes_that_start_together_come_up(pooled: Pooled, processes: Processes) -> None:
    """Of eight that migrate at the same moment each comes up, through a few sessions that know
    what the database was like a moment ago."""
    for number in range(10):
        assert processes.open(pooled.connect(f"new-{number}")) == ["open"] * PROCESSES


def test_limits_are_exact_through_it(pooled: Pooled, processes: Processes) -> None:
    """In a race of eight processes a cap, a rate limit and a key let pass exactly what they may."""
    cap = Wish(requests=20, amount_nano_usd=10, cap_nano_usd=505)
    told = processes.count(ask_at_once, pooled.connect("a-cap"), cap)
    assert told == {"admitted": 50, "budget": 110}
    rate = Wish(requests=20, rate_limit=70)
    told = processes.count(ask_at_once, pooled.connect("a-rate"), rate)
    assert told == {"admitted": 70, "rate": 90}
    key = Wish(requests=8, amount_nano_usd=10, key="payment-1")
    told = processes.count(ask_at_once, pooled.connect("a-key"), key)
    assert told == {"admitted": 1, "in_flight": 63}
    turns = Wish(requests=20, amount_nano_usd=10)
    assert processes.count(run_in_turn, pooled.connect("turns"), turns) == {"admitted": 160}
    assert all(pooled.books(service).balanced for service in ("a-cap", "a-key", "turns"))


def test_a_storm_passes_through_it(pooled: Pooled, processes: Processes) -> None:
    """In a storm of all kinds of steps none fails or waits in a circle, and the books balance."""
    storms = [Storm(seed=1_000 * number) for number in range(PROCESSES)]
    told: Counter[str] = processes.each(storm, pooled.connect("a-storm"), storms)
    expected = {"admitted", "budget", "caller_budget", "in_flight", "rate", "replay", "given back"}
    assert set(told) <= expected, told
    books = pooled.books("a-storm")
    assert books.balanced
    assert books.open_operations == 0
    query = b"SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert pooled.ask_server(query) == (0,)
