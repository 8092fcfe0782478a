"""Whatever a vendor's server does, the transport says what is known about it and lets go."""

import asyncio
import gzip
import time
from collections.abc import Callable

import pytest

from app.errors import Billing, ProviderTimeout, ProviderUnavailable
from app.providers.base import ServerSentEvent

from .asking import (
    BOTH_WAYS,
    CALL,
    CHUNKED,
    EVENTS,
    HEADERS,
    JSON,
    OK,
    Ask,
    chunk,
    collect,
    failure_of,
    post,
    whole,
)
from .conftest import Connect, Serve, Visit

pytestmark = pytest.mark.anyio

# Nothing was sent


@BOTH_WAYS
async def test_a_refused_connection_costs_nothing(ask: Ask, serve: Serve, connect: Connect) -> None:
    """A refused connection is unavailability, and is known to have cost nothing."""
    async with serve(lambda visit: visit.receive()) as server:
        pass  # the port is closed again
    async with connect(server.url) as transport:
        error = await failure_of(ask, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING


async def test_an_unknown_host_costs_nothing(connect: Connect) -> None:
    """A name that does not resolve is unavailability, and is known to have cost nothing."""
    # Longer than a name can be (RFC 1035, 2.3.4), so that nobody is asked for it.
    async with connect(f"http://{'.'.join(['nobody'] * 40)}") as transport:
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING


async def test_a_failed_tls_handshake_costs_nothing(serve: Serve, connect: Connect) -> None:
    """A server that does not speak TLS never saw the request."""

    async def script(visit: Visit) -> None:
        await visit.reader.read(1)
        await visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(script) as server, connect(f"https://127.0.0.1:{server.port}") as transport:
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING


@pytest.mark.promise("A1")
async def test_the_connect_limit_covers_tls_and_costs_nothing(
    serve: Serve, connect: Connect
) -> None:
    """A server that accepts and never shakes hands crosses the connect limit."""

    async def script(visit: Visit) -> None:
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(f"https://127.0.0.1:{server.port}") as transport:
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderTimeout) and error.limit == "connect"
    assert error.billing is Billing.NOTHING


# It was sent, and no usage came back


@pytest.mark.promise("A1")
@BOTH_WAYS
async def test_silence_crosses_the_first_byte_limit(
    ask: Ask, serve: Serve, connect: Connect
) -> None:
    """A server that takes the request and says nothing has timed out and may have billed."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(server.url) as transport:
        error = await failure_of(ask, transport)
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 1)
    assert isinstance(error, ProviderTimeout) and error.limit == "first_byte"
    assert error.billing is Billing.AMBIGUOUS


@pytest.mark.promise("A1")
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(lambda head: head + b"Content-Length: 50\r\n\r\n", id="headers"),
        pytest.param(lambda head: head + CHUNKED + chunk(b"data: x\n\n"), id="some-body"),
    ],
)
@pytest.mark.parametrize(("ask", "head"), [(post, JSON), (collect, EVENTS)], ids=["json", "stream"])
async def test_silence_within_the_body_crosses_the_idle_limit(
    ask: Ask, head: bytes, sent: Callable[[bytes], bytes], serve: Serve, connect: Connect
) -> None:
    """Headers then silence, and a stall in mid-body, have timed out and may have billed."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(sent(head))
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(server.url) as transport:
        error = await failure_of(ask, transport)
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 1)
    assert isinstance(error, ProviderTimeout) and error.limit == "idle"
    assert error.billing is Billing.AMBIGUOUS


@pytest.mark.promise("A1")
async def test_a_dripping_body_is_alive_and_only_the_callers_limit_ends_it(
    serve: Serve, connect: Connect
) -> None:
    """Every byte restarts the idle limit; the limit of the whole lies outside."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(JSON + CHUNKED)
        while True:
            await visit.send(chunk(b" "))
            await asyncio.sleep(0.1)

    async with serve(script) as server, connect(server.url) as transport:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await post(transport)
        assert time.monotonic() - started > 0.7


BREAKS = {
    "reset-before-headers": b"",
    "garbage-status-line": b"SSH-2.0-OpenSSH MARKED-PROMPT\r\n\r\n",
    "oversized-header": OK + b"X-Long: " + b"MARKED-PROMPT" * 2_000 + b"\r\n\r\n",
}
BROKEN_BODIES = {
    "cut-with-a-length": b"Content-Length: 500\r\n\r\ndata: x\n\n",
    "cut-in-a-chunk": CHUNKED + b"ff\r\ndata: x\n\n",
    "bad-chunk": CHUNKED + chunk(b"data: x\n\n") + b"MARKED-PROMPT\r\n",
}


@BOTH_WAYS
@pytest.mark.parametrize("sent", BREAKS.values(), ids=BREAKS)
async def test_what_breaks_before_the_headers_may_have_billed(
    ask: Ask, sent: bytes, serve: Serve, connect: Connect
) -> None:
    """A connection that ends, or turns to nonsense, instead of an answer is ambiguous."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(sent)
        if not sent:
            visit.reset()

    async with serve(script) as server, connect(server.url) as transport:
        error = await failure_of(ask, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.AMBIGUOUS
    assert len(server.requests) == 1


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
@pytest.mark.parametrize(("ask", "head"), [(post, JSON), (collect, EVENTS)], ids=["json", "stream"])
async def test_what_breaks_within_the_body_may_have_billed(
    ask: Ask, head: bytes, sent: bytes, reset: bool, serve: Serve, connect: Connect
) -> None:
    """A body that is cut, cleanly or not, or is badly framed, is ambiguous."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(head + sent)
        await asyncio.sleep(0.02)
        if reset:
            visit.reset()

    async with serve(script) as server, connect(server.url) as transport:
        error = await failure_of(ask, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.AMBIGUOUS
    assert len(server.requests) == 1


async def test_a_body_without_length_ends_with_its_connection(
    serve: Serve, connect: Connect
) -> None:
    """A clean close of an unframed body cannot be told from its end: the adapter has to judge."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(JSON + b'\r\n{"cut":')

    async with serve(script) as server, connect(server.url) as transport:
        assert (await post(transport)).body == b'{"cut":'


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(whole(b"x" * 20_000), id="oversized"),
        pytest.param(None, id="endless"),
    ],
)
async def test_a_body_beyond_the_limit_is_left(
    sent: bytes | None, serve: Serve, connect: Connect
) -> None:
    """An answer that is too long, or never ends, is dropped at the limit."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(sent or JSON + CHUNKED)
        while sent is None:
            await visit.send(chunk(b"x" * 1_000))

    async with serve(script) as server, connect(server.url) as transport:
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.AMBIGUOUS


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"data: " + b"x" * 1_000 + b"\n", id="one-event"),
        pytest.param(b"x" * 1_000, id="one-line"),
        pytest.param(b": comment\n" * 100, id="comments"),
        pytest.param(b"data: x\n\n" * 100, id="events"),
    ],
)
async def test_an_endless_stream_is_left(piece: bytes, serve: Serve, connect: Connect) -> None:
    """Neither an event nor a stream grows without bound."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(EVENTS + CHUNKED)
        while True:
            await visit.send(chunk(piece))

    async with serve(script) as server, connect(server.url) as transport:
        error = await failure_of(collect, transport)
    assert isinstance(error, ProviderUnavailable)


# Letting go


@pytest.mark.promise("A7")
@BOTH_WAYS
async def test_cancelling_closes_the_upstream(ask: Ask, serve: Serve, connect: Connect) -> None:
    """A call that is cancelled from outside ends as cancelled and hangs up within a second."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(EVENTS + CHUNKED + chunk(b"data: x\n\n") if ask is collect else b"")
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(server.url) as transport:
        task = asyncio.create_task(ask(transport))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 1)


@BOTH_WAYS
async def test_an_outer_deadline_is_not_taken_for_our_own(
    ask: Ask, serve: Serve, connect: Connect
) -> None:
    """The caller's deadline raises the caller's `TimeoutError`, not a provider's."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(EVENTS + CHUNKED if ask is collect else b"")
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(server.url) as transport:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask(transport)
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 1)


async def test_leaving_a_stream_early_closes_the_upstream(serve: Serve, connect: Connect) -> None:
    """A stream that is left after its first event hangs up within a second."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(EVENTS + CHUNKED + chunk(b"data: x\n\n"))
        await visit.wait_for_hang_up()

    async with serve(script) as server, connect(server.url) as transport:
        async with transport.stream(CALL, headers=HEADERS) as response:
            assert await anext(response.events()) == ServerSentEvent("message", "x")
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 1)


# What works


@pytest.mark.promise("V3")
async def test_a_call_carries_its_headers_and_its_request_id(
    serve: Serve, connect: Connect
) -> None:
    """One POST with the adapter's headers and body, the request id, and no wish for compression."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(b'{"a":1}', JSON + b"X-Mixed-Case: Yes\r\n"))

    async with serve(script) as server, connect(server.url + "/v1/") as transport:
        response = await post(transport)
    assert (response.status, response.body) == (200, b'{"a":1}')
    assert response.headers["x-mixed-case"] == "Yes"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat HTTP/1.1"
    assert {b"authorization: Bearer sk-MARKED-KEY", b"x-request-id: request-1"} <= set(lines)
    assert b"accept-encoding: identity" in lines
    assert body == CALL.body


@pytest.mark.promise("A7")
async def test_events_come_as_they_are_sent(serve: Serve, connect: Connect) -> None:
    """An event is handed on before the next one is sent."""
    seen = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(EVENTS + CHUNKED + chunk(b"data: one\n\n"))
        await seen.wait()
        await visit.send(chunk(b"event: e\ndata: two\n\n") + chunk(b""))

    async with (
        serve(script) as server,
        connect(server.url) as transport,
        transport.stream(CALL, headers=HEADERS) as response,
    ):
        events = response.events()
        assert await anext(events) == ServerSentEvent("message", "one")
        seen.set()
        assert [event async for event in events] == [ServerSentEvent("e", "two")]


async def test_connections_are_kept_and_cookies_are_not(serve: Serve, connect: Connect) -> None:
    """Calls and whole streams share one connection; a cookie set on it does not come back."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.receive()
            if len(visit.requests) == 2:
                await visit.send(EVENTS + CHUNKED + chunk(b"data: x\n\n") + chunk(b""))
            else:
                await visit.send(whole(b"{}", JSON + b"Set-Cookie: a=b\r\n"))

    async with serve(script) as server, connect(server.url) as transport:
        await post(transport)
        await collect(transport)
        await post(transport)
    assert len(server.visits) == 1
    assert b"cookie" not in b"".join(server.requests).lower()


async def test_redirects_are_not_followed(serve: Serve, connect: Connect) -> None:
    """A redirect is an answer like any other: the key goes to no other place."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(b"", b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\n"))

    async with serve(script) as server, connect(server.url) as transport:
        assert (await post(transport)).status == 307
    assert len(server.requests) == 1


async def test_a_compressed_body_stays_as_it_is(serve: Serve, connect: Connect) -> None:
    """A body that is compressed against our wish is not unpacked."""
    bomb = gzip.compress(b"0" * 5_000_000)

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(bomb, JSON + b"Content-Encoding: gzip\r\n"))

    async with serve(script) as server, connect(server.url) as transport:
        assert (await post(transport)).body == bomb


ERRORS = {
    "whole": whole(b'{"error":{}}', b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n"),
    "cut": b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n" + b'{"error":{}}',
    "silent": b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n"
    + b'{"error":{}}',
}


@pytest.mark.parametrize("shape", ERRORS)
async def test_an_errors_status_survives_its_body(
    shape: str, serve: Serve, connect: Connect
) -> None:
    """A status is reported with what can be had of its body, however that ends."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(ERRORS[shape])
        if shape == "silent":
            await visit.wait_for_hang_up()

    async with serve(script) as server:
        async with connect(server.url) as transport:
            response = await post(transport)
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert response.body == b'{"error":{}}'
        async with (
            connect(server.url) as transport,
            transport.stream(CALL, headers=HEADERS) as streamed,
        ):
            assert (streamed.status, streamed.body) == (429, b'{"error":{}}')


async def test_an_endless_error_is_cut(serve: Serve, connect: Connect) -> None:
    """An error's body is read up to a limit of its own."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(b"HTTP/1.1 500 Oops\r\n" + CHUNKED)
        while True:
            await visit.send(chunk(b"<html>" * 1_000))

    async with serve(script) as server, connect(server.url) as transport:
        response = await post(transport)
    assert response.status == 500
    assert len(response.body) == 65_536


async def test_parallel_calls_have_a_connection_each(serve: Serve, connect: Connect) -> None:
    """Calls at the same time do not wait for one another."""
    together = asyncio.Barrier(3)

    async def script(visit: Visit) -> None:
        await visit.receive()
        await together.wait()
        await visit.send(whole(b"{}"))

    async with serve(script) as server, connect(server.url) as transport:
        await asyncio.gather(*(post(transport) for _ in range(3)))
    assert len(server.visits) == 3
