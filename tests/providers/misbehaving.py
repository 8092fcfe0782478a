"""A vendor's server in a thread of its own that fails each call in the way that its prompt names.

It answers in OpenAI's format, and every reply says the number of the call that it is meant for.
"""

import asyncio
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from .asking import CHUNKED, EVENTS, JSON, OK, chunk, whole
from .conftest import Script, Visit

Ending = Literal["keep", "close", "reset", "stall", "endless", "pause", "hold"]
Answer = Callable[[str, bool], bytes]
"""What is sent to the call of that number, be it a plain one or a stream."""

_PROMPT = re.compile(rb"fault ([a-z0-9-]+) call (\d+)")
_STREAMING = re.compile(rb'"stream": ?true')
PAUSE_SECONDS = 0.01


def prompt(fault: str, number: int) -> str:
    return f"fault {fault} call {number}"


def _good(number: str, stream: bool) -> bytes:
    if not stream:
        return whole(_reply(number))
    return EVENTS + CHUNKED + b"".join(map(chunk, _events(number))) + chunk(b"")


def _half(number: str, stream: bool) -> bytes:
    answer = _good(number, stream)
    start = answer.index(b"\r\n\r\n") + 4
    return answer[: (start + len(answer)) // 2]


def _reply(number: str) -> bytes:
    choice = {"index": 0, "message": {"content": number}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return json.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage}).encode()


def _events(number: str) -> Iterator[bytes]:
    first = {"id": "1", "choices": [{"index": 0, "delta": {"content": number}}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    for data in (json.dumps(first), json.dumps(last), "[DONE]"):
        yield b"data: %b\n\n" % data.encode()


def _head(_: str, stream: bool) -> bytes:
    return (EVENTS if stream else JSON) + CHUNKED


def _error(status: bytes) -> Answer:
    return lambda number, stream: whole(b'{"error":{"message":"no"}}', b"HTTP/1.1 %b\r\n" % status)


def _bytes(sent: bytes) -> Answer:
    return lambda number, stream: sent


def _body(data: bytes) -> Answer:
    return lambda number, stream: (
        _head(number, stream) + chunk(data) + chunk(b"") if stream else whole(data)
    )


FAULTS: dict[str, tuple[Answer, Ending]] = {
    "none": (_good, "keep"),
    "closed-behind-the-answer": (_good, "close"),
    "reset-behind-the-answer": (_good, "reset"),
    "another-answer-unasked": (lambda n, s: _good(n, s) + _good("0", s), "keep"),
    "refused": (_good, "pause"),
    "status-500": (_error(b"500 Oops"), "keep"),
    "status-429": (_error(b"429 Slow"), "keep"),
    "error-page": (_bytes(whole(b"<html>", b"HTTP/1.1 502 Bad\r\n")), "close"),
    "not-a-reply": (_body(b"data: <html>\n\n"), "keep"),
    "closed-before-headers": (_bytes(b""), "close"),
    "reset-before-headers": (_bytes(b""), "reset"),
    "closed-within-headers": (_bytes(OK + b"Content-Ty"), "close"),
    "reset-within-headers": (_bytes(OK + b"Content-Ty"), "reset"),
    "closed-within-body": (_half, "close"),
    "reset-within-body": (_half, "reset"),
    "garbage": (_bytes(b"SSH-2.0-OpenSSH\r\n\r\n"), "close"),
    "bad-chunk": (lambda n, s: _head(n, s) + b"what?\r\n", "keep"),
    "oversized": (_body(b"x" * 100_000), "keep"),
    "endless": (_head, "endless"),
    "silent": (_bytes(b""), "stall"),
    "silent-within-headers": (_bytes(OK + b"Content-Ty"), "stall"),
    "silent-within-body": (_half, "stall"),
    "held": (_good, "hold"),
}
"""`held` answers when so many calls as there are places are there together."""


class Listener:
    """A port in a thread of its own: a script for every connection, and no memory of it."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        self.port = 0
        self.errors: list[Exception] = []
        """What the script raised, other than that a connection has ended."""
        self._script = script
        self._tls = tls
        self._running: set[asyncio.Task[object]] = set()
        self._socket: socket.socket | None = None

    @classmethod
    @contextmanager
    def in_thread(cls, script: Script, tls: ssl.SSLContext | None = None) -> Iterator["Listener"]:
        listener, loop = cls(script, tls), asyncio.new_event_loop()
        # Under TLS it has much to say when a client breaks off.
        loop.set_exception_handler(lambda *_: None)
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(listener._open(), loop).result()
            yield listener
        finally:
            asyncio.run_coroutine_threadsafe(listener._close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            assert listener.errors == []

    def pause(self) -> None:
        """Nobody listens for a moment."""
        if self._socket is not None:
            self._stop_listening()
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._listen)

    # `asyncio.Server` forgets what it accepts while it is closed.

    def _listen(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _stop_listening(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        assert self._socket is not None
        with suppress(BlockingIOError):
            peer, _ = self._socket.accept()
            peer.setblocking(False)
            task = asyncio.create_task(self._visit(peer))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _visit(self, peer: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        with suppress(OSError, asyncio.CancelledError):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, peer, ssl=self._tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await self._script(Visit(reader, writer))
            except (OSError, EOFError):
                pass
            except Exception as error:
                self.errors.append(error)
            finally:
                writer.close()

    async def _open(self) -> None:
        self._listen()

    async def _close(self) -> None:
        await asyncio.sleep(PAUSE_SECONDS * 2)
        self._stop_listening()
        await asyncio.sleep(0)  # what was accepted just now begins, so that it can end
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


class Misbehaving:
    """The script. `received` are the numbers of the calls whose request has come in whole."""

    def __init__(self, places: int) -> None:
        self.received: set[int] = set()
        self.listener: Listener | None = None
        self._places = places
        self._held: list[asyncio.Event] = []

    @classmethod
    @contextmanager
    def in_thread(cls, places: int, tls: ssl.SSLContext | None) -> Iterator["Misbehaving"]:
        misbehaving = cls(places)
        with Listener.in_thread(misbehaving, tls) as listener:
            misbehaving.listener = listener
            yield misbehaving

    @property
    def port(self) -> int:
        assert self.listener is not None
        return self.listener.port

    async def __call__(self, visit: Visit) -> None:
        while await self._answer(visit):
            visit.requests.clear()

    async def _answer(self, visit: Visit) -> bool:
        """Whether the connection takes another call."""
        request = await visit.receive()
        found = _PROMPT.search(request)
        assert found is not None
        fault, number = found[1].decode(), found[2].decode()
        self.received.add(int(number))
        answer, ending = FAULTS[fault]
        if ending == "hold":
            await self._hold()
        await visit.send(answer(number, bool(_STREAMING.search(request))))
        match ending:
            case "reset":
                await asyncio.sleep(0.001)  # or what was sent may be lost with the connection
                visit.reset()
            case "stall":
                await visit.wait_for_hang_up()
            case "endless":
                while not visit.writer.is_closing():
                    await asyncio.sleep(0)  # under TLS a lost connection does not make drain wait
                    await visit.send(chunk(b": " + b"x" * 10_000 + b"\n"))
            case "pause":
                assert self.listener is not None
                self.listener.pause()
        return ending in ("keep", "pause", "hold")

    async def _hold(self) -> None:
        mine = asyncio.Event()
        self._held.append(mine)
        if len(self._held) == self._places:
            for event in self._held:
                event.set()
            self._held.clear()
        await mine.wait()
