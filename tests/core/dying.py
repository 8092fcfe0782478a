"""A process that runs one guarded call after another, each in a child that kills itself half-way.

`python -m tests.core.dying` reads one JSON line for each call and answers each with one: how the
child ended, and whether it came to the place. It has loaded everything before it forks, so that a
death costs milliseconds.
"""

import asyncio
import json
import os
import pickle
import signal
import sqlite3
import sys
from base64 import b64decode
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from app import policy
from app.errors import ServiceError
from app.guardrails.context.token_count import TokenCounter
from app.messages import ChatRequest
from app.storage.base import Store

from .assembly import assembled, caller, open_providers
from .conversations import text
from .stepping import SteppedTasks

T = TypeVar("T")

QUESTION = ChatRequest((text("user", "What is a guardrail?"),))
LONG = ChatRequest(
    (
        *(text(role, f"{role} {n}") for n in range(20) for role in ("user", "assistant")),
        text("user", "And now?"),
    )
)


def die() -> None:
    """As a worker dies that the system kills: nothing of it runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingTasks(SteppedTasks):
    """Dies at the await of that number. A task's beginning counts as one: a store may have sent its
    first step when the task awaits for the first time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        self._come_by()
        return super().start(work)

    def at_await(self, task: asyncio.Task[Any], awaited: Any) -> Any:
        self._come_by()
        return awaited

    def _come_by(self) -> None:
        self._left -= 1
        if self._left == 0:
            die()


def die_at_statement(db: sqlite3.Connection, number: int) -> None:
    """Dies when SQLite begins its statement of that number."""
    left = number

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    db.set_trace_callback(count)


async def call(
    connect: Callable[[], Store],
    variables: dict[str, str],
    counter: TokenCounter,
    *,
    form: str,
    long: bool,
    place: str,
    at: int,
    key: str,
) -> None:
    """One call that dies at its await, or at its SQL statement, of number `at`."""
    tasks = DyingTasks(at if place == "await" else 0)
    async with (
        open_providers(variables) as providers,
        assembled(connect(), providers, counter, tasks=tasks) as assembly,
    ):
        if place == "statement":
            store: Any = assembly.store._store
            await store._run(lambda db: die_at_statement(db, at))
        request = LONG if long else QUESTION
        if form == "json":
            await assembly.chat.complete(request, caller(key=key))
        else:
            async for _ in await assembly.chat.stream(request, caller(key=key)):
                pass


def main() -> None:
    policy.SETTLEMENT_RETRY_SECONDS = 0.05  # type: ignore[misc]
    counter = TokenCounter()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        connect = pickle.loads(b64decode(asked.pop("connect")))
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(call(connect, asked.pop("variables"), counter, **asked))
            except ServiceError:
                os._exit(3)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(4)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
