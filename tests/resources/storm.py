"""Many requests at once, and what became of each."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
    """How often each thing became of a request: `answered`, or the code of the refusal."""
    return asyncio.run(_storm(service, shots, at_once))


async def _storm(service: Service, shots: Sequence[Shot], at_once: int) -> Counter[str]:
    # A connection for each, so that every worker has its share of them.
    connector = aiohttp.TCPConnector(limit=at_once)
    places = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(service.url, connector=connector) as session:

        async def fire(number: int, shot: Shot) -> str:
            async with places:
                return await _fire(session, shot, number)

        return Counter(await asyncio.gather(*(fire(*shot) for shot in enumerate(shots))))


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
