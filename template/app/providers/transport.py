"""One vendor's HTTP connections, and the truth about what went wrong on them.

It bounds each step of a call and the size of its answer. It repeats nothing, follows nothing, keeps
no cookies, and asks for no compression, so that no small reply unpacks into a huge one. How long a
call may take as a whole is its caller's business: cancelling it closes the connection at once.
"""

import asyncio
import select
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from ..errors import Billing, ProviderError, ProviderTimeout, ProviderUnavailable
from .base import HTTPCall, ServerSentEvent
from .sse import EventParser, EventTooLarge

_MAX_ERROR_BYTES: Final = 65_536
_STREAM_OVERHEAD: Final = 64
"""Bytes of a stream for each byte of the same reply in one piece: a frame for every token."""
_poll: Final = getattr(select, "poll", None)
"""Has no bound on the number of a socket; `select` has none on Windows, which lacks the other."""

_FAULTS: Final = (
    aiohttp.ClientError,
    HttpProcessingError,  # raised bare for a body with broken chunks
    OSError,  # `TimeoutError` is one
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect_seconds` bounds the way to a new connection (name, TCP, proxy, TLS),
    `first_byte_seconds` everything up to the headers, `idle_seconds` each silence in the body."""

    connect_seconds: float
    first_byte_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as a whole. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamedResponse:
    """An open answer: its headers are here, its events come one by one.

    `body` is set instead when it is no event stream.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, idle_seconds: float, max_bytes: int
    ) -> None:
        self._response = response
        self._idle_seconds = idle_seconds
        self._max_bytes = max_bytes
        self.status = response.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self.body: bytes | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_event_stream(self) -> bool:
        return self._response.content_type == "text/event-stream"

    async def read(self) -> bytes:
        """The whole body; of an error's, what can be had soon."""
        return await (self._whole() if self.is_success else self._beginning())

    async def _whole(self) -> bytes:
        body = bytearray()
        while piece := await self._read():
            body += piece
            if len(body) > self._max_bytes:
                raise _too_large()
        return bytes(body)

    async def _beginning(self) -> bytes:
        # The status says the most, and a body that breaks or drips must not hide it.
        body = bytearray()
        with suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(self._idle_seconds):
                while len(body) < _MAX_ERROR_BYTES and (piece := await self._read()):
                    body += piece
        return bytes(body[:_MAX_ERROR_BYTES])

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Raises `ProviderTimeout` after a silence, `ProviderUnavailable` when the body breaks."""
        parser = EventParser(self._max_bytes)
        bytes_left = self._max_bytes * _STREAM_OVERHEAD
        while piece := await self._read():
            bytes_left -= len(piece)
            if bytes_left < 0:
                raise _too_large()
            try:
                for event in parser.feed(piece):
                    yield event
            except EventTooLarge:
                raise _too_large() from None

    async def _read(self) -> bytes:
        """Whatever has come; waits for the first byte of it. Empty at the end."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await self._response.content.readany()
        except _FAULTS as error:
            raise _broken(error, "in the middle of its answer", "idle") from None


class Transport:
    """Belongs to the event loop of its first call.

    A connection that has been idle for `keep_alive_seconds` is not used again.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        max_reply_bytes: int,
        max_connections: int,
        keep_alive_seconds: float,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._proxy = proxy_for(base_url)
        self._timeouts = timeouts
        self._max_reply_bytes = max_reply_bytes
        self._max_connections = max_connections
        self._keep_alive_seconds = keep_alive_seconds
        self._tls = _tls_context() if _needs_tls(base_url, self._proxy) else True
        self._client: aiohttp.ClientSession | None = None

    async def post(self, call: HTTPCall, *, headers: Mapping[str, str]) -> Response:
        """The answer, whatever its status. Raises `ProviderUnavailable` or `ProviderTimeout`."""
        async with self._open(call, headers) as reply:
            return Response(reply.status, reply.headers, await reply.read())

    @asynccontextmanager
    async def stream(
        self, call: HTTPCall, *, headers: Mapping[str, str]
    ) -> AsyncIterator[StreamedResponse]:
        """The answer as it comes. Leaving the block early closes the connection at once."""
        async with self._open(call, headers) as reply:
            if not (reply.is_success and reply.is_event_stream):
                reply.body = await reply.read()
            yield reply

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def _open(
        self, call: HTTPCall, headers: Mapping[str, str]
    ) -> AsyncIterator[StreamedResponse]:
        response = await self._send(call, headers)
        try:
            if response.status == 407:  # only a proxy says so: the vendor has heard nothing
                raise _proxy_refuses(407)
            yield StreamedResponse(response, self._timeouts.idle_seconds, self._max_reply_bytes)
        finally:
            # After the end of a body its connection is back in the pool, and this does nothing.
            response.close()

    async def _send(self, call: HTTPCall, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        progress = _Progress(self._timeouts)
        _PROGRESS.set(progress)
        try:
            async with progress.limit:
                return await self._session().post(
                    self._base_url + call.path,
                    data=call.body,
                    headers={**call.headers, "accept-encoding": "identity", **headers},
                    proxy=self._proxy,
                    allow_redirects=False,
                )
        except _FAULTS as error:
            if progress.is_sent:
                raise _broken(error, "before it answered", "first_byte") from None
            raise _not_connected(error) from None

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=_Connector(
                    limit=self._max_connections,
                    keepalive_timeout=self._keep_alive_seconds,
                    ssl=self._tls,
                ),
                # The limits are those of `_Progress` and of the readers.
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._client


class _Progress:
    """How far a call has got, and the limit that it is under until it is answered."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.is_sent = False
        """From then on it may have reached the vendor."""
        self._loop = asyncio.get_running_loop()
        self._connect_seconds = timeouts.connect_seconds
        self._answered_by = self._loop.time() + timeouts.first_byte_seconds
        self.limit = asyncio.timeout_at(self._answered_by)

    def connect(self) -> None:
        # Begins behind the wait for a free connection, which is the bulkhead's affair.
        connected_by = self._loop.time() + self._connect_seconds
        self.limit.reschedule(min(connected_by, self._answered_by))

    def connected(self) -> None:
        self.limit.reschedule(self._answered_by)


_PROGRESS: Final[ContextVar[_Progress]] = ContextVar("progress")
"""That of the call which a connection is wanted for."""


class _Connector(aiohttp.TCPConnector):
    """Tells each call how far it has got, at a tenth of what aiohttp's signals for that take.

    Hands out no kept connection on which its server has closed, or spoken, while it was idle:
    aiohttp goes by what the event loop has heard by then, and takes an answer that nobody asked
    for as that of the next call: github.com/aio-libs/aiohttp/issues/13656.
    """

    def __init__(self, *, limit: int, keepalive_timeout: float, ssl: ssl.SSLContext | bool) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, ssl=ssl)
        self._used: WeakSet[object] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            # From here to the first byte sent nothing is awaited.
            if connection.protocol not in self._used:
                self._used.add(connection.protocol)
                break
            if _is_quiet(connection):
                break
            connection.close()
        _PROGRESS.get().is_sent = True
        return connection

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> ResponseHandler:
        progress = _PROGRESS.get()
        progress.connect()
        protocol = await super()._create_connection(req, traces, timeout)
        progress.connected()
        return protocol


def _is_quiet(connection: Connection) -> bool:
    """Whether nothing has come on an idle connection, be it bytes or its end."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        return False
    socket = transport.get_extra_info("socket")
    if _poll is None:
        return not select.select([socket], [], [], 0)[0]
    poll = _poll()
    poll.register(socket, select.POLLIN)
    return not poll.poll(0)


def proxy_for(base_url: str) -> str | None:
    """Of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, read as other programs read them."""
    url = urlsplit(base_url)
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _needs_tls(base_url: str, proxy: str | None) -> bool:
    return any(url.lower().startswith("https:") for url in (base_url, proxy or ""))


def _tls_context() -> ssl.SSLContext:
    """Believes the system's authorities; OpenSSL reads `SSL_CERT_FILE` and `SSL_CERT_DIR`."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _not_connected(error: Exception) -> ProviderError:
    if isinstance(error, TimeoutError):
        return ProviderTimeout(
            "no connection within the limit", billing=Billing.NOTHING, limit="connect"
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _proxy_refuses(error.status)
    # The operating system's reason is safe to tell; aiohttp's own words name the proxy's password.
    reason = getattr(error, "os_error", "") or getattr(error, "certificate_error", "")
    return ProviderUnavailable(
        f"no connection: {type(error).__name__} {reason}".rstrip(), billing=Billing.NOTHING
    )


def _proxy_refuses(status: int) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"no connection: the proxy answered {status}", billing=Billing.NOTHING
    )


def _broken(error: Exception, when: str, limit: Literal["first_byte", "idle"]) -> ProviderError:
    # Here aiohttp's words quote what came over the wire.
    if isinstance(error, TimeoutError):
        return ProviderTimeout(f"fell silent {when}", billing=Billing.AMBIGUOUS, limit=limit)
    return ProviderUnavailable(
        f"connection broke {when}: {type(error).__name__}", billing=Billing.AMBIGUOUS
    )


def _too_large() -> ProviderUnavailable:
    return ProviderUnavailable("answer exceeds the size limit", billing=Billing.AMBIGUOUS)
