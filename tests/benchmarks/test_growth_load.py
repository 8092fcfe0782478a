"""Callers whose every request counts, before a server that answers and one that does not."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from benchmarks.growth import load
from benchmarks.growth.conversations import body
from benchmarks.guardrails import upstream
from benchmarks.guardrails.load import LoadFailed

from ..core.waiting import until

QUESTION = [{"role": "user", "content": "What is a bulkhead?"}]
JSON = load.request(body(QUESTION))
REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"
BROKEN = upstream.STREAM_HEAD + b"12\r\ndata:  bulkhead\n\n\r\n0\r\n\r\n"


def stream(chunks: int) -> bytes:
    return load.request(body(QUESTION, stream=True, max_tokens=chunks))


class Counting(upstream.Connection):
    """The provider's stand-in, which counts what it is asked."""

    asked = 0

    def data_received(self, data: bytes) -> None:
        type(self).asked += data.count(b"POST ")
        super().data_received(data)


@asynccontextmanager
async def provider(interval_seconds: float = 0.0) -> AsyncIterator[str]:
    Counting.asked = 0
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(Counting, interval_seconds), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """A server that says this and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("connections", [1, 4, 100])
def test_each_request_is_sent_once_and_answered(connections: int) -> None:
    async def scene() -> None:
        async with provider() as url:
            await asyncio.to_thread(load.ask, url, [JSON, stream(3), stream(300)] * 5, connections)
            assert Counting.asked == 15

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (REFUSAL, "refused: HTTP/1.1 429 Too Many Requests"),
        (BROKEN, "broke off"),
        (b"", "closed before its answer was whole"),
        (upstream.reply()[:-1], "closed before its answer was whole"),
    ],
)
def test_without_a_whole_answer_there_is_no_figure(answer: bytes, reason: str) -> None:
    async def scene() -> None:
        async with saying(answer) as url:
            with pytest.raises(LoadFailed, match=reason):
                await asyncio.to_thread(load.ask, url, [JSON], 1)

    asyncio.run(scene())


def test_open_streams_are_held_and_their_chunks_counted() -> None:
    """Each of them is at its pace: the first text comes at once, the next ones one by one."""

    async def scene() -> None:
        async with provider(0.01) as url, load.held(url, [stream(1_000)] * 60) as holding:
            await until(lambda: holding.chunks >= 60)
            before = holding.chunks
            await until(lambda: holding.chunks >= before + 60)
            assert len(holding.callers) == Counting.asked == 60

    asyncio.run(scene())


def test_a_stream_that_ends_is_not_held() -> None:
    async def scene() -> None:
        async with provider() as url, load.held(url, [stream(3)]) as holding:
            await asyncio.wait([holding.callers[0].over])
            with pytest.raises(LoadFailed, match="has ended"):
                _ = holding.chunks

    asyncio.run(scene())


def test_a_refused_stream_is_told() -> None:
    async def scene() -> None:
        async with saying(REFUSAL) as url:
            with pytest.raises(LoadFailed, match="429"):
                async with load.held(url, [stream(3)]):
                    pass

    asyncio.run(scene())


def test_more_files_than_the_system_allows_are_refused_with_both_numbers() -> None:
    with pytest.raises(LoadFailed, match=r"1000000500 files .* `ulimit -Hn`"):
        load.allow_files(1_000_000_000)


def test_chunks_are_counted_once_however_they_are_split() -> None:
    """Of a text that comes in two reads nothing is lost, and nothing counted twice."""
    whole = upstream.STREAM_HEAD + b"".join(upstream.events(4))

    class Silent(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            pass

    async def scene() -> None:
        for split in range(1, len(whole)):
            caller = load.Connection(deque([stream(4)]))
            caller.connection_made(Silent())
            caller.data_received(whole[:split])
            caller.data_received(whole[split:])
            assert (caller.chunks, caller.over.done()) == (4, True), split

    asyncio.run(scene())
