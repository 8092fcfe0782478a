"""One vendor's HTTP connections, and the truth about what went wrong on them.

It bounds each step of a call and the size of its answer. It repeats nothing, follows nothing, keeps
no cookies, and asks for no compression, so that no small reply unpacks into a huge one. How long a
call may take as a whole is its caller's business: cancelling it closes the connection at once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from ..errors import Billing, ProviderError, ProviderTimeout, ProviderUnavailable
from .base import HTTPCall, ServerSentEvent
from .sse import EventParser, EventTooLarge

_MAX_ERROR_BYTES: Final = 65_536
_STREAM_OVERHEAD: Final = 64
"""Bytes of a stream for each byte of the same reply in one piece: a frame for every token."""

_FAULTS: Final = (
    aiohttp.ClientError,
    HttpProcessingError,  # raised bare for a body with broken chunks
    OSError,  # `TimeoutError` is one
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect_seconds` bounds TCP and TLS, `first_byte_seconds` everything up to the headers,
    `idle_seconds` each silence in the body."""

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
            raise _broken(error, "in the middle of its answer") from None


class Transport:
    """Belongs to the event loop of its first call."""

    def __init__(
        self, base_url: str, timeouts: Timeouts, *, max_reply_bytes: int, max_connections: int
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._proxy = _proxy_for(base_url)
        self._timeouts = timeouts
        self._max_reply_bytes = max_reply_bytes
        self._max_connections = max_connections
        self._client: aiohttp.ClientSession | None = None

    async def post(self, call: HTTPCall, *, request_id: str) -> Response:
        """The answer, whatever its status. Raises `ProviderUnavailable` or `ProviderTimeout`."""
        async with self._open(call, request_id) as reply:
            return Response(reply.status, reply.headers, await reply.read())

    @asynccontextmanager
    async def stream(self, call: HTTPCall, *, request_id: str) -> AsyncIterator[StreamedResponse]:
        """The answer as it comes. Leaving the block early closes the connection at once."""
        async with self._open(call, request_id) as reply:
            if not (reply.is_success and reply.is_event_stream):
                reply.body = await reply.read()
            yield reply

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def _open(self, call: HTTPCall, request_id: str) -> AsyncIterator[StreamedResponse]:
        response = await self._send(call, request_id)
        try:
            yield StreamedResponse(response, self._timeouts.idle_seconds, self._max_reply_bytes)
        finally:
            # After the end of a body its connection is back in the pool, and this does nothing.
            response.close()

    async def _send(self, call: HTTPCall, request_id: str) -> aiohttp.ClientResponse:
        progress = _Progress()
        headers = {**call.headers, "accept-encoding": "identity", "x-request-id": request_id}
        try:
            async with asyncio.timeout(self._timeouts.first_byte_seconds):
                return await self._session().post(
                    self._base_url + call.path,
                    data=call.body,
                    headers=headers,
                    proxy=self._proxy,
                    allow_redirects=False,
                    trace_request_ctx=progress,
                )
        except _FAULTS as error:
            if progress.is_connected:
                raise _broken(error, "before it answered") from None
            raise _not_connected(error) from None

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(_note_connection)
            trace.on_connection_reuseconn.append(_note_connection)
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                # The wait for a free connection is the bulkhead's, so `connect` has no bound.
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=None, sock_connect=self._timeouts.connect_seconds
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trace_configs=[trace],
            )
        return self._client


class _Progress:
    """Whether a call has got its connection: from then on it may have reached the vendor."""

    is_connected = False


async def _note_connection(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: object
) -> None:
    context.trace_request_ctx.is_connected = True


def _proxy_for(base_url: str) -> str | None:
    """Of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, read as other programs read them."""
    url = urlsplit(base_url)
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _not_connected(error: Exception) -> ProviderError:
    if isinstance(error, TimeoutError):
        return ProviderTimeout("no connection within the limit", billing=Billing.NOTHING)
    # The operating system's reason is safe to tell; aiohttp's own words name the proxy's password.
    reason = getattr(error, "os_error", "") or getattr(error, "certificate_error", "")
    return ProviderUnavailable(
        f"no connection: {type(error).__name__} {reason}".rstrip(), billing=Billing.NOTHING
    )


def _broken(error: Exception, when: str) -> ProviderError:
    # Here aiohttp's words quote what came over the wire.
    if isinstance(error, TimeoutError):
        return ProviderTimeout(f"fell silent {when}", billing=Billing.AMBIGUOUS)
    return ProviderUnavailable(
        f"connection broke {when}: {type(error).__name__}", billing=Billing.AMBIGUOUS
    )


def _too_large() -> ProviderUnavailable:
    return ProviderUnavailable("answer exceeds the size limit", billing=Billing.AMBIGUOUS)
