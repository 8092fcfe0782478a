"""What the guarded service is compared with, and whom it asks."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from httpx_aiohttp import HttpxAiohttpClient
from openai import AsyncOpenAI

from benchmarks.guardrails import unguarded, upstream
from benchmarks.guardrails.load import CHAT, LOADS, Callers, LoadFailed, check
from benchmarks.guardrails.rows import Row
from benchmarks.guardrails.stage import Running, warm_up


@asynccontextmanager
async def standing_in() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(upstream.Connection, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def ask(client: AsyncOpenAI) -> None:
    """Both forms of a reply, on one connection, each whole."""
    reply = await client.chat.completions.create(
        model="gpt-6-luna", messages=[{"role": "user", "content": "What is a bulkhead?"}]
    )
    assert reply.choices[0].message.content == upstream.CONTENT
    assert reply.usage is not None
    assert reply.usage.total_tokens == 56
    for chunks in (3, 200):
        stream = await client.chat.completions.create(
            model="gpt-6-luna",
            messages=[{"role": "user", "content": "What is a bulkhead?"}],
            max_tokens=chunks,
            stream=True,
        )
        received = [chunk async for chunk in stream]
        texts = [c.choices[0].delta.content for c in received if c.choices]
        assert [text for text in texts if text] == [" bulkhead"] * chunks
        assert received[-2].choices[0].finish_reason == "stop"
        assert received[-1].usage is not None
        assert received[-1].usage.completion_tokens == chunks


def test_the_stand_in_speaks_openais_wire_format() -> None:
    async def scene() -> None:
        async with standing_in() as url, AsyncOpenAI(base_url=url, api_key="a key") as client:
            await ask(client)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("status", "body"), [("503 Service Unavailable", upstream.CONTENT), ("200 OK", "a page")]
)
def test_what_says_something_else_than_the_stand_in_is_not_measured(
    status: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()

    async def scene() -> None:
        async with standing_in() as url:
            running = Running(url, os.getpid())
            await asyncio.to_thread(warm_up, running, Row(), [])
            monkeypatch.setattr(upstream.Connection, "_reply", reply)
            told = f"unguarded: instead of the stand-in's reply it answers {status[:3]}: {body}"
            with pytest.raises(LoadFailed, match=told):
                await asyncio.to_thread(warm_up, running, Row(), [])

    asyncio.run(scene())


def test_a_stream_that_lacks_a_chunk_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        events = upstream.events
        monkeypatch.setattr(upstream.Connection, "_streams", {})
        monkeypatch.setattr(upstream, "events", lambda chunks: events(chunks - 1))
        async with standing_in() as url:
            with pytest.raises(LoadFailed, match="stand-in's stream it answers 200"):
                await asyncio.to_thread(check, url, Callers(("a key",)))

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("transport", "client"), [("", httpx.AsyncClient), ("aiohttp", HttpxAiohttpClient)]
)
def test_the_service_by_hand_passes_replies_and_streams_on(
    transport: str, client: type[httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with standing_in() as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            monkeypatch.setenv("OPENAI_API_KEY", "a key")
            monkeypatch.setenv("TRANSPORT", transport)
            service = httpx.ASGITransport(unguarded.app)
            async with (
                unguarded.lifespan(unguarded.app),
                httpx.AsyncClient(transport=service, base_url="http://service") as caller,
                httpx.AsyncClient(trust_env=False) as direct,
            ):
                assert type(unguarded.app.state.client) is client
                for load in LOADS:
                    passed_on = await caller.post(CHAT, json=load.body())
                    original = await direct.post(f"{url}{CHAT}", json=load.body())
                    kind = "text/event-stream" if load.chunks else "application/json"
                    assert passed_on.headers["content-type"].partition(";")[0] == kind
                    if load.chunks:
                        assert passed_on.text == original.text
                        assert original.text.count(" bulkhead") == load.chunks
                    else:
                        assert passed_on.json() == original.json()

    asyncio.run(scene())
