"""Many requests at once, spread over all workers, and what became of each."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from ..service.serving import Service

CHAT = "/v1/chat/completions"


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


def worker_pids(service: Service) -> list[int]:
    """Of the processes that serve, where there are several."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
            if parent == service.process.pid and b"spawn_main" in command:
                found.append(int(folder.name))
    return sorted(found)


async def _storm(service: Service, shots: Sequence[Shot], at_once: int) -> Counter[str]:
    pids = worker_pids(service)
    share = at_once // max(1, len(pids))
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(_session_with(service, pid, pids, share))
            for pid in pids or [service.process.pid]
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
    service: Service, pid: int, pids: Sequence[int], connections: int
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose connections are all accepted by this worker.

    Workers share a listening socket, and whichever wakes first takes all that is waiting there: a
    burst of new connections is served by one of them.
    """
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(service.url, connector=connector) as session:

        async def connect() -> None:
            async with session.get("/livez") as response:
                assert response.status == 200
                await response.read()

        with _stopped([other for other in pids if other != pid]):
            await asyncio.gather(*(connect() for _ in range(connections)))
        yield session


@contextmanager
def _stopped(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


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
