"""Callers with a fixed number of requests, and holders of many open streams.

wrk ends by the clock: what it has begun by then was paid for by the service and is counted by
nobody, which weighs the more the longer a request takes. Here every request is one that was asked
for, and has its whole answer.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

from ..guardrails.load import CHAT, LoadFailed

TEXT = b" bulkhead"
"""What each chunk of the provider's stand-in says."""
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"
OPENING = 50
"""Streams that are opened at a time."""
PATIENCE_SECONDS = 120.0
SPARE_FILES = 500


def request(
    body: Mapping[str, Any], *, key: str = "benchmark-key-1", idempotency_key: str = ""
) -> bytes:
    """A chat completion, as it goes over the wire."""
    content = json.dumps(body).encode()
    head = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
    }
    if idempotency_key:
        head["Idempotency-Key"] = idempotency_key
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST {CHAT} HTTP/1.1\r\n{lines}\r\n".encode() + content


def ask(url: str, requests: Iterable[bytes], connections: int) -> None:
    """Sends all of them over so many connections. Raises `LoadFailed` unless each has a whole
    answer with status 200."""
    asyncio.run(_ask(url, requests, connections))


async def _ask(url: str, requests: Iterable[bytes], connections: int) -> None:
    left = deque(requests)
    callers = [await _connect(url, left) for _ in range(min(connections, len(left)))]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(caller.over for caller in callers))
    except TimeoutError:
        raise LoadFailed(f"Requests have no answer after {PATIENCE_SECONDS:g} s.") from None
    finally:
        for caller in callers:
            caller.close()


@asynccontextmanager
async def held(url: str, streams: Iterable[bytes]) -> AsyncIterator[Held]:
    """All of them are open, as they are with the first chunk; in the end they are left."""
    holding = Held([])
    waiting = list(streams)
    try:
        while waiting:
            batch = [await _connect(url, deque([waiting.pop()])) for _ in waiting[:OPENING]]
            holding.callers += batch
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.gather(*(caller.began for caller in batch))
            except TimeoutError:
                raise LoadFailed(
                    f"Of {len(holding.callers)} streams not all have begun after"
                    f" {PATIENCE_SECONDS:g} s."
                ) from None
        yield holding
    finally:
        for caller in holding.callers:
            caller.close()


class Held:
    """Streams that are open at once."""

    def __init__(self, callers: list[Connection]) -> None:
        self.callers = callers

    @property
    def chunks(self) -> int:
        """That have come so far. Raises `LoadFailed` if a stream is over."""
        for caller in self.callers:
            if caller.over.done():
                caller.over.result()
                raise LoadFailed("A stream has ended that was to be held open.")
        return sum(caller.chunks for caller in self.callers)


def allow_files(number: int) -> None:
    """Lets this program and those that it starts open so many. Raises `LoadFailed` where the
    system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        raise LoadFailed(
            f"{wanted} files are to be open at once, and the system allows {hard}: raise"
            " `ulimit -Hn`, or choose other curves with ONLY."
        ) from error


async def _connect(url: str, left: deque[bytes]) -> Connection:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(
        lambda: Connection(left), str(address.hostname), address.port or 80
    )
    return caller


class Connection(asyncio.Protocol):
    """Sends one after the other of the requests that are `left`. `over` ends with the last of them,
    or raises `LoadFailed`; `began` ends with the first answer's head."""

    def __init__(self, left: deque[bytes]) -> None:
        self._left = left
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.chunks = 0
        self._head = b""
        self._tail = b""
        self._bytes_left: int | None = None
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            head, found, data = (self._head + data).partition(b"\r\n\r\n")
            if not found:
                self._head = head
                return
            self._begin(head)
        if self._bytes_left is not None:
            self._bytes_left -= len(data)
            if self._bytes_left <= 0:
                self._next()
            return
        self._count(data)
        self._tail = (self._tail + data)[-len(DONE + END) * 2 :]
        if self._tail.endswith(END):
            if DONE in self._tail:
                self._next()
            else:
                self._fail(f"A stream broke off: {self._tail!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("A connection was closed before its answer was whole.")

    def close(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
        for future in (self.began, self.over):
            future.cancel()
            # Nobody may be left to hear of it.
            with suppress(asyncio.CancelledError):
                future.exception()
        self._transport.abort()

    def _begin(self, head: bytes) -> None:
        self._in_body, self._head, self._tail = True, b"", b""
        status, *fields = head.split(b"\r\n")
        lengths = [f for f in fields if f.lower().startswith(b"content-length:")]
        self._bytes_left = int(lengths[0].partition(b":")[2]) if lengths else None
        if status.split()[1] != b"200":
            self._fail(f"A request was refused: {status.decode()}")
        elif not self.began.done():
            self.began.set_result(None)

    def _count(self, data: bytes) -> None:
        # What is split between two reads is one.
        kept = self._tail[-len(TEXT) + 1 :]
        self.chunks += (kept + data).count(TEXT)

    def _next(self) -> None:
        self._in_body = False
        if self._left:
            self._transport.write(self._left.popleft())
        elif not self.over.done():
            self.over.set_result(None)

    def _fail(self, why: str) -> None:
        for future in (self.over, self.began):
            if not future.done():
                future.set_exception(LoadFailed(f"{why}: what is left is no figure of a service"))
        self._transport.abort()
