"""Django Ninja's idiom."""

import asyncio
from collections.abc import AsyncIterator

from django.http import StreamingHttpResponse
from ninja import Field, Router, Schema
from ninja.errors import HttpError

from app.api.django import Request
from app.errors import BadRequest, EndpointError
from app.messages import ChatRequest, Message, Text

router = Router()

PLAIN_TEXT = "text/plain; charset=utf-8"


class Article(Schema):
    text: str = Field(min_length=1)
    words: int = 10


class Summary(Schema):
    summary: str
    provider: str


class Thing(Schema):
    name: str
    times: int
    caller: str


@router.post("/summaries", response=Summary)
async def summarize(request: Request, article: Article) -> Summary:
    question = ChatRequest((Message("user", (Text(article.text),)),))
    completion = await request.chat.complete(question, request.caller)
    return Summary(summary=completion.text, provider=completion.provider)


@router.post("/stories")
async def tell(request: Request, article: Article) -> StreamingHttpResponse:
    question = ChatRequest((Message("user", (Text(article.text),)),))
    stream = await request.chat.stream(question, request.caller)

    async def texts() -> AsyncIterator[str]:
        async for chunk in stream:
            yield chunk.text

    return StreamingHttpResponse(texts(), content_type=PLAIN_TEXT)


@router.get("/things/{name}", response=Thing)
async def thing(request: Request, name: str, times: int = 1) -> Thing:
    await request.chat.admit(request.caller)
    return Thing(name=name, times=times, caller=request.caller.name)


@router.get("/teapot")
async def teapot(request: Request) -> None:
    # Ninja's own `HttpError` takes no headers.
    raise EndpointError("Short and stout.", status=418, headers={"X-Spout": "left"})


@router.get("/lost")
async def lost(request: Request) -> None:
    raise HttpError(404, "Nobody has seen it.")


@router.get("/refused")
async def refused(request: Request) -> None:
    raise BadRequest("Not on a Monday.", code="monday", param="day")


@router.get("/crash")
async def crash(request: Request) -> None:
    raise RuntimeError("a bug of the owner's")


@router.get("/ticks")
async def ticks(request: Request) -> StreamingHttpResponse:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "tick\n"
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(endless(), content_type=PLAIN_TEXT)


@router.get("/halves")
async def halves(request: Request) -> StreamingHttpResponse:
    async def broken() -> AsyncIterator[str]:
        yield "one half\n"
        raise RuntimeError("a bug in mid-stream")

    return StreamingHttpResponse(broken(), content_type=PLAIN_TEXT)
