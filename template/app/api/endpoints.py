"""What each endpoint answers, in no framework's terms. A framework's file only routes to these."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..caller import Caller
from ..chat import GuardedChat
from ..errors import ServiceError, StoreUnavailable
from ..guardrails.visibility import metrics
from ..shutdown import Shutdown
from ..storage.base import Store
from . import schemas
from .completions import completion_body, completion_events
from .problems import problem_body, problem_headers

PROBE_TIMEOUT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: all of it, or (`body` an iterator) in pieces that go out as they come."""

    body: bytes | AsyncIterator[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


class Endpoints:
    def __init__(
        self, chat: GuardedChat, store: Store, shutdown: Shutdown, registry: metrics.Metrics
    ) -> None:
        self.chat = chat
        self._store = store
        self._shutdown = shutdown
        self._metrics = registry

    async def chat_completions(self, caller: Caller) -> Answer:
        request = schemas.parse(caller.body)
        if not request.stream:
            return Answer(completion_body(await self.chat.complete(request.chat, caller)))
        stream = await self.chat.stream(request.chat, caller)
        return event_stream(completion_events(stream, caller, include_usage=request.include_usage))

    def models(self) -> Answer:
        items = [
            {"id": name, "object": "model", "created": 0, "owned_by": "this service"}
            for name in self.chat.models()
        ]
        return _json({"object": "list", "data": items})

    def live(self) -> Answer:
        return _json({"status": "alive"})

    async def ready(self) -> Answer:
        """Ready until told to end. The store's state is told and does not count: its outage must
        not take every replica out; callers get a 503 with `Retry-After` instead."""
        if self._shutdown.begun:
            return _json({"status": "shutting_down"}, status=503)
        reachable = False
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                await self._store.ping()
            reachable = True
        return _json({"status": "ready", "store": "reachable" if reachable else "unreachable"})

    def metrics(self) -> Answer:
        return Answer(self._metrics.render(), headers={"content-type": metrics.CONTENT_TYPE})

    def problem(self, error: ServiceError, caller: Caller) -> Answer:
        return Answer(problem_body(error, caller), error.status, problem_headers(error))


def event_stream(events: AsyncIterator[bytes]) -> Answer:
    """Server-sent events, with the headers that keep proxies from holding them back."""
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    return Answer(events, headers=headers)


def _json(document: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(document), status)
