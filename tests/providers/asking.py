"""One call, answers as they stand on the wire, and the ways to ask a transport."""

import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.errors import ProviderError
from app.providers.base import HTTPCall, ServerSentEvent
from app.providers.transport import Response, Transport

HEADERS = {"x-request-id": "request-1"}
CALL = HTTPCall("/chat", {"authorization": "Bearer sk-MARKED-KEY"}, b'{"prompt":"MARKED-PROMPT"}')
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def whole(body: bytes, head: bytes = JSON) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM = EVENTS + CHUNKED + chunk(b"data: x\n\n") + chunk(b"")
"""One event, on a connection that stays."""


async def post(transport: Transport) -> Response:
    return await transport.post(CALL, headers=HEADERS)


async def collect(transport: Transport) -> list[ServerSentEvent]:
    async with transport.stream(CALL, headers=HEADERS) as response:
        assert response.body is None
        return [event async for event in response.events()]


Ask = Callable[[Transport], Coroutine[Any, Any, object]]
BOTH_WAYS = pytest.mark.parametrize("ask", [post, collect], ids=["json", "stream"])


def good_answer(ask: Ask) -> bytes:
    return whole(b"{}") if ask is post else STREAM


async def failure_of(ask: Ask, transport: Transport) -> ProviderError:
    started = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        await ask(transport)
    assert time.monotonic() - started < 5
    said = "".join(traceback.format_exception(caught.value, chain=True))
    assert "MARKED" not in said
    return caught.value
