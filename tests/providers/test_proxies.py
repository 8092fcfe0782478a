"""A proxy from the environment: calls go through it, and what it does wrong costs nothing."""

import asyncio
import base64
import logging
from contextlib import suppress

import pytest

from app.errors import Billing, ProviderTimeout, ProviderUnavailable

from .asking import BOTH_WAYS, Ask, failure_of, good_answer, post, whole
from .conftest import Connect, IssueCertificate, Serve, Visit

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_network")]

VENDOR = "https://model.invalid/v1"
"""A name that nobody but the proxy can find."""
CREDENTIALS = "user:MARKED%40PASSWORD"
AUTHORIZATION = b"Basic " + base64.b64encode(b"user:MARKED@PASSWORD")
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
PATIENT = {"first_byte_seconds": 60, "idle_seconds": 60}


class Tunnel:
    """Leads every CONNECT to one server of this machine. `heads` is what it could read."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heads: list[bytes] = []

    async def __call__(self, visit: Visit) -> None:
        self.heads.append(await visit.reader.readuntil(b"\r\n\r\n"))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await visit.send(OPEN)
            await asyncio.gather(_pump(visit.reader, writer), _pump(reader, visit.writer))
        finally:
            writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    target.close()


def proxy_at(port: int, scheme: str = "http") -> str:
    return f"{scheme}://{CREDENTIALS}@127.0.0.1:{port}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@BOTH_WAYS
@pytest.mark.usefixtures("trusted")
async def test_calls_go_through_a_tunnel(
    ask: Ask,
    scheme: str,
    serve: Serve,
    connect: Connect,
    certified: IssueCertificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`HTTPS_PROXY` takes the calls of `https` URLs. It learns the vendor's name and is shown the
    credentials, which the vendor never sees; a tunnel serves one call after another."""

    async def model(visit: Visit) -> None:
        while True:
            await visit.receive()
            await visit.send(good_answer(ask))

    async with serve(model, certified("model.invalid")) as vendor:
        tunnel = Tunnel(vendor.port)
        tls = certified("127.0.0.1") if scheme == "https" else None
        async with serve(tunnel, tls) as proxy:
            monkeypatch.setenv("https_proxy", proxy_at(proxy.port, scheme))
            async with connect(VENDOR) as transport:
                await ask(transport)
                await ask(transport)
    (head,) = tunnel.heads
    assert head.startswith(b"CONNECT model.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: " + AUTHORIZATION in head
    assert len(vendor.requests) == 2
    assert not [request for request in vendor.requests if b"proxy" in request.lower()]


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
async def test_a_plain_call_is_handed_to_the_proxy(
    spelling: type[str], serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HTTP_PROXY` takes the calls of `http` URLs, with the credentials, for which each is shown
    them anew; `NO_PROXY` takes hosts out again."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.receive()
            await visit.send(whole(b"{}"))

    async with serve(script) as proxy:
        monkeypatch.setenv(spelling("http_proxy"), proxy_at(proxy.port))
        async with connect("http://model.invalid/v1") as transport:
            await post(transport)
            await post(transport)
        for request in proxy.requests:
            assert request.startswith(b"POST http://model.invalid/v1/chat HTTP/1.1\r\n")
            assert b"Proxy-Authorization: " + AUTHORIZATION in request
        assert len(proxy.visits) == 1
        monkeypatch.setenv(spelling("no_proxy"), "other.invalid,model.invalid")
        async with connect("http://model.invalid/v1") as transport:
            error = await failure_of(post, transport)
    assert error.billing is Billing.NOTHING
    assert len(proxy.requests) == 2


async def test_a_proxy_may_be_named_without_a_scheme(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host and port alone mean plain HTTP, as they do to other programs."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(whole(b"{}"))

    async with serve(script) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        async with connect("http://model.invalid/v1") as transport:
            assert (await post(transport)).status == 200


BROKEN = {
    "wants-credentials": b"HTTP/1.1 407 MARKED\r\nProxy-Authenticate: Basic\r\n\r\n",
    "refuses": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "bad-gateway": b"HTTP/1.1 502 MARKED\r\nContent-Length: 6\r\n\r\nMARKED",
    "hangs-up": b"",
    "hangs-up-early": b"HTTP/1.1 200 Conn",
    "speaks-no-http": b"SSH-2.0-MARKED\r\n\r\n",
    "ends-behind-its-consent": OPEN,
    "leads-to-no-tls": OPEN + b"HTTP/1.1 400 MARKED\r\n\r\n",
}
SILENT = {
    "at-once": b"",
    "within-its-head": b"HTTP/1.1 200 Conn",
    "behind-its-consent": OPEN,
}


@BOTH_WAYS
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_a_proxy_that_fails_costs_nothing(
    sent: bytes,
    reset: bool,
    ask: Ask,
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever it says or does instead of a tunnel, the vendor has heard nothing. Neither the
    error, nor its traceback, nor a log tells the credentials."""

    async def script(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.send(sent)
        await asyncio.sleep(0.02)
        if reset:
            visit.reset()

    caplog.set_level(logging.DEBUG)
    async with serve(script) as proxy:
        monkeypatch.setenv("https_proxy", proxy_at(proxy.port))
        async with connect(VENDOR, **PATIENT) as transport:
            error = await failure_of(ask, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING
    assert len(proxy.visits) == 1
    assert "MARKED" not in caplog.text and "MARKED" not in repr(error)


@BOTH_WAYS
@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
async def test_a_silent_proxy_crosses_the_connect_limit(
    sent: bytes, ask: Ask, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that accepts and falls silent, at whatever point, is part of the way to a connection:
    it is left long before the limit for an answer, at no cost, and hung up on."""

    async def script(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.send(sent)
        await visit.wait_for_hang_up()

    async with serve(script) as proxy:
        monkeypatch.setenv("https_proxy", proxy_at(proxy.port))
        async with connect(VENDOR, **PATIENT) as transport:
            error = await failure_of(ask, transport)
            await asyncio.wait_for(proxy.visits[0].hung_up.wait(), 5)
    assert isinstance(error, ProviderTimeout)
    assert error.billing is Billing.NOTHING


@pytest.mark.parametrize("vendor", [VENDOR, "http://model.invalid/v1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "proxy.invalid"], ids=["dead", "unknown"])
async def test_a_proxy_that_is_not_there_costs_nothing(
    host: str, vendor: str, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection to the proxy, or a name that does not resolve, is unavailability."""
    async with serve(lambda visit: visit.receive()) as proxy:
        pass  # the port is closed again
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, f"http://{CREDENTIALS}@{host}:{proxy.port}")
    async with connect(vendor) as transport:
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING


@BOTH_WAYS
async def test_a_proxys_wish_for_credentials_is_not_the_vendors(
    ask: Ask, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """407 to a plain call comes from the proxy: nobody's request is to blame, nothing was sent on,
    and its connection is let go."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(b"HTTP/1.1 407 MARKED\r\nContent-Length: 99\r\n\r\nMARKED")
        await visit.wait_for_hang_up()

    async with serve(script) as proxy:
        monkeypatch.setenv("http_proxy", proxy_at(proxy.port))
        async with connect("http://model.invalid/v1") as transport:
            error = await failure_of(ask, transport)
            await asyncio.wait_for(proxy.visits[0].hung_up.wait(), 5)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING
    assert "407" in str(error)


@BOTH_WAYS
@pytest.mark.usefixtures("trusted")
async def test_a_tunnel_that_breaks_under_a_call_is_ambiguous(
    ask: Ask,
    serve: Serve,
    connect: Connect,
    certified: IssueCertificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once the request is in the tunnel, the vendor may have got it."""

    async def model(visit: Visit) -> None:
        await visit.receive()

    async with (
        serve(model, certified("model.invalid")) as vendor,
        serve(Tunnel(vendor.port)) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy_at(proxy.port))
        async with connect(VENDOR) as transport:
            error = await failure_of(ask, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.AMBIGUOUS
    assert len(vendor.requests) == 1
