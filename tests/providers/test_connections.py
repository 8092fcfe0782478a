"""Connections are kept and counted: none is used that has ended, no place among them is lost."""

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, closing

import pytest

from app.errors import Billing, ProviderTimeout, ProviderUnavailable
from app.guardrails.availability.deadline import Deadline
from app.guardrails.availability.retry import Retry, RetryBudget
from app.providers.transport import Response, Transport

from ..core.waiting import until
from .asking import (
    BOTH_WAYS,
    CALL,
    CHUNKED,
    EVENTS,
    HEADERS,
    Ask,
    failure_of,
    good_answer,
    post,
    whole,
)
from .conftest import ASYNCIO, UVLOOP, Connect, Serve, Visit, reset_on_close

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP], ids=["asyncio", "uvloop"]),
]

# Kept and closed


@pytest.mark.parametrize("way", ["closed", "reset"])
@BOTH_WAYS
async def test_a_connection_that_ended_while_idle_is_replaced(
    ask: Ask, way: str, serve: Serve, connect: Connect
) -> None:
    """A server that closes what is idle, whatever it promised, makes no call fail."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(good_answer(ask))
        await asyncio.sleep(0.05)
        if way == "reset":
            visit.reset()

    async with serve(script) as server, connect(server.url) as transport:
        for _ in range(3):
            await ask(transport)
            await asyncio.sleep(0.15)
    assert [len(visit.requests) for visit in server.visits] == [1, 1, 1]


Interrupt = Callable[[socket.socket], object]


def close(peer: socket.socket) -> None:
    peer.close()


def reset(peer: socket.socket) -> None:
    reset_on_close(peer)
    peer.close()


def speak(peer: socket.socket) -> None:
    peer.sendall(whole(b'{"whose":"nobody asked"}'))


async def answer(peer: socket.socket, body: bytes) -> None:
    loop = asyncio.get_running_loop()
    assert (await loop.sock_recv(peer, 65_536)).endswith(b"}")
    await loop.sock_sendall(peer, whole(body))


async def accept(listener: socket.socket) -> socket.socket:
    peer, _ = await asyncio.get_running_loop().sock_accept(listener)
    peer.setblocking(False)
    return peer


@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
@pytest.mark.parametrize("interrupt", [close, reset, speak])
async def test_what_came_on_an_idle_connection_ends_it(
    interrupt: Interrupt, heard: bool, connect: Connect
) -> None:
    """An end, or an answer to nobody, retires an idle connection, also when the event loop has had
    no time to look: the next call goes out on a new one, once, and gets the answer to itself. The
    place of the old one is free again."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    async def serve_second() -> socket.socket:
        peer = await accept(listener)
        await answer(peer, b'{"whose":"second"}')
        return peer

    with closing(listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with connect(url, max_connections=1) as transport:
            call = asyncio.create_task(post(transport))
            first = await accept(listener)
            await answer(first, b'{"whose":"first"}')
            await call
            serving = asyncio.create_task(serve_second())
            await asyncio.sleep(0)
            interrupt(first)
            if heard:
                await asyncio.sleep(0.05)
            assert (await post(transport)).body == b'{"whose":"second"}'
            (await serving).close()
            first.close()


async def test_a_connection_is_not_kept_for_long(serve: Serve, connect: Connect) -> None:
    """What has been idle for longer than the limit is closed by us, before the server would."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(b"{}"))
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(server.url, keep_alive_seconds=0.1) as transport:
        await post(transport)
        await asyncio.sleep(0.3)
        await post(transport)
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 5)
    assert len(server.visits) == 2


async def test_a_kept_connection_that_closes_under_a_call_is_ambiguous(
    serve: Serve, connect: Connect
) -> None:
    """A call that meets the server's close is not repeated: it was on the wire once."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(b"{}"))
        await visit.receive()

    async with serve(script) as server, connect(server.url) as transport:
        await post(transport)
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.AMBIGUOUS
    assert len(server.requests) == 2


async def test_retry_repeats_a_call_that_met_the_close(serve: Serve, connect: Connect) -> None:
    """Such a call is repeated by the owner of retries alone, once, on a new connection."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(b"{}"))
        await visit.receive()

    retry = Retry(3, RetryBudget(0.2, 10), lambda seconds: asyncio.sleep(0), random.Random(1))
    async with serve(script) as server, connect(server.url) as transport:
        await post(transport)

        async def attempt() -> Response:
            return await post(transport)

        response = await retry.call(attempt, Deadline.after(30), others_left=False)
    assert response.status == 200
    assert [len(visit.requests) for visit in server.visits] == [2, 1]


@BOTH_WAYS
async def test_the_limit_for_a_connection_ends_with_it(
    ask: Ask, serve: Serve, connect: Connect
) -> None:
    """An answer may take longer than a connection, on a new one as on one that was kept."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.receive()
            await asyncio.sleep(0.4)
            await visit.send(good_answer(ask))

    async with (
        serve(script) as server,
        connect(server.url, connect_seconds=0.2, first_byte_seconds=20) as transport,
    ):
        await ask(transport)
        await ask(transport)
    assert len(server.visits) == 1


# Places


class Holding:
    """Answers once `hold` says that so many calls are there together, or any call to come."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.inside = 0
        self.most_inside = 0
        self._wanted = 1
        self._enough = asyncio.Event()

    def hold(self, calls: int) -> None:
        self._wanted, self.inside, self._enough = calls, 0, asyncio.Event()

    async def __call__(self, visit: Visit) -> None:
        while True:
            await visit.receive()
            enough = self._enough
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            if self.inside >= self._wanted:
                enough.set()
            await enough.wait()
            self.inside -= 1
            await visit.send(whole(b"{}"))

    def let_go(self) -> None:
        self._wanted = 1
        self._enough.set()


async def every_place_can_be_had(transport: Transport, holding: Holding) -> None:
    """As many calls as there are places are at the server at once."""
    holding.hold(holding.places)
    await asyncio.gather(*(post(transport) for _ in range(holding.places)))


async def test_more_calls_than_places_take_turns(serve: Serve, connect: Connect) -> None:
    """Calls beyond the limit wait their turn and all are answered, on no more connections."""
    holding = Holding(3)

    async with (
        serve(holding) as server,
        connect(server.url, max_connections=3, first_byte_seconds=20) as transport,
    ):
        await asyncio.gather(*(post(transport) for _ in range(60)))
        assert holding.most_inside <= 3
        assert len(server.visits) <= 3
        await every_place_can_be_had(transport, holding)


async def test_the_wait_for_a_place_is_bounded(serve: Serve, connect: Connect) -> None:
    """A call that gets no place has cost nothing and ends with its caller's deadline, or else with
    the limit for an answer; the places are there when they have been given back."""
    streams = [EVENTS + CHUNKED] * 2

    async def script(visit: Visit) -> None:
        while True:
            await visit.receive()
            await visit.send(streams.pop() if streams else whole(b"{}"))

    async with (
        serve(script) as server,
        connect(server.url, max_connections=2, idle_seconds=20) as transport,
    ):
        async with AsyncExitStack() as held:
            for _ in range(2):
                await held.enter_async_context(transport.stream(CALL, headers=HEADERS))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await post(transport)
            error = await failure_of(post, transport)
            assert isinstance(error, ProviderTimeout)
            assert error.billing is Billing.NOTHING
        assert len(server.requests) == 2
        await asyncio.gather(post(transport), post(transport))


async def test_waiters_that_leave_take_no_place_along(serve: Serve, connect: Connect) -> None:
    """However calls are cancelled, waiting or at the very moment of their turn, afterwards every
    place can be had."""
    holding = Holding(3)
    chance = random.Random(11)

    async with (
        serve(holding) as server,
        connect(server.url, max_connections=3, first_byte_seconds=20) as transport,
    ):
        for _ in range(40):
            holding.hold(99)
            calls = [asyncio.create_task(post(transport)) for _ in range(12)]
            await until(lambda: holding.inside == holding.places)
            if chance.random() < 0.5:
                holding.let_go()
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
            for call in chance.sample(calls, 12):
                call.cancel()
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
            await asyncio.gather(*calls, return_exceptions=True)
            await every_place_can_be_had(transport, holding)
