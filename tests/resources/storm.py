"""Many requests at once, spread over all workers, and what became of each."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil

from ..processes import command_of, family_of, standing_still
from ..service.serving import Service

CHAT = "/v1/chat/completions"
IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Shot:
    """One request of the storm."""

    key: str
    idempotency_key: str | None = None
    stream: bool = False


def storm(service: Service, shots: Sequence[Shot], *, at_once: int) -> Counter[str]:
    """How often each thing became of a request: `answered`, the code of the refusal, or `lost`
    where the connection broke. Each worker gets as many of them as any other."""
    return asyncio.run(_storm(service, shots, at_once))


def workers_of(service: Service) -> list[psutil.Process]:
    """The processes that serve, where there are several."""
    _, *children = family_of(service.process.pid)
    return [child for child in children if "spawn_main" in command_of(child)]


async def _storm(service: Service, shots: Sequence[Shot], at_once: int) -> Counter[str]:
    workers = workers_of(service)
    share = at_once // max(1, len(workers))
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                _session_with(service, [other for other in workers if other != worker], share)
            )
            for worker in workers or [psutil.Process(service.process.pid)]
        ]
        places = [asyncio.Semaphore(share) for _ in sessions]

        async def fire(number: int, shot: Shot) -> str:
            turn = number % len(sessions)
            async with places[turn]:
                try:
                    return await _fire(sessions[turn], shot, number)
                except aiohttp.ClientError:
                    return "lost"

        return Counter(await asyncio.gather(*(fire(*shot) for shot in enumerate(shots))))


@asynccontextmanager
async def _session_with(
    service: Service, others: Sequence[psutil.Process], connections: int
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose connections are all accepted by the one worker that is none of the others.

    Workers share a listening socket, and whichever wakes first takes all that is waiting there: a
    burst of new connections is served by one of them.
    """
    # Given up before the service does so: what it closes at that moment would be lost.
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_SECONDS)
    async with aiohttp.ClientSession(service.url, connector=connector) as session:

        async def connect() -> None:
            async with session.get("/livez") as response:
                assert response.status == 200
                await response.read()

        with standing_still(others):
            await asyncio.gather(*(connect() for _ in range(connections)))
        yield session


async def _fire(session: aiohttp.ClientSession, shot: Shot, number: int) -> str:
    content = f"Question {number}?" if shot.idempotency_key is None else "The same?"
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}]}
    headers = {"authorization": f"Bearer {shot.key}"}
    if shot.idempotency_key is not None:
        headers["idempotency-key"] = shot.idempotency_key
    if shot.stream:
        body["stream"] = True
    async with session.post(CHAT, json=body, headers=headers) as response:
        text = await response.text()
        if response.status == 200:
            whole = not shot.stream or text.endswith("data: [DONE]\n\n")
            return "answered" if whole else "cut off"
        code: str = (await response.json(content_type=None))["error"]["code"]
        return code
