"""One call of a provider is one request, and ends as a whole reply or as a `ProviderError`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.errors import Billing, ProviderRefusesAccount, ProviderTimeout, ProviderUnavailable
from app.messages import ChatRequest, Message, Text
from app.providers.provider import Provider

from .asking import HEADERS
from .conftest import Connect, MakeOpenAI, Serve, Visit

pytestmark = pytest.mark.anyio

REQUEST = ChatRequest((Message("user", (Text("Hello"),)),), max_output_tokens=10)
REPLY = {
    "id": "chatcmpl-1",
    "model": "gpt-6-luna",
    "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
HI = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def whole(body: bytes, head: bytes = JSON) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def ask(openai: MakeOpenAI, serve: Serve, connect: Connect) -> Ask:
    """Serves `sent` and asks an OpenAI provider for a reply, or for the texts of a stream."""

    async def run(sent: bytes, *, stream: bool, then_silence: bool = False) -> object:
        async def script(visit: Visit) -> None:
            await visit.receive()
            await visit.send(sent)
            if then_silence:
                await visit.wait_for_hang_up()

        async with serve(script) as server, connect(server.url) as transport:
            provider = Provider(openai(), transport)
            try:
                if not stream:
                    return await provider.complete(REQUEST, headers=HEADERS)
                async with provider.stream(REQUEST, headers=HEADERS) as chunks:
                    return [chunk.text async for chunk in chunks]
            finally:
                assert len(server.requests) == 1

    return run


async def test_a_reply_is_decoded(ask: Ask) -> None:
    """A JSON reply arrives as a reply."""
    reply = await ask(whole(json.dumps(REPLY).encode()), stream=False)
    assert (reply.text, reply.model) == ("Hi", "gpt-6-luna")


async def test_a_stream_is_decoded(ask: Ask) -> None:
    """Events arrive as chunks, and the iterator ends with the stream."""
    assert await ask(EVENTS + HI + FINISH + DONE, stream=True) == ["Hi", ""]


async def test_the_names_are_the_adapters(openai: MakeOpenAI, connect: Connect) -> None:
    """A provider goes by the adapter's name and model."""
    async with connect("http://127.0.0.1:1") as transport:
        provider = Provider(openai(model="gpt-6-sol"), transport)
        assert (provider.name, provider.model) == ("openai", "gpt-6-sol")
        await provider.aclose()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_error_status_is_decoded(ask: Ask, stream: bool) -> None:
    """An error answer is raised as what it means, for a stream when it is opened."""
    body = b'{"error":{"code":"invalid_api_key","message":"sk-MARKED-KEY"}}'
    with pytest.raises(ProviderRefusesAccount) as caught:
        await ask(whole(body, b"HTTP/1.1 401 No\r\n"), stream=stream)
    assert str(caught.value) == "openai answered 401 (invalid_api_key)"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps(REPLY).encode(), id="whole-reply"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"", id="empty"),
    ],
)
async def test_a_stream_that_is_none_is_unavailability(ask: Ask, body: bytes) -> None:
    """An answer to a streaming call that is no event stream is no answer."""
    with pytest.raises(ProviderUnavailable) as caught:
        await ask(whole(body), stream=True)
    assert caught.value.billing is Billing.AMBIGUOUS


async def test_an_error_in_place_of_a_stream_keeps_its_class(ask: Ask) -> None:
    """A JSON error with status 200 is read even when events were expected."""
    with pytest.raises(ProviderRefusesAccount):
        await ask(whole(b'{"error":{"code":"insufficient_quota"}}'), stream=True)


@pytest.mark.parametrize("sent", [HI, HI + FINISH, HI + DONE, FINISH + b"data: [DO"])
async def test_a_truncated_stream_never_looks_complete(ask: Ask, sent: bytes) -> None:
    """A stream that is closed cleanly before its end raises after its last chunk."""
    with pytest.raises(ProviderUnavailable) as caught:
        await ask(EVENTS + sent, stream=True)
    assert caught.value.billing is Billing.AMBIGUOUS


async def test_a_stall_is_a_timeout(ask: Ask) -> None:
    """A stream that falls silent before its end crosses the idle limit."""
    with pytest.raises(ProviderTimeout):
        await ask(EVENTS + HI, stream=True, then_silence=True)


async def test_trouble_behind_the_end_is_none(ask: Ask) -> None:
    """A connection that stays open behind `[DONE]` spoils nothing."""
    assert await ask(EVENTS + HI + FINISH + DONE, stream=True, then_silence=True) == ["Hi", ""]


async def test_a_malformed_event_ends_the_stream(ask: Ask) -> None:
    """What came before a malformed event was passed on; then the stream fails."""
    with pytest.raises(ProviderUnavailable):
        await ask(EVENTS + HI + b"data: {oops\n\n" + FINISH + DONE, stream=True)


@pytest.mark.parametrize("way", ["break", "error", "cancel"])
async def test_leaving_a_stream_closes_the_upstream(
    openai: MakeOpenAI, serve: Serve, connect: Connect, way: str
) -> None:
    """However the block is left, the vendor's connection is closed within a second."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(EVENTS + HI)
        await visit.wait_for_hang_up()

    async def read(provider: Provider) -> None:
        async with provider.stream(REQUEST, headers=HEADERS) as chunks:
            assert (await anext(chunks)).text == "Hi"
            if way == "error":
                raise LookupError
            if way == "cancel":
                await anext(chunks)

    async with serve(script) as server, connect(server.url) as transport:
        task = asyncio.create_task(read(Provider(openai(), transport)))
        await asyncio.sleep(0.1)
        if way == "cancel":
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        expected = {"break": type(None), "error": LookupError, "cancel": asyncio.CancelledError}
        assert type(result) is expected[way]
        await asyncio.wait_for(server.visits[0].hung_up.wait(), 1)
