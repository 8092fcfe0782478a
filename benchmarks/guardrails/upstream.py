"""A provider that answers at once and costs next to nothing, in OpenAI's wire format.

`python -m benchmarks.guardrails.upstream` serves it on `PORT`. It reads no more of a request than
whether it asks for a stream and of how many chunks (`max_tokens`), and each chunk is a write of
its own, `INTERVAL_SECONDS` after the one before, if that is set; only the first comes at once. Any
GET is answered too: it says that the stand-in is up.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, cast

import uvloop

CONTENT: Final = "A bulkhead keeps what fails in one place from taking the rest along."
CHUNKS: Final = 20
"""Of a stream whose request does not say."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM: Final = re.compile(rb'"stream": *true')
_MAX_TOKENS: Final = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
_COMMON: Final = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": "gpt-6-luna"}


def usage(output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": 40,
        "completion_tokens": output_tokens,
        "total_tokens": 40 + output_tokens,
    }


def reply() -> bytes:
    """A whole response."""
    message = {"role": "assistant", "content": CONTENT}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {**_COMMON, "object": "chat.completion", "choices": [choice], "usage": usage(16)}
    content = json.dumps(body).encode()
    return b"".join(
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",
            b"content-length: %d\r\n\r\n" % len(content),
            content,
        )
    )


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def events(chunks: int) -> Iterator[bytes]:
    """The body of a stream: so many chunks with text, and what comes before and after them."""
    yield _event(_choice({"role": "assistant", "content": ""}))
    for _ in range(chunks):
        yield _event(_choice({"content": " bulkhead"}))
    yield _event(_choice({}, "stop"))
    yield _event({"choices": [], "usage": usage(chunks)})
    yield _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _event(fields: dict[str, Any]) -> bytes:
    data = {**_COMMON, "object": "chat.completion.chunk", **fields}
    return _framed(b"data: %s\n\n" % json.dumps(data).encode())


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One that is kept alive; its client sends a request when it has the answer to the last."""

    _reply: Final = reply()
    _streams: Final[dict[int, tuple[bytes, ...]]] = {}

    def __init__(self, interval_seconds: float = 0.0) -> None:
        self._interval_seconds = interval_seconds
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._left: Iterator[bytes] | None = None
        self._unpaced = 0
        self._may_write = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return
        self._received = b""
        if not _STREAM.search(body):
            self._transport.write(self._reply)
            return
        tokens = _MAX_TOKENS.search(body)
        self._left = iter(self._events(int(tokens[1]) if tokens else CHUNKS))
        # What comes before the text, and the first text.
        self._unpaced = 2
        self._transport.write(STREAM_HEAD)
        self._loop.call_soon(self._write_one)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write_one()

    def connection_lost(self, error: Exception | None) -> None:
        self._left = None

    def _write_one(self) -> None:
        if self._left is None or not self._may_write:
            return
        event = next(self._left, None)
        if event is None:
            self._left = None
            return
        self._transport.write(event)
        self._unpaced -= 1
        if self._interval_seconds and self._unpaced <= 0:
            # Streams that were opened together do not go on in step.
            share = random.random() if self._unpaced == 0 else 1.0
            self._loop.call_later(share * self._interval_seconds, self._write_one)
        else:
            # In the next turn of the loop: what is written in one is sent as one.
            self._loop.call_soon(self._write_one)

    @classmethod
    def _events(cls, chunks: int) -> tuple[bytes, ...]:
        if chunks not in cls._streams:
            cls._streams[chunks] = tuple(events(chunks))
        return cls._streams[chunks]


async def serve(port: int, interval_seconds: float) -> None:
    connection = partial(Connection, interval_seconds)
    loop = asyncio.get_running_loop()
    # As many may come at once as a service makes calls.
    server = await loop.create_server(connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["PORT"]), float(os.environ.get("INTERVAL_SECONDS", "0"))))
