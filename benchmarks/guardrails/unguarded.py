"""What a person writes by hand: a chat endpoint without a guardrail.

`python -m benchmarks.guardrails.unguarded` serves it on `PORT` with `WORKERS` processes, by uvicorn
on uvloop and httptools as the guarded services are, and without uvicorn's access log. With
`TRANSPORT=aiohttp` httpx asks the provider over aiohttp.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from httpx_aiohttp import HttpxAiohttpClient

CLIENTS = {"": httpx.AsyncClient, "aiohttp": HttpxAiohttpClient}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with CLIENTS[os.environ.get("TRANSPORT", "")](
        base_url=os.environ["OPENAI_BASE_URL"],
        headers={"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
        timeout=60,
    ) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/chat/completions", response_model=None)
async def chat(body: dict[str, Any]) -> Response | dict[str, Any]:
    if body.get("stream"):
        return StreamingResponse(stream(body), media_type="text/event-stream")
    response = await app.state.client.post("/chat/completions", json=body)
    response.raise_for_status()
    reply: dict[str, Any] = response.json()
    return reply


async def stream(body: dict[str, Any]) -> AsyncIterator[bytes]:
    async with app.state.client.stream("POST", "/chat/completions", json=body) as response:
        async for data in response.aiter_bytes():
            yield data


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.guardrails.unguarded:app",
        port=int(os.environ["PORT"]),
        workers=int(os.environ.get("WORKERS", "1")),
        loop="uvloop",
        http="httptools",
        access_log=False,
    )
