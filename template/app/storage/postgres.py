"""A schema of its own in a PostgreSQL database: exact across hosts.

Each step is one statement, a transaction of its own that leaves nothing in the session, so that a
transaction-pooling pgbouncer may stand in between. What a step does stands in `postgres.sql`; here
are the connections, the migrations, and the translation of what the driver says.
"""

import asyncio
import hashlib
import logging
import re
import select
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Annotated, Any, ClassVar, Final, LiteralString, TypeVar, cast

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, SecretStr

from .. import policy
from ..addresses import is_loopback
from ..errors import StoreUnavailable
from ..messages import Charge
from .base import (
    AdmissionRequest,
    Admitted,
    BudgetState,
    DayBook,
    Decision,
    RateState,
    Refused,
    Replay,
    Settlement,
    Spent,
    StoreSettings,
    TopUp,
)

T = TypeVar("T")
Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Work = Callable[[Connection], Awaitable[T]]

SCHEMA_IS_GONE: Final = (
    errors.InvalidSchemaName,
    errors.UndefinedTable,
    errors.UndefinedFunction,
    errors.UndefinedObject,
)
CANCEL_SECONDS: Final = 0.5
"""What a server that is too slow has to end a statement, before its connection is cut."""
OPENED_AT_ONCE: Final = 2
"""A new connection costs the server ten times what a step does. While these are opened, whoever
waits may get one that is given back first."""


def _check_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql:// (or postgres://)")
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # What the driver says of it may hold the whole URL.
        raise ValueError(
            "is no URL of libpq's: percent-encode what is special in the password, and remove"
            " parameters that other clients have added"
        ) from None
    if re.fullmatch(r"[\d,]*", str(given.get("port") or "")) is None:
        raise ValueError("is no URL: its port is no number")
    return value


class PostgresSettings(StoreSettings):
    database_url: Annotated[SecretStr, AfterValidator(_check_url)] = Field(
        description="The database: `postgresql://user:password@host:5432/name?sslmode=verify-full`"
    )

    def production_problems(self) -> dict[str, str]:
        given = conninfo_to_dict(self.database_url.get_secret_value())
        hosts = f"{given.get('host') or ''},{given.get('hostaddr') or ''}".strip(",").split(",")
        # None is this machine's too; a socket's path may be that of a cloud's proxy.
        if any(not host or is_loopback(host) for host in hosts):
            return {"DATABASE_URL": "must name the host of the database in production"}
        return {}

    def secrets(self) -> tuple[str, ...]:
        url = self.database_url.get_secret_value()
        given = conninfo_to_dict(url)
        passwords = (given.get("password"), given.get("sslpassword"))
        return url, *(str(password) for password in passwords if password)


@dataclass(slots=True)
class Step:
    """One use of a connection. `sent`: the server may have begun with it."""

    sent: bool = False


class Connections:
    """Those to one server, and who waits for one: the first comes first.

    How many are lent at a time is the store's affair; more than that there never are.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def take(self, seconds: float) -> Connection:
        """The one that was used last, or whichever is ready first, given back or opened within
        `seconds`. Raises what the driver did."""
        while self._idle:
            connection = self._idle.pop()
            if _is_quiet(connection):
                return connection
            await connection.close()
        place: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._open_more(seconds)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                await self.give_back(place.result())
            raise

    async def give_back(self, connection: Connection) -> None:
        if (place := self._next_place()) is not None:
            place.set_result(connection)
        elif self._is_closed:
            await connection.close()
        else:
            self._idle.append(connection)

    async def hang_up(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        self._is_closed = True
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await self.hang_up()

    def _next_place(self) -> asyncio.Future[Connection] | None:
        while self._waiting:
            if not (place := self._waiting.popleft()).done():
                return place
        return None

    def _open_more(self, seconds: float) -> None:
        waiting = sum(not place.done() for place in self._waiting)
        while len(self._opening) < min(waiting, OPENED_AT_ONCE):
            task = asyncio.create_task(self._open(seconds))
            self._opening.add(task)
            task.add_done_callback(partial(self._opened, seconds=seconds))

    def _opened(self, task: asyncio.Task[None], *, seconds: float) -> None:
        self._opening.discard(task)
        if not self._is_closed:
            self._open_more(seconds)

    async def _open(self, seconds: float) -> None:
        limit = asyncio.timeout(seconds)
        try:
            # Who waits for longer gets another attempt.
            async with limit:
                connection = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    client_encoding="UTF8",
                    # A pooler gives each transaction another session, which knows no prepared
                    # statement.
                    prepare_threshold=None,
                )
        except Exception as error:
            # The others have an attempt of their own, unless one is given back first.
            if not limit.expired() and (place := self._next_place()) is not None:
                place.set_exception(error)
        else:
            await self.give_back(connection)


class Store:
    name: ClassVar[str] = "postgres"
    settings_type: ClassVar[type[StoreSettings]] = PostgresSettings
    shared_between_processes: ClassVar[bool] = True

    def __init__(self, settings: StoreSettings, service: str) -> None:
        assert isinstance(settings, PostgresSettings)
        self._url = settings.database_url.get_secret_value()
        self._role = conninfo_to_dict(self._url).get("user") or "<this role>"
        self._secrets = settings.secrets()
        self._schema = service
        self._sql = _read_statements(service)
        self._migrations = _read_migrations()
        functions = self._sql["functions"]
        self._installed = (len(self._migrations), hashlib.sha256(functions).hexdigest())
        self._places = asyncio.Semaphore(policy.STORE_DATABASE_CONNECTIONS)
        self._connections = Connections(self._url)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._steps = 0
        self._mending = asyncio.Lock()
        self._made_anew = 0

    async def open(self) -> None:
        # What it warns of while it cleans up, the error has said.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        await self._run(self._migrate, policy.STORE_OPEN_TIMEOUT_SECONDS)

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        limit, claim, reservation = request.rate_limit, request.claim, request.reservation
        row = await self._ask(
            "admit",
            operation_id=request.operation_id,
            caller=request.caller,
            limit=limit.requests,
            window=_span(limit.window_seconds),
            claim_key=claim.key if claim else None,
            fingerprint=claim.fingerprint if claim else None,
            lease=_span(claim.lease_seconds) if claim else None,
            takes_over=claim.takes_over if claim else False,
            amount=reservation.amount_nano_usd if reservation else None,
            cap=reservation.limit_nano_usd if reservation else None,
            caller_cap=reservation.caller_limit_nano_usd if reservation else None,
            day_names=_array(day.name for day in reservation.days) if reservation else None,
            day_ends=_array(_span(day.ends_at) for day in reservation.days)
            if reservation
            else None,
            now=_micros(now),
            wait_ms=_wait_ms(),
        )
        self._sweep_in_turn(now)
        assert row is not None
        decision, remaining, reset_in, retry_in, reply, *budget = row
        rate = RateState(limit.requests, remaining, reset_in / 1e6, limit.window_seconds)
        match decision:
            case "admitted":
                return Admitted(rate, _budget_state(budget))
            case "replay":
                return Replay(rate, reply)
            case _:
                return Refused(decision, rate, (retry_in or 0) / 1e6, _budget_state(budget))

    async def top_up(self, request: TopUp) -> bool:
        row = await self._ask(
            "top_up",
            operation_id=request.operation_id,
            amount=request.amount_nano_usd,
            cap=request.limit_nano_usd,
            caller_cap=request.caller_limit_nano_usd,
            wait_ms=_wait_ms(),
        )
        return row == (True,)

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        charges = settlement.charges
        row = await self._ask(
            "settle",
            operation_id=settlement.operation_id,
            caller=settlement.caller,
            providers=_array(charge.provider for charge in charges),
            models=_array(charge.model for charge in charges),
            calls=_array(charge.calls for charge in charges),
            input_tokens=_array(charge.input_tokens for charge in charges),
            output_tokens=_array(charge.output_tokens for charge in charges),
            costs=_array(charge.cost_nano_usd for charge in charges),
            claim_key=settlement.claim_key,
            done=settlement.claim == "done",
            reply=settlement.reply,
            reply_ttl=_span(settlement.reply_ttl_seconds),
            now=_micros(now),
            wait_ms=_wait_ms(),
        )
        self._sweep_in_turn(now)
        assert row is not None
        return _budget_state(row)

    async def day_book(self, day: str) -> DayBook:
        async def read(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(self._sql["day_book"], {"day": day})).fetchall()

        rows = await self._run(read)
        return DayBook(
            day,
            tuple(
                Spent(caller, Charge(*charge))
                for caller, *charge, reserved in rows
                if reserved is None
            ),
            tuple((caller, held) for caller, *_, held in rows if held is not None),
        )

    async def read_summary(
        self, keys: Sequence[str], *, now: float | None = None
    ) -> tuple[int, str] | None:
        row = await self._ask("find_summary", keys=_array(keys), now=_micros(now))
        return None if row is None else (int(row[0]), bytes(row[1]).decode())

    async def write_summary(
        self, key: str, text: str, ttl_seconds: float, *, now: float | None = None
    ) -> None:
        values = {"key": key, "content": text.encode(), "ttl": _span(ttl_seconds)}
        await self._run(
            lambda db: db.execute(self._sql["put_summary"], values | {"now": _micros(now)})
        )

    async def ping(self) -> None:
        await self._ask("ping")

    async def close(self) -> None:
        waited_for = {*self._under_way, *([self._sweeping] if self._sweeping else [])}
        if waited_for:
            await asyncio.wait(waited_for)
        await self._connections.close()

    # Steps

    async def _ask(self, statement: str, **values: object) -> tuple[Any, ...] | None:
        """The one row that a statement comes to, if any."""

        async def ask(connection: Connection) -> tuple[Any, ...] | None:
            return await (await connection.execute(self._sql[statement], values)).fetchone()

        return await self._run(ask)

    async def _run(self, work: Work[T], seconds: float | None = None) -> T:
        """Does `work` on a connection, for at most `seconds` (`STORE_TIMEOUT_SECONDS`).

        Who is cancelled meanwhile leaves; the step goes on to its end, so that its connection is
        not left in the middle of a statement.
        """
        seconds = seconds or policy.STORE_TIMEOUT_SECONDS
        step = Step()
        task = asyncio.create_task(self._take(step, work, seconds))
        self._under_way.add(task)
        task.add_done_callback(self._forget)
        await asyncio.wait({task}, timeout=seconds)
        if task.done() and not task.cancelled():
            return task.result()
        error = TimeoutError(
            f"no answer in {seconds:g} s" if step.sent else f"no connection in {seconds:g} s"
        )
        raise self._unavailable(error, outcome_unknown=step.sent) from error

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Nobody is left to hear of it if the caller has gone.
            task.exception()

    async def _take(self, step: Step, work: Work[T], seconds: float) -> T:
        """The step itself. Too late, it is cancelled: then the driver asks the server to stop. The
        second time it no longer waits for that."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        timers = [
            loop.call_later(wait, task.cancel) for wait in (seconds, seconds + CANCEL_SECONDS)
        ]
        try:
            async with self._places:
                return await self._use_connection(step, work, seconds)
        finally:
            for timer in timers:
                timer.cancel()

    async def _use_connection(self, step: Step, work: Work[T], seconds: float) -> T:
        try:
            connection = await self._connections.take(seconds)
        except (psycopg.Error, OSError) as error:
            raise self._unavailable(error, outcome_unknown=False) from error
        try:
            step.sent = True
            result = await self._with_schema(connection, work)
        except psycopg.Error as error:
            # The server has said no, unless it has gone.
            is_lost = connection.closed
            await connection.close()
            if is_lost:
                await self._connections.hang_up()
            raise self._unavailable(error, outcome_unknown=is_lost) from error
        except BaseException:
            await connection.close()
            # What one of them has met, all others will.
            await self._connections.hang_up()
            raise
        await self._connections.give_back(connection)
        return result

    # The schema

    async def _with_schema(self, connection: Connection, work: Work[T]) -> T:
        """Does `work`, making the schema anew if the database has lost it."""
        for anew in (False, True):
            made_before = self._made_anew
            try:
                return await work(connection)
            except SCHEMA_IS_GONE:
                # All that are under way meet the loss at once; one of them mends it for all.
                async with self._mending:
                    if anew and self._made_anew != made_before:
                        continue
                    await self._migrate(connection, anew=anew)
                    self._made_anew += anew
        return await work(connection)

    async def _migrate(self, connection: Connection, *, anew: bool = False) -> None:
        """Brings the schema up to the newest of the numbered migrations, with its functions.

        `anew` makes whatever is missing, although it is on record.
        """
        with suppress(*SCHEMA_IS_GONE):
            if await self._find_installed(connection) == self._installed and not anew:
                return
        name = {"name": self._schema}
        async with connection.transaction():
            wait_ms = str(round(policy.STORE_OPEN_TIMEOUT_SECONDS * 1_000))
            await connection.execute(self._sql["lock_schema"], name | {"wait_ms": wait_ms})
            found = await (await connection.execute(self._sql["find_schema"], name)).fetchone()
            assert found is not None
            has_schema, has_record = found
            record = await self._find_installed(connection) if has_record else None
            if record == self._installed and not anew:
                return
            if not has_schema:
                await connection.execute(self._sql["create_schema"])
            await connection.execute(self._sql["enter_schema"], name)
            done = record[0] if record and not anew else 0
            for migration in self._migrations[done:]:
                await connection.execute(migration)
            await connection.execute(self._sql["functions"])
            version, functions = self._installed
            await connection.execute(
                self._sql["put_installed"], {"version": version, "functions": functions}
            )

    async def _find_installed(self, connection: Connection) -> tuple[int, str] | None:
        """The latest migration and the functions that are on record.

        Raises `DatabaseError` when they are those of a newer version of the service.
        """
        row = await (await connection.execute(self._sql["find_installed"])).fetchone()
        if row is None:
            return None
        version, functions = row
        if version > len(self._migrations):
            raise psycopg.DatabaseError(
                f'the schema "{self._schema}" has version {version}, made by a newer version of'
                f" this service; this one knows {len(self._migrations)}"
            )
        return version, functions

    # Sweeps and errors

    def _sweep_in_turn(self, now: float | None) -> None:
        """Forgets what has expired, every so many steps, while nobody waits for it."""
        self._steps += 1
        if self._steps % policy.SWEEP_EVERY_STEPS == 0 and self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep(now))

    async def _sweep(self, now: float | None) -> None:
        try:
            with suppress(StoreUnavailable):
                await self._ask(
                    "sweep",
                    now=_micros(now),
                    ledger_days=policy.LEDGER_DAYS,
                    batch=policy.SWEEP_BATCH,
                )
        finally:
            self._sweeping = None

    def _unavailable(self, error: Exception, *, outcome_unknown: bool) -> StoreUnavailable:
        unavailable = StoreUnavailable(
            f"The store does not answer ({type(error).__name__}); try again.",
            retry_after_seconds=policy.STORE_RETRY_AFTER_SECONDS,
        )
        unavailable.outcome_unknown = outcome_unknown
        unavailable.reason = self._reason(error)
        return unavailable

    def _reason(self, error: Exception) -> str:
        """What the server or the driver said, in one line; a server's details may quote a reply."""
        said = (isinstance(error, psycopg.Error) and error.diag.message_primary) or str(error)
        reason = " ".join(said.split()) or type(error).__name__
        for secret in self._secrets:
            reason = reason.replace(secret, "[secret]")
        if isinstance(error, errors.InsufficientPrivilege):
            reason += (
                "; let a role that may make schemas run:"
                f' CREATE SCHEMA "{self._schema}" AUTHORIZATION "{self._role}"'
            )
        return reason


def _is_quiet(connection: Connection) -> bool:
    """Whether a connection that nobody uses is alive: a server speaks unasked to say farewell."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _read_statements(schema: str) -> dict[str, bytes]:
    """By name, with the schema's name where it belongs: a name can be no parameter of a statement,
    and here alone it is quoted."""
    text = _read("postgres.sql")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    named = {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    functions = named.pop("functions").encode()
    quoted = sql.Identifier(schema)
    statements = {
        name: sql.SQL(cast(LiteralString, body)).format(schema=quoted).as_bytes(None)
        for name, body in named.items()
    }
    return {**statements, "functions": functions}


def _read_migrations() -> list[bytes]:
    """`postgres.1.sql` and so on, in the order of their numbers."""
    folder = resources.files(__package__)
    names = [path.name for path in folder.iterdir()]
    count = sum(re.fullmatch(r"postgres\.\d+\.sql", name) is not None for name in names)
    return [_read(f"postgres.{number}.sql").encode() for number in range(1, count + 1)]


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _budget_state(row: Any) -> BudgetState | None:
    day, settled, committed, caller_committed = row
    return None if day is None else BudgetState(day, settled, committed, caller_committed)


def _array(values: Iterable[str | int]) -> str:
    """An array as PostgreSQL reads it. The driver writes the same, and takes ten times as long."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _micros(now: float | None) -> int | None:
    """`None` stands for the server's clock."""
    return None if now is None else _span(now)


def _span(seconds: float) -> int:
    return round(seconds * 1e6)


def _wait_ms() -> int:
    """Half of the store's limit: whoever waits for a lock learns the outcome in time."""
    return round(policy.STORE_TIMEOUT_SECONDS * 500)
