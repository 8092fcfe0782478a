"""Many callers who ask at a steady pace: JSON and streams, long conversations, repeats.

Some leave early, some ask for what there is not, and one asks more often than it may.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

CHAT = "/v1/chat/completions"
CALLERS = 24
GREEDY = 0
"""The caller who asks more often than its rate limit allows."""
AT_ONCE = 5
"""Of the greedy one's requests."""
PAUSE_SECONDS = (0.3, 0.9)
LEAVE_AFTER_SECONDS = (0.005, 0.6)

HABITS = {"whole": 10, "stream": 8, "conversation": 2, "repeat": 3, "leave": 5, "nonsense": 4}
"""How often a caller does each."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. `outcome` is `answered`, `cut off`, `left`, `lost` (the connection broke) or an
    error's code; `status` is what the caller has seen of it, if anything."""

    request_id: str
    outcome: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    number: int
    session: aiohttp.ClientSession
    chance: random.Random

    @property
    def key(self) -> str:
        return f"key-of-caller{self.number}"


class Crowd:
    """Asks in rounds and remembers what it has sent."""

    def __init__(self, url: str, models: Sequence[str], seed: str) -> None:
        self.sent: list[Sent] = []
        self._url = url
        self._models = models
        self._numbers = itertools.count()
        self._chances = [random.Random(f"{seed} {number}") for number in range(CALLERS)]

    def ask(self, seconds: float) -> None:
        """Everybody asks for so long, hears the last answer, and hangs up."""
        asyncio.run(self._ask(seconds))

    async def _ask(self, seconds: float) -> None:
        async with asyncio.timeout(seconds + 60), asyncio.TaskGroup() as group:
            for number, chance in enumerate(self._chances):
                group.create_task(self._behave(number, chance, seconds))

    async def _behave(self, number: int, chance: random.Random, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        async with aiohttp.ClientSession(self._url) as session:
            caller = Caller(number, session, chance)
            while clock() < end:
                if number == GREEDY:
                    await asyncio.gather(*(self._act(caller) for _ in range(AT_ONCE)))
                else:
                    await self._act(caller)
                await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))

    async def _act(self, caller: Caller) -> None:
        (habit,) = caller.chance.choices([*HABITS], [*HABITS.values()])
        match habit:
            case "whole":
                await self._post(caller, self._question(caller))
            case "stream":
                await self._post(caller, {**self._question(caller), "stream": True})
            case "conversation":
                await self._post(caller, self._conversation(caller))
            case "repeat":
                await self._repeat(caller)
            case "leave":
                await self._leave(caller)
            case _:
                await self._ask_in_vain(caller)

    def _question(self, caller: Caller) -> dict[str, Any]:
        text = f"What is {caller.chance.randrange(10**6)} plus {caller.chance.randrange(10**6)}?"
        return {
            "model": caller.chance.choice(self._models),
            "messages": [{"role": "user", "content": text}],
        }

    def _conversation(self, caller: Caller) -> dict[str, Any]:
        """Longer than what is kept of one, so that its beginning is summarised."""
        question = self._question(caller)
        roles = ("user", "assistant")
        history = [{"role": role, "content": f"turn {n}"} for n in range(6) for role in roles]
        return {**question, "messages": [*history, *question["messages"]]}

    async def _repeat(self, caller: Caller) -> None:
        """Twice at once and, when both have ended, once more: whole or in pieces."""
        body = self._question(caller)
        key = {"idempotency-key": f"key-{next(self._numbers)}"}
        await asyncio.gather(*(self._post(caller, body, key) for _ in range(2)))
        stream = caller.chance.random() < 0.5
        await self._post(caller, {**body, "stream": stream}, key)

    async def _leave(self, caller: Caller) -> None:
        """Sends the whole request and hangs up sooner or later; nothing is read."""
        body = {**self._question(caller), "stream": caller.chance.random() < 0.7}
        content = json.dumps(body).encode()
        request_id = self._next_id()
        address = urlsplit(self._url)
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: {address.netloc}\r\n"
            f"authorization: Bearer {caller.key}\r\nx-request-id: {request_id}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(head.encode() + content)
        self.sent.append(Sent(request_id, "left"))
        await asyncio.sleep(caller.chance.uniform(*LEAVE_AFTER_SECONDS))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _ask_in_vain(self, caller: Caller) -> None:
        body = self._question(caller)
        match caller.chance.randrange(7):
            case 0:
                await self._send(caller, "POST", CHAT, content=b'{"messages": [')
            case 1:
                await self._post(caller, {**body, "model": "no-such-model"})
            case 2:
                await self._post(caller, {**body, "no_such_parameter": 1})
            case 3:
                await self._post(caller, body, {"authorization": "Bearer nobody"})
            case 4:
                # Long enough to be counted in a thread.
                long = [{"role": "user", "content": "much " * 6_000}]
                await self._post(caller, {**body, "messages": long})
            case 5:
                await self._send(caller, "GET", CHAT)
            case _:
                await self._send(caller, "GET", f"/no-such-route/{next(self._numbers)}")

    async def _post(
        self, caller: Caller, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        content = json.dumps(body).encode()
        await self._send(caller, "POST", CHAT, content=content, headers=headers)

    async def _send(
        self,
        caller: Caller,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        request_id = self._next_id()
        own = {
            "authorization": f"Bearer {caller.key}",
            "x-request-id": request_id,
            "content-type": "application/json",
        }
        try:
            async with caller.session.request(
                method, path, data=content, headers={**own, **(headers or {})}
            ) as response:
                outcome = _outcome(response.status, await response.text())
                self.sent.append(Sent(request_id, outcome, response.status))
        except aiohttp.ClientError:
            self.sent.append(Sent(request_id, "lost"))

    def _next_id(self) -> str:
        return f"soak-{next(self._numbers)}"


def _outcome(status: int, text: str) -> str:
    if status != 200:
        code: str = json.loads(text)["error"]["code"]
        return code
    is_stream = not text.startswith("{")
    return "cut off" if is_stream and not text.endswith("data: [DONE]\n\n") else "answered"
