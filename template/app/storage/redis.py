"""Redis, one server or a cluster: exact across all hosts that use it.

Each step is one script, which Redis runs alone: that makes admission one atomic step. All keys of a
service are in one hash tag, so that a cluster keeps them together, and each of them expires. Redis
forgets what it must evict, and with it budgets: it needs `maxmemory-policy noeviction`.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar, Final, TypeAlias, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from pydantic import Field, SecretStr, field_validator
from redis.asyncio.connection import Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

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

LEDGER_SECONDS: Final = policy.LEDGER_DAYS * 86_400
SETTLED_SECONDS: Final = 3_600
"""How long an operation is known after its settlement: longer than a repeat or a late admission of
it can take. Afterwards it is in the day's sums alone, as memory is what Redis is short of."""

Value: TypeAlias = str | bytes | int
Address: TypeAlias = tuple[str, int]


class RedisSettings(StoreSettings):
    redis_url: SecretStr = Field(
        description="Where Redis is: redis://[user:password@]host[:port][/db], rediss:// with TLS."
    )

    @field_validator("redis_url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            _ = parts.port
            options = [name for name, _ in parse_qsl(parts.query, strict_parsing=bool(parts.query))]
        except ValueError:
            raise ValueError("is not a URL") from None
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError("must begin with redis:// (or rediss://)")
        if not parts.hostname:
            raise ValueError("names no host")
        if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
            raise ValueError("must end with the number of a database, if with anything")
        if any(name != "namespace" and not name.startswith("ssl_") for name in options):
            raise ValueError("may have no option but namespace and those that begin with ssl_")
        return url

    def production_problems(self) -> dict[str, str]:
        if is_loopback(urlsplit(self.redis_url.get_secret_value()).hostname or ""):
            remedy = "points at this machine; in production it must name the real host"
            return {"REDIS_URL": remedy}
        return {}

    def secrets(self) -> tuple[str, ...]:
        url = self.redis_url.get_secret_value()
        return (url, *filter(None, [parse_url(url).get("password")]))


@dataclass(frozen=True, slots=True)
class Script:
    """A script that the server knows by its hash, once it has seen it."""

    text: str
    sha: str

    @classmethod
    def read(cls, name: str) -> "Script":
        file = resources.files(__package__).joinpath(f"redis.{name}.lua")
        text = file.read_text(encoding="utf-8")
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Store:
    name: ClassVar[str] = "redis"
    settings_type: ClassVar[type[StoreSettings]] = RedisSettings
    shared_between_processes: ClassVar[bool] = True

    def __init__(self, settings: StoreSettings, service: str) -> None:
        assert isinstance(settings, RedisSettings)
        url = urlsplit(settings.redis_url.get_secret_value())
        options = dict(parse_qsl(url.query))
        namespace = options.pop("namespace", "")
        self._node = Node(url._replace(query=urlencode(options)).geturl(), client_name=service)
        # What stands in braces decides on the place in a cluster.
        self._prefix = f"{{{namespace}/{service}}}:" if namespace else f"{{{service}}}:"
        self._admit = Script.read("admit")
        self._top_up = Script.read("top_up")
        self._settle = Script.read("settle")
        self._day_book = Script.read("day_book")
        self._read_summary = Script.read("read_summary")

    async def open(self) -> None:
        await self._node.discover()
        await self.ping()

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        limit, claim, reservation = request.rate_limit, request.claim, request.reservation
        keys = [self._key("rate", request.caller), self._key("operation", request.operation_id)]
        arguments: list[Value] = [_micros(now), limit.requests, _span(limit.window_seconds)]
        if claim is None:
            arguments += ["", 0, 0]
        else:
            keys.append(self._key("claim", claim.key))
            arguments += [claim.fingerprint, _span(claim.lease_seconds), int(claim.takes_over)]
        if reservation is None:
            arguments += ["", 0, 0]
        else:
            arguments += [
                reservation.amount_nano_usd,
                reservation.limit_nano_usd,
                reservation.caller_limit_nano_usd,
            ]
        arguments += [request.caller, self._key("budget"), LEDGER_SECONDS]
        if reservation is not None:
            for day in reservation.days:
                arguments += [day.name, _span(day.ends_at)]
        reply = await self._node.run(self._admit, keys, arguments)
        return _decision(request, *reply)

    async def top_up(self, request: TopUp) -> bool:
        reply = await self._node.run(
            self._top_up,
            [self._key("operation", request.operation_id)],
            [
                request.amount_nano_usd,
                request.limit_nano_usd,
                request.caller_limit_nano_usd,
                self._key("budget"),
                LEDGER_SECONDS,
            ],
        )
        return bool(reply)

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        keys = [self._key("operation", settlement.operation_id)]
        if settlement.claim_key is not None:
            keys.append(self._key("claim", settlement.claim_key))
        without_reply = settlement.claim == "done" and settlement.reply is None
        arguments: list[Value] = [
            _micros(now),
            "done without reply" if without_reply else settlement.claim,
            settlement.reply or b"",
            _span(settlement.reply_ttl_seconds),
            settlement.cost_nano_usd,
            self._key("budget"),
            self._key("spent"),
            LEDGER_SECONDS,
            SETTLED_SECONDS,
        ]
        for charge in settlement.charges:
            arguments += [
                orjson.dumps([settlement.caller, charge.provider, charge.model]),
                charge.cost_nano_usd,
                charge.calls,
                charge.input_tokens,
                charge.output_tokens,
            ]
        reply = await self._node.run(self._settle, keys, arguments)
        return None if reply is None else _budget_state(reply)

    async def day_book(self, day: str) -> DayBook:
        keys = [self._key("budget", day), self._key("spent", day)]
        budget, spent = map(_pairs, await self._node.run(self._day_book, keys, []))
        charges: dict[tuple[str, str, str], dict[str, int]] = {}
        for field, amount in spent.items():
            measure, _, what = field.partition(" ")
            charges.setdefault(tuple(orjson.loads(what)), {})[measure] = amount
        reserved = {
            field.removeprefix("reserved "): amount
            for field, amount in budget.items()
            if field.startswith("reserved ") and amount
        }
        return DayBook(
            day,
            tuple(
                Spent(
                    caller,
                    Charge(
                        provider,
                        model,
                        sums["cost"],
                        sums["calls"],
                        sums["input_tokens"],
                        sums["output_tokens"],
                    ),
                )
                for (caller, provider, model), sums in sorted(charges.items())
            ),
            tuple(sorted(reserved.items())),
        )

    async def read_summary(
        self, keys: Sequence[str], *, now: float | None = None
    ) -> tuple[int, str] | None:
        wanted = [self._key("summary", key) for key in keys]
        found = await self._node.run(self._read_summary, wanted, [_micros(now)])
        return None if found is None else (int(found[0]), bytes(found[1]).decode())

    async def write_summary(
        self, key: str, text: str, ttl_seconds: float, *, now: float | None = None
    ) -> None:
        expires_at = _span(now or 0) + _span(ttl_seconds)
        milliseconds = max(1, round(ttl_seconds * 1_000))
        value = f"{expires_at} {text}"
        await self._node.ask("SET", self._key("summary", key), value, "PX", milliseconds)

    async def ping(self) -> None:
        # Not PING, which says nothing of whether the node that has the keys takes a step.
        await self._node.ask("SET", self._key("ping"), "", "EX", 60)

    async def close(self) -> None:
        await self._node.close()

    def _key(self, kind: str, name: str = "") -> str:
        return f"{self._prefix}{kind}:{name}"


@dataclass(slots=True)
class Step:
    """One question to the server. `is_open`: it was sent, and no answer has come yet."""

    address: Address
    is_open: bool = False


class Node:
    """The server that has the service's keys: in a cluster the node that owns their slot, wherever
    that moves.

    Each step ends within `STORE_TIMEOUT_SECONDS`, the wait for a connection included, and is sent
    once: nothing is repeated by the driver, which could not know whether it had been carried out.
    """

    def __init__(self, url: str, *, client_name: str) -> None:
        options = {"host": "localhost", "port": 6379, **parse_url(url)}
        address = str(options.pop("host")), int(cast(int, options.pop("port")))
        self._options: dict[str, Any] = {
            **options,
            # A greeting, so that a server without room for one more connection says so before a
            # step is sent.
            "client_name": client_name,
            "driver_info": None,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            # `ask` bounds all of it: with a second limit, a task for each command would do so.
            "socket_timeout": None,
            "socket_connect_timeout": policy.STORE_TIMEOUT_SECONDS,
            "max_connections": policy.STORE_CONNECTIONS,
        }
        self._addresses = deque([address])
        """The one to ask first; the others are asked in turn when it cannot be reached."""
        self._pools: dict[Address, ConnectionPool] = {}
        # In place of the driver's blocking pool, which waits for a lock when it takes a connection
        # back: a task that is cancelled there loses it for good.
        self._places = asyncio.Semaphore(policy.STORE_CONNECTIONS)

    async def discover(self) -> None:
        """Learns of the cluster's other nodes, if there is a cluster."""
        try:
            slots = await self.ask("CLUSTER", "SLOTS")
        except StoreUnavailable as error:
            # A server alone says that it is no cluster, or that not everyone may ask.
            if not isinstance(error.__cause__, ResponseError):
                raise
            return
        for _first, _last, *nodes in slots:
            for host, port, *_ in nodes:
                address = (host.decode() if host else self._addresses[0][0]), int(port)
                if address not in self._addresses:
                    self._addresses.append(address)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Value]) -> Any:
        """What the script returns. Raises `StoreUnavailable`."""
        command = (len(keys), *keys, *arguments)
        async with self._step() as step:
            try:
                return await self._send(step, "EVALSHA", script.sha, *command)
            except NoScriptError:
                # A server that was restarted or has taken over, or whose scripts were flushed.
                return await self._send(step, "EVAL", script.text, *command)

    async def ask(self, *command: Value) -> Any:
        """What the server answers. Raises `StoreUnavailable`."""
        async with self._step() as step:
            return await self._send(step, *command)

    async def close(self) -> None:
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[Step]:
        """Bounds a step and translates what goes wrong in it."""
        step = Step(self._addresses[0])
        try:
            async with asyncio.timeout(policy.STORE_TIMEOUT_SECONDS), self._places:
                yield step
        except ResponseError as error:
            raise self._unavailable(error, step) from error
        except (RedisError, OSError) as error:
            self._leave(step.address)
            raise self._unavailable(error, step) from error

    async def _send(self, step: Step, *command: Value) -> Any:
        """Follows the keys to the node that has them now."""
        step.address = self._addresses[0]
        try:
            return await self._send_to(step, command)
        except MovedError as moved:
            step.address = (moved.host or step.address[0]), int(moved.port)
            self._lead_with(step.address)
            return await self._send_to(step, command)

    async def _send_to(self, step: Step, command: tuple[Value, ...]) -> Any:
        pool = self._pools.get(step.address) or self._new_pool(step.address)
        connection: Connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            step.is_open = True
            await connection.send_command(*command)
            reply = await connection.read_response()
            step.is_open = False
            return reply
        except RedisError as error:
            step.is_open = not _is_answer(error)
            if _is_from_replica(error):
                # It was the master once; its name may lead to another one by now.
                await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _new_pool(self, address: Address) -> ConnectionPool:
        host, port = address
        pool = ConnectionPool(host=host, port=port, **self._options)
        self._pools[address] = pool
        return pool

    def _lead_with(self, address: Address) -> None:
        if address in self._addresses:
            self._addresses.remove(address)
        self._addresses.appendleft(address)

    def _leave(self, address: Address) -> None:
        """Another node of the cluster may know who has taken over."""
        if self._addresses[0] == address:
            self._addresses.rotate(-1)

    def _unavailable(self, error: Exception, step: Step) -> StoreUnavailable:
        unavailable = StoreUnavailable(
            f"The store does not answer ({type(error).__name__}); try again.",
            retry_after_seconds=policy.STORE_RETRY_AFTER_SECONDS,
        )
        unavailable.outcome_unknown = step.is_open
        missing = "answer" if step.is_open else "connection"
        reason = str(error) or f"no {missing} in {policy.STORE_TIMEOUT_SECONDS:g} s"
        # A server that does not know AUTH repeats what came with it.
        password = self._options.get("password")
        unavailable.reason = reason.replace(password, "[secret]") if password else reason
        return unavailable


def _is_answer(error: RedisError) -> bool:
    """Whether the server said no, and has thus done nothing: among others it was out of memory,
    loading its data, a replica, without a master, or without a place for the connection."""
    return isinstance(error, ResponseError) or error.status_code is not None


def _is_from_replica(error: RedisError) -> bool:
    # Before version 7 an error within a script is an error of the script, which quotes it.
    return isinstance(error, ReadOnlyError) or "-READONLY " in str(error)


def _decision(
    request: AdmissionRequest,
    decision: bytes,
    used: int,
    reset: int,
    wait: int,
    figures: list[bytes] | None,
    reply: bytes | None,
) -> Decision:
    limit = request.rate_limit
    rate = RateState(
        limit.requests, max(0, limit.requests - used), reset / 1e6, limit.window_seconds
    )
    budget = None if figures is None else _budget_state(figures)
    match decision:
        case b"admitted":
            return Admitted(rate, budget)
        case b"replay":
            return Replay(rate, reply or b"")
        case _:
            return Refused(cast(Any, decision.decode()), rate, wait / 1e6, budget)


def _budget_state(figures: list[bytes]) -> BudgetState:
    settled, reserved, caller_settled, caller_reserved = map(int, figures[1:])
    return BudgetState(
        figures[0].decode(), settled, settled + reserved, caller_settled + caller_reserved
    )


def _pairs(flat: list[bytes]) -> dict[str, int]:
    """A hash, which is told as a list."""
    return {field.decode(): int(value) for field, value in zip(flat[::2], flat[1::2], strict=True)}


def _micros(now: float | None) -> Value:
    """The clock that a test sets; empty for the server's own."""
    return "" if now is None else _span(now)


def _span(seconds: float) -> int:
    return round(seconds * 1e6)
