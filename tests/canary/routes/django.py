"""Django Ninja's idiom."""

from app.bugs import fail, half  # type: ignore[import-not-found]  # copied there
from django.http import StreamingHttpResponse
from ninja import Router, Schema

from app.api.django import Request

router = Router()


class Said(Schema):
    text: str
    number: int = 0


@router.post("/bugs/{kind}", response=str)
async def bug(request: Request, kind: str, said: Said) -> str:
    await fail(kind, said.text)
    return "done"


@router.post("/raw/{kind}", response=str)
async def raw(request: Request, kind: str) -> str:
    await fail(kind, request.body.decode())
    return "done"


@router.get("/paths/{text}", response=str)
async def path(request: Request, text: str, q: str = "") -> str:
    await fail("raise", text + q)
    return "done"


@router.post("/halves")
async def halves(request: Request, said: Said) -> StreamingHttpResponse:
    return StreamingHttpResponse(half(said.text), content_type="text/plain")
