"""A vendor's adapter and its transport as one: a request goes in, a reply or chunks come out.

One call is one HTTP request. Retries, limits and fallback are `guardrails/availability`'s.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

from ..errors import Billing, ProviderError, ProviderUnavailable
from ..messages import ChatReply, ChatRequest, Chunk
from .base import ProviderAdapter
from .transport import StreamedResponse, Transport

_ID_HEADERS: Final = ("request-id", "x-request-id")
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Heard = Callable[[str | None], None]
"""Is told, once an answer has begun, by which id the vendor knows the request."""


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

    async def complete(
        self, request: ChatRequest, *, headers: Mapping[str, str], heard: Heard = lambda _: None
    ) -> ChatReply:
        """`headers` go with the vendor's own. Raises `ProviderError`."""
        call = self.adapter.encode(request, stream=False)
        response = await self._transport.post(call, headers=headers)
        heard(_vendors_id(response.headers, headers))
        if not 200 <= response.status < 300:
            raise self.adapter.decode_error(response.status, response.headers, response.body)
        return self.adapter.decode(response.body)

    @asynccontextmanager
    async def stream(
        self, request: ChatRequest, *, headers: Mapping[str, str], heard: Heard = lambda _: None
    ) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The chunks of a reply; the iterator ends only after a whole one. Raises `ProviderError`.

        Leaving the block closes the upstream at once, however far the reading got.
        """
        call = self.adapter.encode(request, stream=True)
        async with self._transport.stream(call, headers=headers) as response:
            heard(_vendors_id(response.headers, headers))
            self._check(response)
            async with aclosing(self._chunks(response)) as chunks:
                yield chunks

    def of_other_model(self, adapter: ProviderAdapter) -> "Provider":
        """Another model of the same vendor, over the same connections. This one closes them."""
        return Provider(adapter, self._transport)

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


def _vendors_id(headers: Mapping[str, str], sent: Mapping[str, str]) -> str | None:
    """`None` without one that is fit for a log, and where ours has only been repeated."""
    found = next((headers[name] for name in _ID_HEADERS if name in headers), "")
    return found if _ID.fullmatch(found) and found != sent.get("x-request-id") else None
