"""Quart's idiom."""

from app.bugs import fail, half  # type: ignore[import-not-found]  # copied there
from pydantic import BaseModel
from quart import Blueprint, Response, request
from quart_schema import validate_request

router = Blueprint("routes", __name__)


class Said(BaseModel):
    text: str
    number: int = 0


@router.post("/bugs/<kind>")
@validate_request(Said)
async def bug(kind: str, data: Said) -> str:
    await fail(kind, data.text)
    return "done"


@router.post("/raw/<kind>")
async def raw(kind: str) -> str:
    await fail(kind, str(await request.get_data(as_text=True)))
    return "done"


@router.get("/paths/<text>")
async def path(text: str) -> str:
    await fail("raise", text + request.args.get("q", ""))
    return "done"


@router.post("/halves")
@validate_request(Said)
async def halves(data: Said) -> Response:
    return Response(half(data.text), mimetype="text/plain")
