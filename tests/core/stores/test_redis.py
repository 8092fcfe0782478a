"""What only a store on a Redis server goes through, and only one in a cluster."""

import asyncio
import itertools
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr, ValidationError

from app import policy
from app.errors import StoreUnavailable
from app.messages import Charge
from app.storage.base import (
    AdmissionRequest,
    Admitted,
    Claim,
    RateLimit,
    Refused,
    Reservation,
    Settlement,
    Store,
)
from app.storage.redis import SETTLED_SECONDS, RedisSettings
from sandbox.stores.redis import serve

from ..backends import Backend, RedisService
from .asking import (
    NOON,
    admitted,
    claim,
    days_around,
    refused,
    replayed,
    request,
    reservation,
    settlement,
    top_up,
)

pytestmark = pytest.mark.anyio

DAY_SECONDS = 86_400
SLOTS = 16_384
THREE = RateLimit(3, 60.0)


@pytest.fixture
def backend(redis: Backend) -> Backend:
    return redis


@pytest.fixture
def service(backend: Backend) -> RedisService:
    assert isinstance(backend.connect, RedisService)
    return backend.connect


@pytest.fixture
def client(service: RedisService) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(service.url) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the test's own, which may be hung, killed and so on."""

    url: str

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def store(self) -> Store:
        return RedisService(self.url, "service")()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """While the block lasts, it takes what is sent and answers nothing."""
        with self.client() as client:
            process = int(client.info("server")["process_id"])
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as url:
        yield Server(url)


def connected(url: str) -> Store:
    return RedisService(url, "service")()


def a_call(number: int = 0, *, caller: str = "ada") -> AdmissionRequest:
    """All that an admission can be asked for, by the server's own clock."""
    reserve = Reservation(10, 10**15, 10**15, days_around(time.time()))
    return request(caller, rate=THREE, claim=Claim(f"key{number}", "body", 60), reserve=reserve)


async def failure(step: Awaitable[object]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await step
    return caught.value


# What is kept, and for how long


async def live_a_little(store: Store, moment: float | None) -> None:
    """Each kind of key, in each of its states."""
    now = time.time() if moment is None else moment
    one = reservation(10, moment=now)
    for number in range(12):
        asked = request(f"caller{number}", claim=claim(f"key{number}"), reserve=one)
        await store.admit(asked, now=moment)
        await store.admit(asked, now=moment)
        await store.top_up(top_up(asked, 5))
        await store.settle(settlement(request()), now=moment)
        if number % 4 == 0:
            continue
        reply = None if number % 4 == 1 else b"reply"
        ended = settlement(asked, 7, reply=reply, keep=number % 4 != 2)
        await store.settle(ended, now=moment)
        await store.admit(request(f"caller{number}", claim=claim(f"key{number}")), now=moment)
        await store.write_summary(f"key{number}", "They spoke of rain.", 60, now=moment)
    await store.admit(request("alone"), now=moment)


@pytest.mark.parametrize("moment", [None, NOON])
async def test_every_key_expires(
    store: Store, service: RedisService, client: redis.Redis, moment: float | None
) -> None:
    """Whatever happened, there is no key that Redis keeps for good, or beyond the ledger's days."""
    await live_a_little(store, moment)
    keys = service.keys(client)
    kinds = {key.decode().split(":")[1] for key in keys}
    assert kinds == {"rate", "claim", "operation", "budget", "spent", "summary", "ping"}
    for key in keys:
        assert 0 < client.ttl(key) <= policy.LEDGER_DAYS * DAY_SECONDS, key


async def test_a_key_is_kept_as_long_as_it_is_needed(
    store: Store, service: RedisService, client: redis.Redis
) -> None:
    """A window for its length, a claim for its lease, then its reply's time; the ledger for its
    days, a settled operation for an hour."""
    asked = request("ada", rate=RateLimit(3, 600), claim=claim(), reserve=reservation(5))
    day = days_around(NOON)[1].name
    await admitted(store, asked)

    def seconds(name: str) -> int:
        return int(client.ttl(f"{service.prefix}{name}"))

    ledger = policy.LEDGER_DAYS * DAY_SECONDS
    assert 600 <= seconds("rate:ada") <= 615
    assert 100 <= seconds("claim:key") <= 115
    assert ledger - 5 <= seconds(f"operation:{asked.operation_id}") <= ledger
    await store.settle(settlement(asked, 1, reply=b"r", keep=True, ttl_seconds=300), now=NOON)
    assert 300 <= seconds("claim:key") <= 315
    assert ledger - 5 <= seconds(f"budget:{day}") <= ledger
    assert ledger - 5 <= seconds(f"spent:{day}") <= ledger
    known = seconds(f"operation:{asked.operation_id}")
    assert SETTLED_SECONDS - 5 <= known <= SETTLED_SECONDS


async def test_a_window_holds_as_many_places_as_the_limit(
    store: Store, service: RedisService, client: redis.Redis
) -> None:
    """However often a caller comes, admitted or not, its window does not grow."""
    for tick in range(100):
        await store.admit(request(rate=RateLimit(3, 1)), now=NOON + tick / 7)
        assert client.llen(f"{service.prefix}rate:ada") <= 3


async def test_a_burst_that_has_passed_is_forgotten_at_once(
    store: Store, service: RedisService, client: redis.Redis
) -> None:
    """When many places come free at the same time, the next admission drops them all."""
    limit = RateLimit(1_000, 10)
    for tick in range(500):
        await admitted(store, request(rate=limit), now=NOON + tick / 1_000)
    await admitted(store, request(rate=limit), now=NOON + 10.2)
    assert client.llen(f"{service.prefix}rate:ada") == 500 - 201 + 1


async def test_places_stay_in_order_when_the_clock_jumps(
    store: Store, service: RedisService, client: redis.Redis
) -> None:
    """However the clock is set, a window is in the order of time, down to the microsecond."""
    randomness = random.Random(7)
    moments = [NOON + randomness.randrange(400) / 1e6 for _ in range(200)]
    for moment in moments:
        await admitted(store, request(rate=RateLimit(1_000, 10)), now=moment)
    kept = [int(at) for at in client.lrange(f"{service.prefix}rate:ada", 0, -1)]
    assert kept == sorted(round(moment * 1e6) for moment in moments)


async def test_a_refusal_writes_nothing(
    store: Store, service: RedisService, client: redis.Redis
) -> None:
    """A refused request makes no key and changes none."""
    asked = request(rate=THREE, claim=claim(), reserve=reservation(1))
    await admitted(store, asked)

    def everything() -> dict[bytes, Any]:
        return {key: client.dump(key) for key in service.keys(client)}

    before = everything()
    await refused(store, request(claim=claim()))
    await refused(store, request("grace", claim=claim("other"), reserve=reservation(2, cap=2)))
    await refused(store, request("grace", reserve=reservation(2, caller_cap=1)))
    await refused(store, request(rate=RateLimit(1, 60), claim=claim("third")), now=NOON + 59)
    assert everything() == before


# Numbers and names


async def test_large_amounts_are_exact(store: Store, backend: Backend) -> None:
    """A nano-dollar is told from none at a million dollars, and sums beyond 2^53 are exact."""
    cap = 10**15
    await admitted(store, request(reserve=reservation(cap - 1, cap=cap, caller_cap=cap)))
    assert (await refused(store, request(reserve=reservation(2, cap=cap)))).reason == "budget"
    last = request(reserve=reservation(1, cap=cap, caller_cap=cap))
    decision = await admitted(store, last)
    assert decision.budget is not None
    assert decision.budget.committed_nano_usd == cap
    state = await store.settle(settlement(last, 2**53 + 1), now=NOON)
    assert state is not None
    assert state.settled_nano_usd == 2**53 + 1
    assert state.committed_nano_usd == 2**53 + 1 + cap - 1
    assert backend.books().balanced
    assert (await refused(store, request(reserve=reservation(0, cap=cap)))).reason == "budget"


async def test_an_amount_beyond_all_measure_is_refused(store: Store, backend: Backend) -> None:
    """A worst case that no integer of Redis holds is refused like any other, before it is added."""
    books = backend.books()
    assert (await refused(store, request(reserve=reservation(10**30)))).reason == "budget"
    assert backend.books() == books


@pytest.mark.parametrize("name", ["a{b}c", "}{", "a b", "a:b", '"\\', "é☂漢", "%0 *?[x]", "a\tb"])
async def test_callers_may_have_any_name(store: Store, backend: Backend, name: str) -> None:
    """A name is told from all others, whatever characters it is made of."""
    asked = request(name, rate=THREE, claim=claim(name), reserve=reservation(10))
    await admitted(store, asked)
    assert (await refused(store, request("other", claim=claim(name)))).reason == "in_flight"
    await store.settle(settlement(asked, 4, reply=b"reply", keep=True), now=NOON)
    await replayed(store, request("other", claim=claim(name)))
    book = await store.day_book(days_around(NOON)[1].name)
    assert [(spent.caller, spent.charge.cost_nano_usd) for spent in book.spent] == [(name, 4)]
    assert backend.books().balanced


async def test_the_day_book_is_sorted(store: Store) -> None:
    """It lists callers, providers and models in order, and what is set aside for whom."""
    day = days_around(NOON)[1].name
    for caller in ("b", "a", "c"):
        asked = request(caller, reserve=reservation(10))
        await admitted(store, asked)
        charges = tuple(
            Charge(provider, model, 1, calls=2, input_tokens=3, output_tokens=4)
            for provider in ("y", "x")
            for model in ("n n", "m")
        )
        if caller != "c":
            await store.settle(Settlement(asked.operation_id, caller, charges), now=NOON)
    book = await store.day_book(day)
    assert [(s.caller, s.charge.provider, s.charge.model) for s in book.spent] == [
        (caller, provider, model)
        for caller in ("a", "b")
        for provider in ("x", "y")
        for model in ("m", "n n")
    ]
    assert {(s.charge.cost_nano_usd, s.charge.calls) for s in book.spent} == {(1, 2)}
    assert {(s.charge.input_tokens, s.charge.output_tokens) for s in book.spent} == {(3, 4)}
    assert book.reserved == (("c", 10),)


async def test_services_do_not_meet(server: Server) -> None:
    """Two services on one server share nothing, nor do two namespaces of one service."""
    once = RateLimit(1, 60)
    services = [
        RedisService(server.url, "service"),
        RedisService(server.url, "service-2"),
        RedisService(f"{server.url}?namespace=staging", "service"),
    ]
    asked = request(rate=once, claim=claim(), reserve=reservation(5, cap=5))
    for service in services:
        store = service()
        await store.open()
        assert (await admitted(store, asked)).rate.remaining == 0
        await store.close()


# Whose clock it is


async def test_the_servers_clock_rules(
    store: Store, monkeypatch: pytest.MonkeyPatch, service: RedisService, client: redis.Redis
) -> None:
    """Whatever a host's own clock says, a place is taken at the server's time."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    before = client.time()
    await store.admit(request(rate=THREE))
    after = client.time()
    (at,) = client.lrange(f"{service.prefix}rate:ada", 0, -1)
    assert before[0] * 10**6 + before[1] <= int(at) <= after[0] * 10**6 + after[1]


# What may become of a server


async def test_flushed_scripts_are_sent_again(
    store: Store, client: redis.Redis, backend: Backend
) -> None:
    """A server that has forgotten the scripts gets them with the next step, whichever it is."""
    asked = request(rate=THREE, claim=claim(), reserve=reservation(10))
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: admitted(store, asked),
        lambda: store.top_up(top_up(asked, 5)),
        lambda: store.settle(settlement(asked, 7, reply=b"reply", keep=True), now=NOON),
        lambda: store.day_book("2100-01-01"),
        lambda: replayed(store, request(claim=claim())),
    ]
    for step in steps:
        client.script_flush()
        assert await step()
    assert backend.books().charged_nano_usd == 7


async def test_lost_data_leaves_a_new_store(server: Server) -> None:
    """After a FLUSHALL everything begins anew, and what was under way can still be settled."""
    store = server.store()
    await store.open()
    open_before = a_call()
    await store.admit(open_before)
    with server.client() as client:
        client.flushall()
    assert await store.settle(settlement(open_before, 5)) is None
    assert isinstance(await store.admit(a_call()), Admitted)
    assert (await store.day_book(days_around(time.time())[1].name)).settled_nano_usd == 0
    await store.close()


async def test_a_server_that_hangs_is_given_up_in_time(server: Server) -> None:
    """Every step ends within 3 s; those that were sent may be carried out yet, others not."""
    store = server.store()
    await store.open()
    await store.admit(a_call())
    with server.hung():
        started = time.monotonic()
        many = policy.STORE_CONNECTIONS + 20
        steps = [store.admit(a_call(number)) for number in range(many)]
        failures = await asyncio.gather(*map(failure, steps))
        assert time.monotonic() - started < 3
        # The one connection that there was took a step; the others were not greeted.
        assert [error.outcome_unknown for error in failures].count(True) == 1
        assert {error.reason for error in failures} == {
            "no answer in 2 s",
            "no connection in 2 s",
        }
        assert all(isinstance(error.__cause__, TimeoutError) for error in failures)
    assert isinstance(await store.admit(a_call(many, caller="grace")), Admitted)
    await store.close()


async def test_a_step_that_is_carried_out_late_can_be_given_back(server: Server) -> None:
    """The admission that a hung server had taken is settled at nothing, in whichever order."""
    store = server.store()
    await store.open()
    asked = a_call()
    with server.hung():
        assert (await failure(store.admit(asked))).outcome_unknown
    await store.settle(Settlement(asked.operation_id, "ada", claim_key="key0"))
    again = await store.admit(a_call())
    assert isinstance(again, Admitted) and again.budget is not None
    assert again.budget.committed_nano_usd == 10
    await store.close()


async def test_a_server_that_is_not_there() -> None:
    """A refused connection is told at once, and nothing was sent."""
    with serve() as url:
        store = connected(url)
        await store.open()
    await asyncio.sleep(0.05)  # until it is heard of
    started = time.monotonic()
    for step in (store.admit(a_call()), store.ping(), store.day_book("2100-01-01")):
        error = await failure(step)
        assert not error.outcome_unknown
        assert error.reason.startswith("Error 111 connecting to 127.0.0.1:")
    assert time.monotonic() - started < 1
    await store.close()


async def test_a_restarted_server_is_used_again(server: Server) -> None:
    """A store outlives its server: as soon as there is one again, steps succeed, also the first."""
    password = uuid.uuid4().hex
    with serve(password=password) as url:
        store = connected(url)
        await store.open()
        await asyncio.gather(*(store.admit(a_call(number)) for number in range(20)))
        process = int(Server(url).client().info("server")["process_id"])
        os.kill(process, signal.SIGKILL)
        assert isinstance(await failure(store.admit(a_call())), StoreUnavailable)
    with serve(password=password, port=Server(url).port):
        asked = a_call()
        assert isinstance(await store.admit(asked), Admitted)
        assert await store.settle(settlement(asked, 5)) is not None
    await store.close()


async def test_a_connection_that_breaks_in_mid_step(server: Server) -> None:
    """A step whose connection broke may have been carried out."""
    store = server.store()
    await store.open()
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        step = asyncio.create_task(failure(store.admit(a_call())))
        await asyncio.sleep(0.1)
        client.client_kill_filter(_type="normal", skipme=True)
        error = await step
        assert error.outcome_unknown
        client.execute_command("CLIENT", "UNPAUSE")
    assert isinstance(await store.admit(a_call()), Admitted)
    await store.close()


async def test_a_server_that_closes_idle_connections(server: Server) -> None:
    """A connection that the server closed while nobody used it fails no step."""
    store = server.store()
    await store.open()
    with server.client() as client:
        for _ in range(5):
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.05)
            await store.ping()
    await store.close()


async def test_no_room_for_a_connection(server: Server) -> None:
    """A server at its limit of connections has done nothing; steps succeed once there is room."""
    store = server.store()
    with server.client() as client:
        client.config_set("maxclients", 3)
        with ExitStack() as others:
            for _ in range(2):
                others.enter_context(server.client()).ping()
            error = await failure(store.open())
            assert not error.outcome_unknown
            assert error.reason == "max number of clients reached"
        eventually(lambda: len(client.client_list()) == 1)
        await store.open()
        assert isinstance(await store.admit(a_call()), Admitted)
    await store.close()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"maxmemory": "1", "maxmemory-policy": "noeviction"}, "maxmemory"),
        ({"min-replicas-to-write": "1"}, "NOREPLICAS"),
    ],
)
async def test_a_server_that_takes_no_writes(
    server: Server, settings: dict[str, str], reason: str
) -> None:
    """What the server refuses has not happened, not even in part."""
    store = server.store()
    await store.open()
    asked = a_call()
    await store.admit(asked)
    backend = RedisService(server.url, "service")
    before = backend.books()
    with server.client() as client:
        for name, value in settings.items():
            client.config_set(name, value)
        for step in (
            store.admit(a_call(1)),
            store.top_up(top_up(asked, 1)),
            store.settle(settlement(asked, 5, reply=b"reply", keep=True)),
        ):
            error = await failure(step)
            assert not error.outcome_unknown
            assert reason in error.reason
        # Who has used up its window is told so all the same.
        for name in settings:
            client.config_set(name, "0" if name != "maxmemory-policy" else "noeviction")
    assert backend.books() == before
    assert await store.settle(settlement(asked, 5)) is not None
    await store.close()


async def test_a_replica_is_left_for_the_next_master(server: Server) -> None:
    """A server that became a replica has done nothing, and its address is looked up anew."""
    store = server.store()
    await store.open()
    with server.client() as client, serve() as other:
        client.replicaof("127.0.0.1", str(Server(other).port))
        error = await failure(store.admit(a_call()))
        assert not error.outcome_unknown
        assert "read only replica" in error.reason
        client.config_resetstat()
        client.replicaof("NO", "ONE")
        assert isinstance(await store.admit(a_call()), Admitted)
        assert client.info("stats")["total_connections_received"] >= 1
    await store.close()


async def test_a_step_waits_for_a_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More steps at once than connections wait for each other, and no more connections are made."""
    monkeypatch.setattr(policy, "STORE_CONNECTIONS", 2)
    store = server.store()
    await store.open()
    steps = [store.admit(a_call(number, caller=f"caller{number}")) for number in range(200)]
    decisions = await asyncio.gather(*steps)
    assert all(isinstance(decision, Admitted) for decision in decisions)
    with server.client() as client:
        assert len(client.client_list()) <= 3
    await store.close()


async def test_a_store_is_bound_to_its_password(server: Server) -> None:
    """A wrong password ends the start, and is not repeated."""
    store = connected(f"redis://:not-the-password@127.0.0.1:{server.port}")
    error = await failure(store.open())
    assert not error.outcome_unknown
    assert "password" in error.reason
    assert "not-the-password" not in f"{error.reason} {error.detail} {error.__cause__!r}"
    await store.close()


@asynccontextmanager
async def pretended(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The address of something that takes connections as Redis does, and answers like this."""

    answering: set[asyncio.Task[Any] | None] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        try:
            await reader.read(1)
            await answer(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"redis://:the-password@{host}:{port}"
    await asyncio.gather(*filter(None, answering))


async def test_a_password_that_is_quoted_is_not_passed_on() -> None:
    """A server that does not know AUTH repeats what came with it; the reason does not."""

    async def quote(writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR unknown command `AUTH`, with args beginning with: `the-password`, \r\n")

    async with pretended(quote) as url:
        store = connected(url)
        error = await failure(store.open())
        assert not error.outcome_unknown
        assert error.reason.startswith("unknown command `AUTH`")
        assert "the-password" not in f"{error.reason} {error.detail}"
        await store.close()


async def test_an_answer_that_drips_is_given_up_in_time() -> None:
    """A server that sends a byte now and then does not hold a step up."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            writer.write(b"+")
            await asyncio.sleep(0.2)

    async with pretended(drip) as url:
        store = connected(url)
        started = time.monotonic()
        assert (await failure(store.open())).reason == "no connection in 2 s"
        assert time.monotonic() - started < 3
        await store.close()


async def test_another_servers_answer_is_an_error() -> None:
    """What is no Redis is the store's own kind of error."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with pretended(answer) as url:
        store = connected(url)
        assert not (await failure(store.open())).outcome_unknown
        await store.close()


# Settings


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://redis.internal:6380/3",
        "redis://:canary@redis",
        "rediss://user:canary@[::1]:6379/0?ssl_ca_certs=/etc/ca.pem&namespace=staging",
    ],
)
def test_addresses_of_redis_are_taken(url: str) -> None:
    """TLS, credentials, a database and a namespace are told by the URL."""
    settings = RedisSettings(redis_url=SecretStr(url))
    assert "canary" not in f"{settings!r} {settings.redis_url}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "http://canary",
        "redis://",
        "redis://:canary@",
        "redis://canary:port",
        "redis://canary/name",
        "redis://canary?decode_responses=yes",
        "redis://canary?namespace",
        "unix:///canary",
        "redis://[canary",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """What is no address of Redis is said to be none, without being repeated."""
    with pytest.raises(ValidationError) as refused:
        RedisSettings(redis_url=SecretStr(url))
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "fit"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("[::1]", False),
        ("0.0.0.0", False),
        ("redis.localhost", False),
        ("redis", True),
        ("localhost.example.com", True),
        ("10.0.0.1", True),
    ],
)
def test_production_has_its_redis_elsewhere(host: str, fit: bool) -> None:
    """A loopback address is a leftover of development."""
    url = f"redis://:canary@{host}:6379/0"
    problems = RedisSettings(redis_url=SecretStr(url)).production_problems()
    assert list(problems) == ([] if fit else ["REDIS_URL"])
    assert "canary" not in str(problems)


def test_the_password_is_a_secret() -> None:
    """Of the address, the whole and the password are kept out of whatever is written."""
    settings = RedisSettings(redis_url=SecretStr("redis://user:a%2Fpassword@redis"))
    assert settings.secrets() == ("redis://user:a%2Fpassword@redis", "a/password")


# Cancellation


async def test_no_step_gets_the_answer_to_another(store: Store) -> None:
    """Whenever steps are cancelled, those that go on are told what they asked for."""
    for number in range(40):
        await store.write_summary(f"key{number}", f"text{number}", 60)
    randomness = random.Random(7)

    async def read(number: int) -> None:
        await asyncio.sleep(randomness.random() / 500)
        assert await store.read_summary([f"key{number}"]) == (0, f"text{number}")

    for _ in range(50):
        reading = [asyncio.create_task(read(number)) for number in range(40)]
        await asyncio.sleep(randomness.random() / 500)
        for task in randomness.sample(reading, 15):
            task.cancel()
            # A second time, while the first is being dealt with.
            asyncio.get_running_loop().call_soon(task.cancel)
        outcomes = await asyncio.gather(*reading, return_exceptions=True)
        for outcome in outcomes:
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome


async def test_cancelled_steps_take_no_connection_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many steps were cancelled, wherever they were, as many can be taken as before."""
    monkeypatch.setattr(policy, "STORE_CONNECTIONS", 3)
    store = server.store()
    await store.open()
    for turns in range(150):
        steps = [asyncio.create_task(store.ping()) for _ in range(6)]
        for _ in range(turns % 30):
            await asyncio.sleep(0)
        for step in steps:
            step.cancel()
        await asyncio.sleep(0)
        for step in steps:
            step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 200, "ALL")
    await asyncio.gather(*(store.ping() for _ in range(9)))
    with server.client() as client:
        named = [c for c in client.client_list() if c["name"] == "service"]
        assert len(named) == 3
    await store.close()


# A cluster


@dataclass(frozen=True, slots=True)
class Cluster:
    urls: Sequence[str]

    def store(self, node: int = 0) -> Store:
        return connected(self.urls[node])

    def nodes(self) -> list[redis.Redis]:
        return [redis.Redis.from_url(url) for url in self.urls]


def ports_for_nodes() -> Iterator[int]:
    """Free ports, with those free that are 10,000 above: there the nodes talk to each other."""
    while True:
        port = random.randrange(20_000, 30_000)
        if is_free(port) and is_free(port + 10_000):
            yield port


def is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three masters that share the slots."""
    password = uuid.uuid4().hex
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    with ExitStack() as stack:
        urls = [
            stack.enter_context(serve(*options, port=port, password=password))
            for port in itertools.islice(ports_for_nodes(), 3)
        ]
        nodes = [stack.enter_context(redis.Redis.from_url(url)) for url in urls]
        for number, node in enumerate(nodes):
            first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
            node.cluster("ADDSLOTS", *range(first, end))
            node.cluster("MEET", "127.0.0.1", Server(urls[0]).port)
        eventually(lambda: all(node.cluster("INFO")["cluster_state"] == "ok" for node in nodes))
        eventually(lambda: all(len(node.cluster("NODES")) == 3 for node in nodes))
        yield Cluster(urls)


def eventually(look: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def owner(cluster: Cluster) -> int:
    """The number of the node that has the keys of `service`."""
    slot = cluster.nodes()[0].cluster("KEYSLOT", "{service}:")
    return int(slot) * 3 // SLOTS


@pytest.mark.parametrize("node", [0, 1, 2])
async def test_a_cluster_serves_whichever_node_is_named(cluster: Cluster, node: int) -> None:
    """With the address of any of its nodes, a cluster is a store like any other."""
    store = cluster.store(node)
    await store.open()
    asked = a_call(node, caller=f"caller{node}")
    decision = await store.admit(asked)
    assert isinstance(decision, Admitted), decision
    assert await store.top_up(top_up(asked, 5))
    await store.write_summary("one", "They spoke of rain.", 60)
    assert await store.read_summary(["one"]) == (0, "They spoke of rain.")
    state = await store.settle(settlement(asked, 7, reply=b"reply", keep=True))
    assert state is not None
    again = request(f"caller{node}", rate=THREE, claim=Claim(f"key{node}", "body", 60))
    assert (await store.admit(again)).rate.remaining == 1
    book = await store.day_book(state.day)
    assert book.settled_nano_usd == state.settled_nano_usd
    await store.close()


async def test_a_cluster_keeps_a_service_on_one_node(cluster: Cluster) -> None:
    """All keys of a service are where its name belongs, and no other node has any."""
    store = cluster.store()
    await store.open()
    await live_a_little(store, None)
    sizes = [node.dbsize() for node in cluster.nodes()]
    assert [size > 0 for size in sizes] == [number == owner(cluster) for number in range(3)]
    await store.close()


async def test_a_caller_has_one_cap_in_a_cluster(cluster: Cluster) -> None:
    """Stores that came by different nodes decide on the same budget, window and claim."""
    stores = [cluster.store(node) for node in range(3)]
    for store in stores:
        await store.open()
    reserve = Reservation(10, 10**15, 1_005, days_around(time.time()))
    decisions = await asyncio.gather(
        *(store.admit(request("hammer", reserve=reserve)) for _ in range(60) for store in stores)
    )
    outcomes = [isinstance(decision, Admitted) for decision in decisions]
    assert outcomes.count(True) == 100
    refusals = {decision.reason for decision in decisions if isinstance(decision, Refused)}
    assert refusals == {"caller_budget"}
    for store in stores:
        await store.close()


@contextmanager
def moved(cluster: Cluster, source: int, target: int) -> Iterator[None]:
    """While the block lasts, another node owns the slot of `service`; its keys are dropped."""
    nodes = cluster.nodes()
    slot = nodes[0].cluster("KEYSLOT", "{service}:")
    for number, other in ((target, source), (source, target)):
        nodes[other].flushall()
        new_owner = nodes[number].cluster("MYID").decode()
        # The new owner first: an old one that owns nothing of it would be told otherwise.
        for node in (nodes[number], nodes[other], nodes[3 - number - other]):
            node.cluster("SETSLOT", slot, "NODE", new_owner)
        if number == target:
            try:
                yield
            finally:
                eventually(lambda: all(n.cluster("INFO")["cluster_state"] == "ok" for n in nodes))
    for node in nodes:
        node.close()


async def test_keys_that_move_are_followed(cluster: Cluster) -> None:
    """When another node takes the keys over, the next step goes there, and fails nobody."""
    source = owner(cluster)
    store = cluster.store(source)
    await store.open()
    await store.admit(a_call(100))
    with moved(cluster, source, (source + 1) % 3):
        for number in range(101, 103):
            assert isinstance(await store.admit(a_call(number, caller="grace")), Admitted)
    assert isinstance(await store.admit(a_call(103, caller="alan")), Admitted)
    await store.close()


async def test_a_cluster_outlives_the_node_that_was_named(cluster: Cluster) -> None:
    """Once the keys are elsewhere, a store does not need the node that its address leads to."""
    source = owner(cluster)
    store = cluster.store(source)
    await store.open()
    with moved(cluster, source, (source + 1) % 3):
        await store.ping()
        with Server(cluster.urls[source]).hung():
            assert isinstance(await store.admit(a_call(200)), Admitted)
    await store.close()


async def test_another_node_is_asked_when_one_hangs(cluster: Cluster) -> None:
    """A node that does not answer costs a step its time; the others know where the keys are, and
    steps succeed as soon as they can be reached there."""
    target = owner(cluster)
    store = cluster.store(target)
    await store.open()
    with Server(cluster.urls[target]).hung():
        for _ in range(2):
            started = time.monotonic()
            await failure(store.admit(a_call(300)))
            assert time.monotonic() - started < 3
    eventually(lambda: all(n.cluster("INFO")["cluster_state"] == "ok" for n in cluster.nodes()))
    assert isinstance(await store.admit(a_call(301, caller="barbara")), Admitted)
    await store.close()


async def test_a_cluster_has_no_numbered_databases(cluster: Cluster) -> None:
    """An address that names one is refused at the start, with the server's words."""
    store = connected(urlsplit(cluster.urls[0])._replace(path="/3").geturl())
    error = await failure(store.open())
    assert not error.outcome_unknown
    assert "SELECT is not allowed in cluster mode" in error.reason
    await store.close()
