"""A load balancer as small as can be: on real sockets, round robin, and it obeys `/readyz`.

It repeats nothing and hides nothing: what an instance refuses, drops or cuts off is lost for
whoever asked. Callers and instances get a connection for each request; a caller has to ask for that
with `Connection: close`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

PROBE = b"GET /readyz HTTP/1.1\r\nhost: instance\r\nconnection: close\r\n\r\n"
READY = b"HTTP/1.1 200 "
PROBE_TIMEOUT_SECONDS = 2.0
UNSERVED = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
PIECE_BYTES = 65_536


@dataclass(slots=True)
class Instance:
    """One process behind the proxy. `answered` counts the requests that it answered to the end,
    `polls` how often it has said whether it is ready."""

    host: str
    port: int
    ready: bool = False
    answered: int = 0
    polls: int = 0


class Proxy:
    """Asks each instance every `poll_seconds` whether it is ready, and sends new requests to those
    that last said so. What was sent stays where it is, until the instance has answered."""

    def __init__(self, poll_seconds: float) -> None:
        self.url = ""
        self._poll_seconds = poll_seconds
        self._instances: list[Instance] = []
        self._turns = itertools.count()
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    @contextmanager
    def in_thread(cls, poll_seconds: float) -> Iterator[Proxy]:
        """A proxy that runs in a thread of its own until the block ends."""
        proxy, started, loop = cls(poll_seconds), threading.Event(), asyncio.new_event_loop()
        running = loop.create_task(proxy._run(started))
        thread = threading.Thread(target=loop.run_until_complete, args=(running,), name="proxy")
        thread.start()
        try:
            started.wait()
            yield proxy
        finally:
            loop.call_soon_threadsafe(running.cancel)
            thread.join()
            loop.close()

    def add(self, url: str) -> Instance:
        """It gets requests as soon as it has said that it is ready."""
        address = urlsplit(url)
        assert address.hostname and address.port
        instance = Instance(address.hostname, address.port)
        self._instances.append(instance)
        return instance

    def remove(self, instance: Instance) -> None:
        self._instances.remove(instance)

    async def _run(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        with suppress(asyncio.CancelledError):
            await self._poll()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            for instance in tuple(self._instances):
                instance.ready = await _is_ready(instance)
                instance.polls += 1
            await asyncio.sleep(self._poll_seconds)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            ready = [instance for instance in self._instances if instance.ready]
            if ready:
                await _forward(request, ready[next(self._turns) % len(ready)], writer)
            else:
                writer.write(UNSERVED)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # Whoever asked hears of it when the connection closes.
        finally:
            writer.close()


async def _forward(request: bytes, instance: Instance, writer: asyncio.StreamWriter) -> None:
    try:
        reader, sender = await asyncio.open_connection(instance.host, instance.port)
    except OSError:
        writer.write(UNSERVED)
        return
    try:
        sender.write(request)
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        instance.answered += 1
    finally:
        sender.close()


async def _is_ready(instance: Instance) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(instance.host, instance.port)
            try:
                writer.write(PROBE)
                return (await reader.read()).startswith(READY)
            finally:
                writer.close()
    return False


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")
