"""Litestar's idiom."""

import asyncio
from collections.abc import AsyncIterator

from litestar import Router, get, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream
from pydantic import BaseModel, Field

from app.api.litestar import Chat, CurrentCaller
from app.errors import BadRequest
from app.messages import ChatRequest, Message, Text


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


@post("/summaries", status_code=200)
async def summarize(data: JSONBody[Article], chat: Chat, caller: CurrentCaller) -> Summary:
    request = ChatRequest((Message("user", (Text(data.text),)),))
    completion = await chat.complete(request, caller)
    return Summary(summary=completion.text, provider=completion.provider)


@post("/stories", status_code=200)
async def tell(data: JSONBody[Article], chat: Chat, caller: CurrentCaller) -> Stream:
    stream = await chat.stream(ChatRequest((Message("user", (Text(data.text),)),)), caller)

    async def texts() -> AsyncIterator[str]:
        async for chunk in stream:
            yield chunk.text

    return Stream(texts(), media_type="text/plain")


@get("/things/{name:str}")
async def thing(
    name: FromPath[str], chat: Chat, caller: CurrentCaller, times: FromQuery[int] = 1
) -> Thing:
    await chat.admit(caller)
    return Thing(name=name, times=times, caller=caller.name)


@get("/teapot")
async def teapot() -> None:
    raise HTTPException("Short and stout.", status_code=418, headers={"X-Spout": "left"})


@get("/lost")
async def lost() -> None:
    raise NotFoundException("Nobody has seen it.")


@get("/refused")
async def refused() -> None:
    raise BadRequest("Not on a Monday.", code="monday", param="day")


@get("/crash")
async def crash() -> None:
    raise RuntimeError("a bug of the owner's")


@get("/ticks")
async def ticks() -> Stream:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "tick\n"
            await asyncio.sleep(0.01)

    return Stream(endless(), media_type="text/plain")


@get("/halves")
async def halves() -> Stream:
    async def broken() -> AsyncIterator[str]:
        yield "one half\n"
        raise RuntimeError("a bug in mid-stream")

    return Stream(broken(), media_type="text/plain")


router = Router(
    path="/",
    route_handlers=[
        summarize,
        tell,
        thing,
        teapot,
        lost,
        refused,
        crash,
        ticks,
        halves,
    ],
)
