"""What only a PostgreSQL server can go through, and what a pooler in front of it asks for."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from types import NoneType
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr, ValidationError

from app import policy
from app.errors import StoreUnavailable
from app.storage.base import (
    Admitted,
    BudgetState,
    DayBook,
    RateLimit,
    Refused,
    Replay,
    Reservation,
    Store,
)
from app.storage.postgres import OPENED_AT_ONCE, Connections, PostgresSettings
from app.storage.postgres import Store as PostgresStore
from sandbox.stores.postgres import Server, temporary_server

from ...processes import family_of, is_running, standing_still
from ..backends import Backend, PostgresSchema
from ..waiting import until
from .asking import (
    NOON,
    admitted,
    claim,
    days_around,
    new_operation,
    refused,
    request,
    reservation,
    settlement,
    top_up,
)
from .conftest import PROCESSES, Processes
from .storming import Storm, storm

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R7", "A9")]

DAY_SECONDS = 86_400
SOON = 3.0
"""Seconds within which each step has ended, one way or the other."""


@pytest.fixture
def backend(postgres: Backend) -> Backend:
    return postgres


@pytest.fixture
def schema(postgres: Backend) -> PostgresSchema:
    assert isinstance(postgres.connect, PostgresSchema)
    return postgres.connect


@pytest.fixture
def db(schema: PostgresSchema) -> Iterator[psycopg.Connection]:
    """A superuser's connection past the port, which finds the service's tables by their names."""
    with psycopg.connect(schema.url, autocommit=True) as db:
        db.execute("SELECT set_config('search_path', quote_ident(%s), false)", [schema.service])
        yield db


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that nobody else uses, to be maltreated."""
    with temporary_server() as server:
        yield server


@asynccontextmanager
async def opened(connect: Callable[[], Store]) -> AsyncIterator[Store]:
    store = connect()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def unavailable(step: Awaitable[object]) -> StoreUnavailable:
    """What the step has failed with, soon."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as failure:
        await step
    assert time.monotonic() - started < SOON
    return failure.value


def connections_of(store: Store) -> list[psycopg.AsyncConnection[tuple[object, ...]]]:
    """Those that the store keeps for its next steps."""
    assert isinstance(store, PostgresStore)
    return store._connections._idle


# The schema


async def test_opening_again_changes_nothing(
    schema: PostgresSchema, db: psycopg.Connection
) -> None:
    """A store that is up to date is opened without a single write."""
    look = "SELECT array_agg((xmin, version, functions)::text) FROM installed"
    async with opened(schema):
        before = db.execute(look).fetchone()
    async with opened(schema):
        assert db.execute(look).fetchone() == before


async def test_a_newer_schema_is_refused(schema: PostgresSchema, db: psycopg.Connection) -> None:
    """A schema that a newer version has made is left alone, and the refusal says so."""
    async with opened(schema):
        db.execute("UPDATE installed SET version = 99, functions = 'of tomorrow'")
    store = schema()
    refusal = await unavailable(store.open())
    await store.close()
    assert "has version 99, made by a newer version" in refusal.reason
    assert not refusal.outcome_unknown
    assert db.execute("SELECT version, functions FROM installed").fetchall() == [
        (99, "of tomorrow")
    ]


async def test_other_functions_are_replaced(schema: PostgresSchema, db: psycopg.Connection) -> None:
    """Functions of another version of the service give way to this one's when it starts."""
    async with opened(schema):
        db.execute("UPDATE installed SET functions = 'of yesterday'")
        db.execute("CREATE OR REPLACE FUNCTION micros(_now bigint) RETURNS bigint RETURN 0")
    async with opened(schema) as store:
        asked = request(reserve=Reservation(1, 10, 10, days_around(time.time())))
        assert isinstance(await store.admit(asked), Admitted)
    assert db.execute("SELECT micros(NULL) > 0").fetchone() == (True,)


async def test_services_share_a_database(schema: PostgresSchema) -> None:
    """Each has limits, claims and a budget of its own, whatever its name needs of quotes."""
    other = PostgresSchema(schema.url, f"2-{schema.service}")
    one = RateLimit(1, 10)
    async with opened(schema) as store, opened(other) as neighbour:
        for each in (store, neighbour):
            await admitted(each, request(rate=one, claim=claim(), reserve=reservation(1, cap=1)))
        assert (await refused(neighbour, request(claim=claim()))).reason == "in_flight"
    with psycopg.connect(schema.url, autocommit=True) as db:
        db.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(other.service)))


async def test_a_role_that_may_not_create_is_told_the_remedy(server: Server) -> None:
    """Where a role may make no schema, the reason names the statement that lets it work."""
    url = urlsplit(server.url)._replace(
        netloc=f"app:canary@{urlsplit(server.url).netloc.split('@')[1]}"
    )
    connect = PostgresSchema(url.geturl(), "a-service")
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute("CREATE ROLE app LOGIN PASSWORD 'canary'")
        store = connect()
        refusal = await unavailable(store.open())
        remedy = 'CREATE SCHEMA "a-service" AUTHORIZATION "app"'
        assert remedy in refusal.reason
        db.execute(remedy.encode())
        await store.open()
        await admitted(store, request(claim=claim(), reserve=reservation(1)))
        await store.close()


async def test_a_lost_schema_is_made_anew(
    schema: PostgresSchema, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When somebody drops the schema, or only a part of it, the next step finds it whole again: of
    twenty at once, one makes it and the others wait for that one."""
    # How long that takes a machine that does other things as well is not what is asked here.
    monkeypatch.setattr(policy, "STORE_TIMEOUT_SECONDS", 10.0)
    made = 0
    migrate = PostgresStore._migrate

    async def counting(store: PostgresStore, connection: Any, *, anew: bool = False) -> None:
        nonlocal made
        made += anew
        await migrate(store, connection, anew=anew)

    monkeypatch.setattr(PostgresStore, "_migrate", counting)
    name = sql.Identifier(schema.service)
    async with opened(schema) as store:
        for loss in (
            sql.SQL("DROP SCHEMA {} CASCADE").format(name),
            sql.SQL("DROP TABLE {}.claim, {}.budget CASCADE").format(name, name),
            sql.SQL("DROP TABLE {}.spent CASCADE; DROP FUNCTION {}.take_place").format(name, name),
        ):
            db.execute(loss)
            made = 0
            asked = [request(claim=claim(f"key{n}"), reserve=reservation(1)) for n in range(20)]
            await asyncio.gather(*(admitted(store, one) for one in asked))
            assert made <= 1
            await asyncio.gather(*(store.settle(settlement(one, 1), now=NOON) for one in asked))
            assert (await store.day_book("2100-01-01")).reserved == ()


async def test_a_lost_database_is_filled_anew(server: Server) -> None:
    """A database that was dropped is missed at once, and used again as soon as it is there."""
    url = urlsplit(server.url)._replace(path="/service").geturl()
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute("CREATE DATABASE service")
        async with opened(PostgresSchema(url, "a-service")) as store:
            await admitted(store, request())
            db.execute("DROP DATABASE service WITH (FORCE)")
            failure = await unavailable(store.admit(request()))
            assert "does not exist" in failure.reason
            assert not failure.outcome_unknown
            db.execute("CREATE DATABASE service")
            await admitted(store, request(claim=claim(), reserve=reservation(1)))


# Transactions


def test_nothing_waits_in_a_circle(schema: PostgresSchema, processes: Processes) -> None:
    """In a storm of admissions, settlements, top-ups and sweeps from eight processes no step fails,
    the server sees no deadlock, and in the end the books balance."""
    storms = [Storm(seed=100 * number) for number in range(PROCESSES)]
    outcomes = processes.each(storm, schema, storms)
    expected = {"admitted", "budget", "caller_budget", "in_flight", "rate", "replay", "given back"}
    assert set(outcomes) <= expected, outcomes
    assert {"admitted", "budget", "caller_budget", "in_flight"} <= set(outcomes)
    with psycopg.connect(schema.url) as db:
        books = schema.books(db)
        deadlocks = db.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert deadlocks == (0,)
    assert books.balanced
    assert books.open_operations == 0
    assert all(reserved == 0 for _, reserved in books.counter.values())


async def test_an_early_settlement_meets_its_admission(backend: Backend) -> None:
    """Settled at the very moment at which it is admitted, an operation keeps nothing."""
    async with opened(backend.connect) as store:
        for number in range(60):
            asked = request(
                claim=claim(f"key{number}"), reserve=reservation(10, cap=10), rate=RateLimit(60, 10)
            )
            steps = [store.admit(asked, now=NOON), store.settle(settlement(asked), now=NOON)]
            await asyncio.gather(*(steps if number % 2 else reversed(steps)))
        books = backend.books()
        assert (books.open_operations, books.running_claims, books.charged_nano_usd) == (0, 0, 0)
        assert books.balanced
        await admitted(store, request(reserve=reservation(10, cap=10)))


async def test_the_servers_clock_rules(
    backend: Backend, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a host's own clock says, time is the server's."""
    async with opened(backend.connect) as store:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        before = datetime.now(UTC).timestamp()
        days = days_around(before)
        decision = await store.admit(request(reserve=Reservation(1, 10, 10, days)))
        after = datetime.now(UTC).timestamp()
    assert isinstance(decision, Admitted) and decision.budget is not None
    assert decision.budget.day in (days[1].name, days[2].name)
    ((at,),) = db.execute("SELECT at FROM rate_event").fetchall()
    assert before - 0.001 <= at / 1e6 <= after + 0.001


@contextmanager
def lock_held(db: psycopg.Connection, caller: str) -> Iterator[None]:
    """Somebody else is at work on the caller's rows."""
    db.execute("SELECT pg_advisory_lock(lock_of('caller', %s))", [caller])
    try:
        yield
    finally:
        db.execute("SELECT pg_advisory_unlock_all()")


async def test_who_waits_for_the_lock_comes_after_it(
    backend: Backend, db: psycopg.Connection
) -> None:
    """An admission is timed when it is decided, not when it began to wait for its turn."""
    async with opened(backend.connect) as store:
        with lock_held(db, "ada"):
            waiting = asyncio.create_task(store.admit(request("ada")))
            await asyncio.sleep(0.1)
            released_at = db.execute("SELECT micros(NULL)").fetchone()
        await waiting
    ((decided_at,),) = db.execute("SELECT at FROM rate_event").fetchall()
    assert released_at is not None
    assert decided_at >= released_at[0]


async def test_a_lock_is_given_up_in_time(backend: Backend, db: psycopg.Connection) -> None:
    """Who waits for a lock too long is told that nothing has happened; others are not held up."""
    async with opened(backend.connect) as store:
        asked = request("ada", claim=claim(), reserve=reservation(1))
        with lock_held(db, "ada"):
            step = asyncio.create_task(unavailable(store.admit(asked, now=NOON)))
            await admitted(store, request("grace"))
            failure = await step
        assert not failure.outcome_unknown
        assert "lock timeout" in failure.reason
        assert backend.books().counter == {}
        await admitted(store, asked)


async def test_a_stricter_isolation_is_refused(server: Server) -> None:
    """Where transactions would not see what others have just done, the reason says what to set."""
    async with opened(PostgresSchema(server.url, "a-service")) as store:
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute(
                "ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'"
            )
            await store.close()
            failure = await unavailable(PostgresSchema(server.url, "a-service")().admit(request()))
    assert "default_transaction_isolation of this role or database is repeatable read" in (
        failure.reason
    )


async def test_sweeps_wait_for_nobody(
    schema: PostgresSchema, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has expired goes, but for what somebody is at work on; that goes the next time."""
    monkeypatch.setattr(policy, "SWEEP_EVERY_STEPS", 1)
    later = NOON + 40 * DAY_SECONDS

    def callers(table: str) -> set[object]:
        column = {"claim": "key", "summary": "key"}.get(table, "caller")
        names = (sql.Identifier(name) for name in (column, table))
        return {name for (name,) in db.execute(sql.SQL("SELECT {} FROM {}").format(*names))}

    def all_callers() -> dict[str, set[object]]:
        tables = ("rate_count", "rate_event", "claim", "summary", "operation", "budget", "spent")
        return {table: callers(table) - {"late", ""} for table in tables}

    async with opened(schema) as store:
        for caller in ("ada", "grace", "alan"):
            asked = request(caller, claim=claim(caller), reserve=reservation(1))
            await admitted(store, asked)
            await store.settle(settlement(asked, 1, reply=b"reply", keep=True), now=NOON)
            await store.write_summary(caller, "text", 10, now=NOON)
        with psycopg.connect(schema.url) as other, lock_held(db, "ada"):
            key = sql.Identifier(schema.service, "claim")
            other.execute(sql.SQL("SELECT FROM {} WHERE key = 'ada' FOR UPDATE").format(key))
            await steps_until(
                store,
                later,
                lambda: all_callers()["claim"] | all_callers()["rate_count"] == {"ada"},
            )
            assert all_callers() == {
                **{table: {"ada"} for table in ("rate_count", "rate_event", "claim")},
                **{table: set() for table in ("summary", "operation", "budget", "spent")},
            }
        await steps_until(store, later, lambda: not any(all_callers().values()))
        assert db.execute("SELECT count(*) FROM budget").fetchone() == (0,)


async def steps_until(store: Store, now: float, condition: Callable[[], bool]) -> None:
    """Takes steps, after each of which something is swept, until it has come to that."""
    for _ in range(200):
        await admitted(store, request("late"), now=now)
        if condition():
            return
    raise AssertionError("it was not swept")


# The session


async def test_nothing_is_left_in_the_session(schema: PostgresSchema) -> None:
    """After all kinds of steps the session has no prepared statement, setting, lock or table."""
    remains = """
        SELECT
            (SELECT count(*) FROM pg_prepared_statements),
            (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
            (SELECT count(*) FROM pg_cursors),
            (SELECT count(*) FROM pg_listening_channels()),
            (SELECT count(*) FROM pg_class WHERE relpersistence = 't'),
            (SELECT array_agg(name ORDER BY name) FROM pg_settings WHERE source = 'session')
    """
    async with opened(schema) as store:
        await all_kinds_of_steps(store)
        (connection,) = connections_of(store)
        left = await (await connection.execute(remains)).fetchone()
    # What the driver says when it connects, and poolers keep for it.
    assert left == (0, 0, 0, 0, 0, None)


async def test_sessions_may_change_between_steps(schema: PostgresSchema) -> None:
    """Each step works in a session that knows nothing of the one before."""
    async with opened(schema) as store:
        for _ in range(3):
            await all_kinds_of_steps(store, forget=lambda: forget_session(store))


async def forget_session(store: Store) -> None:
    for connection in connections_of(store):
        await connection.execute("DISCARD ALL")


async def all_kinds_of_steps(
    store: Store, *, forget: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Each operation of the port, in a sequence in which each depends on what came before."""
    key = new_operation()
    first = request(claim=claim(key), reserve=reservation(10))
    last = request(claim=claim(key), reserve=reservation(10))
    decisions: list[object] = []
    steps: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: store.admit(first, now=NOON),
        lambda: store.admit(request(claim=claim(key)), now=NOON),
        lambda: store.top_up(top_up(first, 10)),
        lambda: store.settle(settlement(first, 15, reply=b"reply", keep=True), now=NOON),
        lambda: store.admit(last, now=NOON),
        lambda: store.write_summary(key, "text", 60, now=NOON),
        lambda: store.read_summary([key], now=NOON),
        lambda: store.day_book("2100-01-01"),
        store.ping,
    )
    for step in steps:
        decisions.append(await step())
        if forget is not None:
            await forget()
    kinds = [type(decision) for decision in decisions]
    assert kinds == [
        *(Admitted, Refused, bool, BudgetState, Replay),
        *(NoneType, tuple, DayBook, NoneType),
    ]
    assert decisions[2] is True


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "mysql://canary:canary@canary/canary",
        "http://canary",
        "postgresql://canary:can%ary@host/db",
        "postgresql://canary:canary@host/db?canary=canary",
        "postgresql://canary:canary@[::1/db",
        "postgresql://canary:canary@host:canary:port/db",
    ],
)
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    """An address that cannot be used is refused without a word of it."""
    with pytest.raises(ValidationError) as refusal:
        PostgresSettings(database_url=SecretStr(url))
    assert "canary" not in str(refusal.value)
    ((message,),) = [(error["msg"],) for error in refusal.value.errors(include_input=False)]
    assert "canary" not in message
    assert "URL" in message or "postgresql://" in message


@pytest.mark.parametrize(
    ("url", "is_fit"),
    [
        ("postgresql://me:secret@db.example.com/name?sslmode=verify-full", True),
        ("postgres://db.example.com", True),
        ("postgresql://me@10.0.0.7:6432,10.0.0.8/name?target_session_attrs=read-write", True),
        ("postgresql://localhost.example.com/name", True),
        ("postgresql:///name?host=/cloudsql/project:region:instance", True),
        ("postgresql://localhost/name", False),
        ("postgresql://db.localhost/name", False),
        ("postgresql://127.0.0.1:5432/name", False),
        ("postgresql://[::1]/name", False),
        ("postgresql://0.0.0.0/name", False),
        ("postgresql://db.example.com,127.0.0.2/name", False),
        ("postgresql://db.example.com/name?hostaddr=127.0.0.1", False),
        ("postgresql:///name", False),
    ],
)
def test_production_has_its_database_elsewhere(url: str, is_fit: bool) -> None:
    """In production an address must name a host, and not this machine."""
    settings = PostgresSettings(database_url=SecretStr(url))
    assert ("DATABASE_URL" in settings.production_problems()) is not is_fit
    assert "secret" not in repr(settings)


async def test_no_error_repeats_the_password(server: Server) -> None:
    """Whatever keeps a store from its server, the password is in no part of the error."""
    address = urlsplit(server.url).netloc.partition("@")[2]
    for url in (
        f"postgresql://postgres:can%61ry@{address}/postgres",
        f"postgresql://somebody:canary@{address}/postgres",
        f"{server.url.rpartition('/')[0]}/missing",
        "postgresql://postgres:canary@127.0.0.1:1/postgres",
    ):
        store = PostgresSchema(url, "a-service")()
        failure = await unavailable(store.open())
        await store.close()
        told = [*traceback.format_exception(failure), failure.reason, repr(failure.__cause__)]
        secrets = PostgresSettings(database_url=SecretStr(url)).secrets()
        assert [secret for secret in secrets if secret in "".join(told)] == []
        assert failure.reason and "\n" not in failure.reason


# The server in trouble


async def test_a_refused_connection_is_no_riddle(server: Server) -> None:
    """While nobody listens each step fails at once, and has certainly not been carried out."""
    async with opened(PostgresSchema(server.url, "a-service")) as store:
        server.stop()
        for _ in range(3):
            failure = await unavailable(store.admit(request(reserve=reservation(1)), now=NOON))
            assert not failure.outcome_unknown
            assert "refused" in failure.reason


async def test_a_server_that_is_killed_comes_back(server: Server) -> None:
    """After a crash and a restart the very next step is carried out, on a new connection."""
    connect = PostgresSchema(server.url, "a-service")
    async with opened(connect) as store:
        asked = [request(reserve=reservation(1)) for _ in range(20)]
        await asyncio.gather(*(admitted(store, one) for one in asked))
        kill(server)
        assert not (await unavailable(store.ping())).outcome_unknown
        server.start()
        await asyncio.gather(*(store.settle(settlement(one, 1), now=NOON) for one in asked))
        with psycopg.connect(server.url) as db:
            books = connect.books(db)
    assert books.balanced
    assert (books.open_operations, books.charged_nano_usd) == (0, 20)


async def test_a_crash_in_the_middle_is_a_riddle(server: Server) -> None:
    """A step under way when the server dies may have been carried out; what is settled once the
    server is back is charged once."""
    connect = PostgresSchema(server.url, "a-service")
    async with opened(connect) as store:
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("SELECT set_config('search_path', quote_ident('a-service'), false)")
            db.execute("SELECT pg_advisory_lock(lock_of('caller', 'ada'))")
            asked = request("ada", reserve=reservation(1))
            step = asyncio.create_task(unavailable(store.admit(asked, now=NOON)))
            await until(lambda: waits_for_a_lock(db))
            kill(server)
        assert (await step).outcome_unknown
        server.start()
        assert await store.settle(settlement(asked), now=NOON) is None
        await admitted(store, asked)
        with psycopg.connect(server.url) as db:
            assert connect.books(db).open_operations == 0


async def test_a_server_that_hangs_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is stopped each step fails in time: those that were sent may yet be carried
    out, those that got no connection will not. When it goes on, so does the store."""
    connect = PostgresSchema(server.url, "a-service")
    async with opened(connect) as store:
        asked = [request(f"caller{n}", reserve=reservation(1)) for n in range(30)]
        await asyncio.gather(*(admitted(store, one) for one in asked))
        assert isinstance(store, PostgresStore)
        await asyncio.gather(*store._connections._opening)
        sent = len(connections_of(store))
        assert 0 < sent <= policy.STORE_DATABASE_CONNECTIONS
        with stopped(server), monkeypatch.context() as impatient:
            impatient.setattr(policy, "STORE_TIMEOUT_SECONDS", 0.5)
            more = [request(f"caller{n}", reserve=reservation(1)) for n in range(30)]
            failures = await asyncio.gather(
                *(unavailable(store.admit(one, now=NOON)) for one in more)
            )
            unknown = [failure.outcome_unknown for failure in failures]
            assert sorted(unknown) == [False] * (30 - sent) + [True] * sent
            assert {failure.reason for failure in failures} == {
                "no answer in 0.5 s",
                "no connection in 0.5 s",
            }
            # And again, now without any connection from before.
            failures = await asyncio.gather(*(unavailable(store.ping()) for _ in range(10)))
            assert not any(failure.outcome_unknown for failure in failures)
        for one, failed in zip(more, unknown, strict=True):
            if failed:
                await store.settle(settlement(one), now=NOON)
        await asyncio.gather(*(store.settle(settlement(one, 1), now=NOON) for one in asked))
        with psycopg.connect(server.url) as db:
            books = connect.books(db)
    assert books.balanced
    assert (books.open_operations, books.charged_nano_usd) == (0, 30)


async def test_a_burst_after_a_start_waits_for_few_connections(
    schema: PostgresSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are opened at a time, and who waits for one takes one that is given back: with only a
    single one that comes to be, all are served."""
    monkeypatch.setattr(policy, "STORE_TIMEOUT_SECONDS", 20.0)
    connect = psycopg.AsyncConnection.connect
    begun = 0

    async def slow(*arguments: Any, **options: Any) -> object:
        nonlocal begun
        begun += 1
        if begun > 1:
            await asyncio.sleep(60)
        return await connect(*arguments, **options)

    async with opened(schema) as store:
        await store.close()
        monkeypatch.setattr(psycopg.AsyncConnection, "connect", slow)
        late = schema()
        asked = [request(f"caller{number}", reserve=reservation(1)) for number in range(24)]
        await asyncio.gather(*(admitted(late, one) for one in asked))
        assert begun == 1 + OPENED_AT_ONCE
        await late.close()


async def test_who_leaves_while_it_waits_takes_no_connection_along(
    schema: PostgresSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is ready at the moment at which its caller goes is the next one's."""
    connections = Connections(schema.url)
    first, second = (asyncio.create_task(connections.take(5)) for _ in range(2))
    connection = await first
    await connections.give_back(await second)
    other = await connections.take(5)
    monkeypatch.setattr(psycopg.AsyncConnection, "connect", _never)
    leaving, staying = (asyncio.create_task(connections.take(5)) for _ in range(2))
    await asyncio.sleep(0)
    await connections.give_back(connection)
    leaving.cancel()
    assert await staying is connection
    assert leaving.cancelled()
    for one in (connection, other):
        await connections.give_back(one)
    await connections.close()
    assert connection.closed
    assert other.closed


async def _never(*_arguments: Any, **_options: Any) -> object:
    return await asyncio.Event().wait()


async def test_a_full_server_is_named(server: Server) -> None:
    """When the server has no connection left, that is the reason, and nothing has been done. With
    one left, those are served that it comes to."""
    connect = PostgresSchema(server.url, "a-service")
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute("ALTER SYSTEM SET max_connections = 5")
        db.execute("ALTER SYSTEM SET superuser_reserved_connections = 0")
    server.stop()
    server.start()
    async with opened(connect) as store:
        await store.close()
        others = [psycopg.connect(server.url) for _ in range(5)]
        late = connect()
        failures = [await unavailable(late.admit(request(), now=NOON))]
        others.pop().close()
        # As many at once as there may be connections, and room for a single one.
        at_once = [late.admit(request(f"caller{n}")) for n in range(8)]
        outcomes = await asyncio.gather(*at_once, return_exceptions=True)
        failures += [one for one in outcomes if isinstance(one, StoreUnavailable)]
        for other in others:
            other.close()
    assert any(isinstance(one, Admitted) for one in outcomes), outcomes
    assert all("too many clients" in failure.reason for failure in failures)
    assert not any(failure.outcome_unknown for failure in failures)
    await until_admitted(late)
    await late.close()


async def test_a_slow_start_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing ends the start in time."""
    monkeypatch.setattr(policy, "STORE_OPEN_TIMEOUT_SECONDS", 0.5)
    store = PostgresSchema(server.url, "a-service")()
    with stopped(server):
        failure = await unavailable(store.open())
    assert failure.reason == "no connection in 0.5 s"
    assert not failure.outcome_unknown
    await store.close()


async def test_who_is_cancelled_leaves_no_trace(backend: Backend, db: psycopg.Connection) -> None:
    """However many steps are cancelled, at whatever moment, the connections stay fit for others."""
    async with opened(backend.connect) as store:
        asked = [request(f"caller{n % 3}", reserve=reservation(1)) for n in range(100)]
        for number, one in enumerate(asked):
            step = asyncio.create_task(store.admit(one, now=NOON))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            await asyncio.sleep(number % 5 / 2_000)
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
        await asyncio.gather(*(store.settle(settlement(one), now=NOON) for one in asked))
        for one in asked[:10]:
            assert (await admitted(store, one)).rate.limit == one.rate_limit.requests
        books = backend.books()
        assert books.balanced
        assert (books.open_operations, books.charged_nano_usd) == (0, 0)
        assert 0 < len(connections_of(store)) <= policy.STORE_DATABASE_CONNECTIONS
        busy = db.execute(
            "SELECT FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()"
            " AND datname = current_database()"
        )
        assert busy.rowcount == 0


async def test_a_closed_store_keeps_no_connection(schema: PostgresSchema) -> None:
    """Closing waits for what is under way, and hangs up."""
    store = schema()
    await store.open()
    steps = [asyncio.create_task(store.ping()) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*steps)
    assert connections_of(store) == []


def kill(server: Server) -> None:
    """As the kernel does when memory is out; whoever served a connection ends soon after."""
    first, *others = processes_of(server)
    first.kill()
    server.stop()
    deadline = time.monotonic() + 10
    while any(map(is_running, others)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stopped(server: Server) -> AbstractContextManager[None]:
    """All processes of the server stand still, and its port goes on accepting."""
    return standing_still(processes_of(server))


def processes_of(server: Server) -> list[psutil.Process]:
    """The first one leads."""
    assert server.pid is not None
    return family_of(server.pid)


def waits_for_a_lock(db: psycopg.Connection) -> bool:
    return db.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'").rowcount == 1


async def until_admitted(store: Store) -> None:
    """The server may take a moment to notice that others have gone."""
    for _ in range(100):
        with suppress(StoreUnavailable):
            await admitted(store, request())
            return
        await asyncio.sleep(0.02)
    await admitted(store, request())
