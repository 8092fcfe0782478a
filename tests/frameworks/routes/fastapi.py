"""FastAPI's idiom."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.api.fastapi import Chat, CurrentCaller
from app.errors import BadRequest
from app.messages import ChatRequest, Message, Text

router = APIRouter()


class Article(BaseModel):
    text: str = Field(min_length=1)
    words: int = 10


class Summary(BaseModel):
    summary: str
    provider: str


class Thing(BaseModel):
    name: str
    times: int
    caller: str


@router.post("/summaries")
async def summarize(article: Article, chat: Chat, caller: CurrentCaller) -> Summary:
    request = ChatRequest((Message("user", (Text(article.text),)),))
    completion = await chat.complete(request, caller)
    return Summary(summary=completion.text, provider=completion.provider)


@router.post("/stories")
async def tell(article: Article, chat: Chat, caller: CurrentCaller) -> StreamingResponse:
    stream = await chat.stream(ChatRequest((Message("user", (Text(article.text),)),)), caller)

    async def texts() -> AsyncIterator[str]:
        async for chunk in stream:
            yield chunk.text

    return StreamingResponse(texts(), media_type="text/plain")


@router.get("/things/{name}")
async def thing(name: str, chat: Chat, caller: CurrentCaller, times: int = 1) -> Thing:
    await chat.admit(caller)
    return Thing(name=name, times=times, caller=caller.name)


@router.get("/teapot")
async def teapot() -> None:
    raise HTTPException(418, "Short and stout.", headers={"X-Spout": "left"})


@router.get("/lost")
async def lost() -> None:
    raise HTTPException(404, "Nobody has seen it.")


@router.get("/refused")
async def refused() -> None:
    raise BadRequest("Not on a Monday.", code="monday", param="day")


@router.get("/crash")
async def crash() -> None:
    raise RuntimeError("a bug of the owner's")


@router.get("/ticks")
async def ticks() -> StreamingResponse:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "tick\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(endless(), media_type="text/plain")


@router.get("/halves")
async def halves() -> StreamingResponse:
    async def broken() -> AsyncIterator[str]:
        yield "one half\n"
        raise RuntimeError("a bug in mid-stream")

    return StreamingResponse(broken(), media_type="text/plain")
