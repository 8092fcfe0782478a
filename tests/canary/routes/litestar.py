"""Litestar's idiom."""

from typing import Any

from app.bugs import fail, half  # type: ignore[import-not-found]  # copied there
from litestar import Request, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream
from pydantic import BaseModel


class Said(BaseModel):
    text: str
    number: int = 0


@post("/bugs/{kind:str}", status_code=200)
async def bug(kind: FromPath[str], data: JSONBody[Said]) -> str:
    await fail(kind, data.text)
    return "done"


@post("/raw/{kind:str}", status_code=200)
async def raw(kind: FromPath[str], request: Request[Any, Any, Any]) -> str:
    await fail(kind, (await request.body()).decode())
    return "done"


@get("/paths/{text:str}")
async def path(text: FromPath[str], q: FromQuery[str] = "") -> str:
    await fail("raise", text + q)
    return "done"


@post("/halves", status_code=200)
async def halves(data: JSONBody[Said]) -> Stream:
    return Stream(half(data.text), media_type="text/plain")


router = Router(path="/", route_handlers=[bug, raw, path, halves])
