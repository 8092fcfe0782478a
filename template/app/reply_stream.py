"""What a route iterates while a task of ours reads the provider: a bounded queue between both."""

import asyncio
from collections.abc import AsyncIterator

from . import policy
from .guardrails.resources.admission import StoredReply
from .messages import Chunk, ToolCallDelta
from .tasks import shutting_down


class ReplyStream:
    """An answer in pieces. Iterating raises `ServiceError` when it breaks off."""

    def __init__(self) -> None:
        self.provider = ""
        self._queue: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(
            policy.STREAM_QUEUE_CHUNKS
        )
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may be left to hear of a failure.
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._task: asyncio.Task[None] | None = None
        self._unread = False

    # The reader's side

    async def opened(self) -> None:
        """Returns with the first piece. Raises what went wrong before it."""
        await asyncio.shield(self._opened)

    def cancel(self) -> None:
        """The reader has left: the provider's stream is closed and settled."""
        self._unread = True
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    # The writer's side

    def attach(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def begin(self, provider: str, first: Chunk) -> None:
        self.provider = provider
        self._opened.set_result(None)
        await self.put(first)

    async def put(self, chunk: Chunk) -> None:
        await self._queue.put(chunk)

    async def end(self) -> None:
        await self._queue.put(None)

    async def fail(self, error: Exception) -> None:
        """Before the first piece the reader's wait raises `error`, after it the iteration does."""
        if self._opened.done():
            await self._queue.put(error)
        else:
            self._opened.set_exception(error)

    def abandon(self) -> None:
        """The task was cut off: who still reads is told at once, whether or not the queue is full,
        lest what came so far look complete."""
        if self._unread:
            self._opened.cancel()
        elif not self._opened.done():
            self._opened.set_exception(shutting_down())
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None if self._unread else shutting_down())

    async def replay(self, stored: StoredReply) -> None:
        """A stored reply, in the form of a stream."""
        reply = stored.reply
        calls = tuple(
            ToolCallDelta(index, call.id, call.name, call.arguments, call.signature)
            for index, call in enumerate(reply.tool_calls)
        )
        await self.begin(
            stored.provider,
            Chunk(text=reply.text, id=reply.id, model=reply.model, tool_calls=calls),
        )
        await self.put(
            Chunk(refusal=reply.refusal or "", finish_reason=reply.finish_reason, usage=reply.usage)
        )
        await self.end()
