"""FastAPI's idiom."""

from app.bugs import fail, half  # type: ignore[import-not-found]  # copied there
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

router = APIRouter()


class Said(BaseModel):
    text: str
    number: int = 0


@router.post("/bugs/{kind}")
async def bug(kind: str, said: Said) -> str:
    await fail(kind, said.text)
    return "done"


@router.post("/raw/{kind}")
async def raw(kind: str, request: Request) -> str:
    await fail(kind, (await request.body()).decode())
    return "done"


@router.get("/paths/{text}")
async def path(text: str, q: str = "") -> str:
    await fail("raise", text + q)
    return "done"


@router.post("/halves")
async def halves(said: Said) -> StreamingResponse:
    return StreamingResponse(half(said.text), media_type="text/plain")
