"""A rendered service in this process, asked by ASGI, and what each request of it executes.

`python -m benchmarks.instructions.service FILE KIND...`, in the folder of a rendered service and
with this repository on `PYTHONPATH`, writes to the file, as JSON: by kind of request a list with,
for each time it was asked, what was executed in the service's own functions and in others'.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.guardrails import upstream
from benchmarks.guardrails.load import BODY, CHAT

from .counter import Function, InstructionCounter
from .kinds import JSON, KINDS, REFUSAL, REPLAY, STREAMS

TIMES: Final = 5
"""That a request is counted, after as many that are not."""
RATE_LIMIT: Final = 4 * TIMES
TURNS: Final = 50
"""Of the event loop between two chunks: each has been passed on before the next one comes."""
QUIET_SECONDS: Final = 0.002
"""Without an instruction: then a request is over, also for the threads and tasks it has left."""
MOST_LOOKS: Final = 1_000

OURS: Final = (__name__, InstructionCounter.__module__, upstream.__name__)
"""Modules that are no part of what is counted."""
BODIES: Final = {
    JSON: json.dumps(BODY).encode(),
    **{
        kind: json.dumps({**BODY, "stream": True, "max_tokens": chunks}).encode()
        for kind, chunks in STREAMS.items()
    },
}
KEYS: Final = {kind: f"instructions-key-of-{kind.replace(' ', '-')}" for kind in KINDS}
SETTINGS: Final = {
    "ENVIRONMENT": "development",  # takes a provider without TLS
    "LOG_FORMAT": "json",
    "OPENAI_API_KEY": "sk-benchmark-3f6c2d9e7b1a",
    "ANTHROPIC_API_KEY": "sk-ant-benchmark-3f6c2d9e7b1a",  # the fallback, which is never asked
    "SERVICE_API_KEYS": ",".join(f"caller-{n}:{key}" for n, key in enumerate(KEYS.values())),
    "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
    "RATE_LIMIT_WINDOW_SECONDS": "86400",
    "DAILY_BUDGET_USD": "1000000",
    "DAILY_BUDGET_PER_CALLER_USD": "1000000",
}

Message = MutableMapping[str, Any]


class Upstream(upstream.Connection):
    """The provider's stand-in, in the service's own event loop: each chunk is a read of its own
    there, which it would not always be if the two ran side by side."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = 0

    def _write_one(self) -> None:
        self._turns += 1
        if self._turns % TURNS:
            self._loop.call_soon(self._write_one)
        else:
            super()._write_one()


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Asked:
    """A service as its server sees it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        told: asyncio.Queue[Message] = asyncio.Queue()
        said: asyncio.Queue[Message] = asyncio.Queue()
        life = asyncio.create_task(self._app({"type": "lifespan"}, told.get, said.put))
        await self._live(told, said, "startup")
        yield
        await self._live(told, said, "shutdown")
        await life

    @staticmethod
    async def _live(told: asyncio.Queue[Message], said: asyncio.Queue[Message], what: str) -> None:
        await told.put({"type": f"lifespan.{what}"})
        message = await said.get()
        if message["type"] != f"lifespan.{what}.complete":
            raise RuntimeError(f"The service fails at {what}: {message}")

    async def post(self, body: bytes, headers: dict[str, str]) -> Reply:
        sent: list[Message] = []
        loop = asyncio.get_running_loop()
        left = loop.create_future()
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return waiting.pop() if waiting else await left

        async def send(message: Message) -> None:
            sent.append(message)

        # A task of its own, as a server starts one for each request.
        await loop.create_task(self._app(_scope(body, headers), receive, send))
        start, *parts = sent
        return Reply(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(part.get("body", b"") for part in parts),
        )


def _scope(body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """As uvicorn makes it."""
    given = {"host": "127.0.0.1:8000", "content-type": "application/json", **headers}
    given["content-length"] = str(len(body))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "root_path": "",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "state": {},
    }


class Requests:
    """Sends the requests of each kind, and sees that they are answered as they should be."""

    def __init__(self, service: Asked) -> None:
        self._service = service
        self._numbers = count()

    async def prepare(self, kind: str) -> None:
        """Makes all places taken, or a reply known."""
        if kind == REFUSAL:
            for _ in range(RATE_LIMIT):
                await self._ask(JSON, caller=kind)
        if kind == REPLAY:
            await self._ask(JSON, caller=kind, key="of the replay")

    async def send(self, kind: str) -> None:
        """Raises `RuntimeError` for an answer that is another kind's."""
        reply = await self._ask(kind, caller=kind, key="of the replay" if kind == REPLAY else None)
        words = 0 if kind == REFUSAL else STREAMS.get(kind, 1)
        if (
            reply.status != (429 if kind == REFUSAL else 200)
            or reply.headers.get("idempotent-replayed") != ("true" if kind == REPLAY else None)
            or reply.body.count(b" bulkhead") != words
        ):
            raise RuntimeError(f"This is no {kind}: {reply}")

    async def _ask(self, kind: str, *, caller: str, key: str | None = None) -> Reply:
        headers = {
            "authorization": f"Bearer {KEYS[caller]}",
            "idempotency-key": key or f"key number {next(self._numbers)}",
        }
        return await self._service.post(BODIES.get(kind, BODIES[JSON]), headers)


async def count_requests(
    app: Any, counter: InstructionCounter, kinds: Sequence[str]
) -> dict[str, Any]:
    service = Asked(app)
    requests = Requests(service)
    async with service.lifespan():
        gc.disable()
        return {kind: [each async for each in _counts(requests, kind, counter)] for kind in kinds}


async def _counts(
    requests: Requests, kind: str, counter: InstructionCounter
) -> AsyncIterator[dict[str, dict[str, int]]]:
    await requests.prepare(kind)
    for _ in range(TIMES):
        await requests.send(kind)
    await _quiet(counter)
    for _ in range(TIMES):
        counter.start()
        await requests.send(kind)
        await _quiet(counter)
        counter.stop()
        yield _told(counter.by_function())


async def _quiet(counter: InstructionCounter) -> None:
    """Waits by what is written in C alone: all else would be counted."""
    loop = asyncio.get_running_loop()
    seen = -1
    for _ in range(MOST_LOOKS):
        if seen == (seen := counter.total):
            return
        passed = loop.create_future()
        loop.call_later(QUIET_SECONDS, passed.set_result, None)
        await passed
    raise RuntimeError(f"The service is never quiet: {counter.by_function()}")


def _told(counts: Mapping[Function, int]) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = {"own": {}, "others": {}}
    for (module, name), executed in counts.items():
        whose = "own" if module.partition(".")[0] == "app" else "others"
        told[whose][f"{module}: {name}"] = executed
    return told


async def main(counter: InstructionCounter, kinds: Sequence[str]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        os.environ.update(SETTINGS, OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
        # The service's own, which reads the environment.
        from app.main import create_app

        return await count_requests(create_app(), counter, kinds)


if __name__ == "__main__":
    file, *kinds = sys.argv[1:]
    from sandbox.stores import place

    with place() as store:
        os.environ.update(store)
        counter = InstructionCounter(OURS)
        # `uvloop.run` wraps `main` in a function of its own, which would count.
        with counter.listening(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(main(counter, kinds))
    Path(file).write_text(json.dumps(found), encoding="utf-8")
