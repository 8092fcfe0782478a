"""A vendor's adapter and its transport as one: a request goes in, a reply or chunks come out.

One call is one HTTP request. Retries, limits and fallback are `guardrails/availability`'s.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from ..errors import Billing, ProviderError, ProviderUnavailable
from ..messages import ChatReply, ChatRequest, Chunk
from .base import ProviderAdapter
from .transport import StreamedResponse, Transport


class Provider:
    def __init__(self, adapter: ProviderAdapter, transport: Transport) -> None:
        self.adapter = adapter
        self._transport = transport

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    def model(self) -> str:
        return self.adapter.model

    async def complete(self, request: ChatRequest, *, request_id: str) -> ChatReply:
        """Raises `ProviderError`."""
        call = self.adapter.encode(request, stream=False)
        response = await self._transport.post(call, request_id=request_id)
        if not 200 <= response.status < 300:
            raise self.adapter.decode_error(response.status, response.headers, response.body)
        return self.adapter.decode(response.body)

    @asynccontextmanager
    async def stream(
        self, request: ChatRequest, *, request_id: str
    ) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The chunks of a reply; the iterator ends only after a whole one. Raises `ProviderError`.

        Leaving the block closes the upstream at once, however far the reading got.
        """
        call = self.adapter.encode(request, stream=True)
        async with self._transport.stream(call, request_id=request_id) as response:
            self._check(response)
            async with aclosing(self._chunks(response)) as chunks:
                yield chunks

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _check(self, response: StreamedResponse) -> None:
        """Raises what an answer that is no event stream says."""
        if response.body is None:
            return
        if not 200 <= response.status < 300:
            raise self.adapter.decode_error(response.status, response.headers, response.body)
        self.adapter.decode(response.body)  # raises an error that came with status 200
        raise ProviderUnavailable(
            f"{self.name} answered with no event stream", billing=Billing.AMBIGUOUS
        )

    async def _chunks(self, response: StreamedResponse) -> AsyncGenerator[Chunk, None]:
        decoder = self.adapter.open_stream()
        try:
            async with aclosing(response.events()) as events:
                async for event in events:
                    for chunk in decoder.feed(event):
                        yield chunk
        except ProviderError as failure:
            # A connection that breaks behind the last event has lost nothing.
            try:
                decoder.close()
            except ProviderError:
                raise failure from None
        else:
            decoder.close()
