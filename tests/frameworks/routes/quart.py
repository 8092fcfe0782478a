"""Quart's idiom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel, Field
from quart import Blueprint, Response, abort
from quart_schema import validate_querystring, validate_request, validate_response
from werkzeug.exceptions import ImATeapot

from app.api.quart import current_caller, current_chat
from app.errors import BadRequest
from app.messages import ChatRequest, Message, Text

router = Blueprint("routes", __name__)


class Article(BaseModel):
    text: str = Field(min_length=1)
    words: int = 10


class Summary(BaseModel):
    summary: str
    provider: str


class Asked(BaseModel):
    times: int = 1


class Thing(BaseModel):
    name: str
    times: int
    caller: str


class SpoutedTeapot(ImATeapot):
    def get_headers(self, *args: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args), ("X-Spout", "left")]


@router.post("/summaries")
@validate_request(Article)
@validate_response(Summary)
async def summarize(data: Article) -> Summary:
    request = ChatRequest((Message("user", (Text(data.text),)),))
    completion = await current_chat().complete(request, current_caller())
    return Summary(summary=completion.text, provider=completion.provider)


@router.post("/stories")
@validate_request(Article)
async def tell(data: Article) -> Response:
    request = ChatRequest((Message("user", (Text(data.text),)),))
    stream = await current_chat().stream(request, current_caller())

    async def texts() -> AsyncIterator[str]:
        async for chunk in stream:
            yield chunk.text

    return Response(texts(), mimetype="text/plain")


@router.get("/things/<name>")
@validate_querystring(Asked)
@validate_response(Thing)
async def thing(name: str, query_args: Asked) -> Thing:
    caller = current_caller()
    await current_chat().admit(caller)
    return Thing(name=name, times=query_args.times, caller=caller.name)


@router.get("/teapot")
async def teapot() -> Response:
    raise SpoutedTeapot("Short and stout.")


@router.get("/lost")
async def lost() -> Response:
    abort(404, "Nobody has seen it.")


@router.get("/refused")
async def refused() -> Response:
    raise BadRequest("Not on a Monday.", code="monday", param="day")


@router.get("/crash")
async def crash() -> Response:
    raise RuntimeError("a bug of the owner's")


@router.get("/ticks")
async def ticks() -> Response:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "tick\n"
            await asyncio.sleep(0.01)

    return Response(endless(), mimetype="text/plain")


@router.get("/halves")
async def halves() -> Response:
    async def broken() -> AsyncIterator[str]:
        yield "one half\n"
        raise RuntimeError("a bug in mid-stream")

    return Response(broken(), mimetype="text/plain")
