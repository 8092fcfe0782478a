"""A call may be cut off at any await: it leaves no claim, no open reservation and no free ride."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal

import pytest

from app.errors import ServiceError, ShuttingDown
from app.messages import ChatRequest
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .assembly import Assembly, caller
from .backends import Backend
from .conftest import Assemble
from .conversations import text
from .stepping import SteppedTasks
from .waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R4")]

How = Literal["waiting", "with the result", "twice"]
"""When the cancellation comes: during the await, just as it ends, or again while cleaning up."""

QUESTION = ChatRequest((text("user", "What is a guardrail?"),))
LONG = ChatRequest(
    (
        *(text(role, f"{role} {n}") for n in range(20) for role in ("user", "assistant")),
        text("user", "And now?"),
    )
)

LONG_AND_BROKEN = Fault(reply=Reply(text="0a" * 30_000, chunks=2), action="close", after_chunks=1)
"""What it has said is counted in a thread, which is one more await."""


class CancellingTasks(SteppedTasks):
    """Cancels each task that it starts at the await of that number."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0
        self.how: How = "waiting"
        self.reached = False
        self._steps: Counter[asyncio.Task[Any]] = Counter()

    def at_await(self, task: asyncio.Task[Any], awaited: Any) -> Any:
        self._steps[task] += 1
        steps = self._steps[task]
        self.reached = self.reached or steps == self.at
        if steps == self.at and self.how == "with the result" and awaited is not None:
            # Runs before the task's own callback, so that both arrive together.
            awaited.add_done_callback(lambda _: task.cancel())
        elif steps == self.at or (steps == self.at + 1 and self.how == "twice"):
            task.cancel()
        return awaited


async def complete(assembly: Assembly, request: ChatRequest, key: str) -> None:
    await assembly.chat.complete(request, caller(key=key))


async def stream(assembly: Assembly, request: ChatRequest, key: str) -> None:
    async for _ in await assembly.chat.stream(request, caller(key=key)):
        pass


@pytest.mark.parametrize("how", ["waiting", "with the result", "twice"])
@pytest.mark.parametrize(
    ("call", "request_", "faults"),
    [
        pytest.param(complete, QUESTION, [], id="json"),
        pytest.param(complete, QUESTION, [Fault(status=500)], id="json-retried"),
        pytest.param(complete, LONG, [], id="json-summarised"),
        pytest.param(stream, QUESTION, [], id="stream"),
        pytest.param(stream, QUESTION, [Fault(action="close")], id="stream-retried"),
        pytest.param(stream, QUESTION, [LONG_AND_BROKEN], id="stream-broken"),
    ],
)
async def test_a_call_that_is_cut_off_is_settled(
    assemble: Assemble,
    backend: Backend,
    sandbox: Sandbox,
    call: Callable[[Assembly, ChatRequest, str], Coroutine[Any, Any, None]],
    request_: ChatRequest,
    faults: list[Fault],
    how: How,
) -> None:
    """Cut off at each of its awaits in turn, a call ends settled, and is charged if it was sent."""
    tasks = CancellingTasks()
    tasks.how = how
    cut_after_sending: set[bool] = set()
    async with assemble(backend, tasks=tasks) as assembly:
        while tasks.at == 0 or tasks.reached:
            tasks.at += 1
            tasks.reached = False
            sandbox.reset()
            sandbox.script("openai", faults)
            before = backend.books().charged_nano_usd
            with suppress(ServiceError, asyncio.CancelledError):
                await call(assembly, request_, f"key-{tasks.at}")
            await asyncio.wait(tasks.started)
            assert await assembly.backlog.close(5) == 0
            books = backend.books()
            where = f"await {tasks.at}"
            assert books.balanced, where
            assert (books.open_operations, books.running_claims) == (0, 0), where
            sent = bool(sandbox.requests("openai"))
            assert not sent or books.charged_nano_usd > before, where
            if tasks.reached:
                cut_after_sending.add(sent)
    # The walk came by both sides of the step that may cost money.
    assert cut_after_sending == {False, True}


async def test_a_caller_that_stops_waiting_cuts_nothing_off(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """When only who waits for it is cancelled, a call runs on, and its reply is kept."""
    sandbox.script("openai", [Fault(delay_seconds=0.1)])
    async with assemble(backend) as assembly:
        waiting = asyncio.create_task(assembly.chat.complete(QUESTION, caller(key="one")))
        await until(lambda: sandbox.requests("openai"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert backend.books().running_claims == 1
        await until(lambda: not backend.books().running_claims)
        assert (await assembly.chat.complete(QUESTION, caller(key="one"))).replayed
    assert len(sandbox.requests("openai")) == 1


async def test_what_shutdown_cuts_off_is_told_so(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """Past the grace period a stream raises instead of ending, lest it look complete, and a JSON
    call is told to try again; both are settled."""
    sandbox.script("openai", [Fault(action="stall", after_chunks=2)])
    async with assemble(backend) as assembly:
        stream = await assembly.chat.stream(QUESTION, caller())
        sandbox.script("openai", [Fault(action="stall")])
        call = asyncio.create_task(assembly.chat.complete(QUESTION, caller()))
        await until(lambda: len(sandbox.requests("openai")) == 2)
        await assembly.tasks.drain(0.05)
        pieces = []
        with pytest.raises(ShuttingDown):
            async for chunk in stream:
                pieces.append(chunk.text)
        with pytest.raises(ShuttingDown):
            await call
    books = backend.books()
    assert books.balanced
    assert (books.open_operations, books.running_claims) == (0, 0)
    assert books.charged_nano_usd > 0
