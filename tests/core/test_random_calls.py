"""Whatever happens to calls, in any order, the books balance and nothing is held for long."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app import policy
from app.caller import Caller
from app.errors import ServiceError, ShuttingDown
from app.guardrails.context.token_count import TokenCounter
from app.guardrails.resources.idempotency import claim_for
from app.messages import ChatRequest
from app.storage.base import RateLimit
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .assembly import (
    DEADLINE_SECONDS,
    REPLY_TTL_SECONDS,
    STREAM_MAX_SECONDS,
    Assembly,
    assembled,
    caller,
    open_providers,
)
from .backends import Backend, Books
from .conversations import text
from .faulty_store import FaultyStore, Mishap
from .stepping import SteppedTasks
from .stores.asking import reason, request, reservation

T = TypeVar("T")

Cut = Literal["cancel", "vanish"]
"""A call is cancelled, or nothing of it ever runs again, as if its worker had been killed."""

QUESTION = ChatRequest((text("user", "What is a guardrail?"),))
RATE = RateLimit(6, 60.0)
ATTEMPTS_IN_BUDGET = 6
LEASES = {
    "json": DEADLINE_SECONDS + policy.CLAIM_MARGIN_SECONDS,
    "stream": DEADLINE_SECONDS + STREAM_MAX_SECONDS + policy.CLAIM_MARGIN_SECONDS,
}
SLACK_SECONDS = 5.0
"""Between when a test looks and when the store did."""

faults = st.sampled_from(
    [
        [],
        [],
        [Fault(status=500)],
        [Fault(action="close")],
        [Fault(status=529)],
        [Fault(error="invalid_api_key")],
        [Fault(error="content_policy")],
        [Fault(action="end", after_chunks=3)],
        [Fault(status=500), Fault(status=429), Fault(action="reset")],
    ]
)
mishaps = st.lists(
    st.sampled_from(["none", "none", "not carried out", "reply lost", "carried out late"]),
    max_size=2,
)


class CutTasks(SteppedTasks):
    """Cuts the next task at the await of that number."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: tuple[Cut, int] | None = None
        self.vanished = asyncio.Event()
        self.lost: list[asyncio.Task[Any]] = []

    def at_await(self, task: asyncio.Task[Any], awaited: Any) -> Any:
        if self.plan is None:
            return awaited
        how, left = self.plan
        self.plan = (how, left - 1)
        if left > 1:
            return awaited
        self.plan = None
        if how == "cancel":
            task.cancel()
            return awaited
        if awaited is not None:
            awaited.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self.vanished.set()
        self.lost.append(task)
        self.started.remove(task)
        self._running.discard(task)
        never = asyncio.get_running_loop().create_future()
        # As a task marks what it waits for, so that its loop accepts it.
        never._asyncio_future_blocking = True
        return never


@dataclass
class Run:
    """What became of one call."""

    outcome: str
    asked: Caller
    text: str = ""


@dataclass
class Kept:
    """What is known of one key: who may hold it, and which replies may be under it.

    A call that was cut off may have come to the end of the step that it was cut off at, or not.
    """

    possible: set[str] = field(default_factory=set)
    certain_until: float = 0.0
    held_until: float = 0.0
    may_be_held_until: float = 0.0


class Calls(RuleBasedStateMachine):
    """Two callers and two keys, at limits that are soon reached."""

    backend: ClassVar[Backend]
    runner: ClassVar[asyncio.Runner]
    sandbox: ClassVar[Sandbox]
    counter: ClassVar[TokenCounter]
    runs: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        # Callers of its own, in the store that all examples share.
        type(self).runs += 1
        self.prefix = f"run{type(self).runs}-"
        self.stack = AsyncExitStack()
        self.vanished = 0
        self.replies = 0
        self.keys: dict[tuple[str, str], Kept] = {}
        self.run(self.open())

    async def open(self) -> None:
        self.store = FaultyStore(type(self).backend.connect())
        providers = await self.stack.enter_async_context(
            open_providers(type(self).sandbox.environment(), failures=1_000)
        )
        await self.store.open()
        attempt = max(p.worst_case_nano_usd(40, 200) for p in providers.prices.values())
        self.before = type(self).backend.books()
        self.cap = _committed(self.before) + ATTEMPTS_IN_BUDGET * attempt
        self.tasks = CutTasks()
        self.assembly: Assembly = await self.stack.enter_async_context(
            assembled(
                self.store,
                providers,
                type(self).counter,
                tasks=self.tasks,
                rate=RATE,
                daily_usd=self.cap / 1e9,
            )
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return type(self).runner.run(work)

    @rule(
        who=st.sampled_from(["ada", "grace"]),
        key=st.sampled_from([None, "one", "other"]),
        form=st.sampled_from(["json", "stream"]),
        faults=faults,
        cut=st.none() | st.tuples(st.sampled_from(["cancel", "vanish"]), st.integers(1, 14)),
        admit=mishaps,
        top_up=mishaps,
        settle=mishaps,
    )
    def call(
        self,
        who: str,
        key: str | None,
        form: str,
        faults: list[Fault],
        cut: tuple[Cut, int] | None,
        admit: list[Mishap],
        top_up: list[Mishap],
        settle: list[Mishap],
    ) -> None:
        sandbox = type(self).sandbox
        sandbox.reset()
        self.replies += 1
        reply = Reply(text=f"reply {self.replies}")
        sandbox.script("openai", [*faults, *[Fault(reply=reply)] * 4])
        sandbox.script("anthropic", [Fault(reply=reply)] * 4)
        self.store.mishaps["admit"].extend(admit)
        self.store.mishaps["top_up"].extend(top_up)
        self.store.mishaps["settle"].extend(settle)
        self.tasks.plan = cut
        before = type(self).backend.books()
        result = self.run(self.ask(self.prefix + who, key, form))
        self.tasks.plan = None
        for waiting in self.store.mishaps.values():
            waiting.clear()
        books = type(self).backend.books()
        if result.outcome == "vanished":
            self.vanished += 1
        else:
            charged = books.charged_nano_usd - before.charged_nano_usd
            assert charged == result.asked.record.cost_nano_usd
            assert books.open_operations == before.open_operations
            assert books.running_claims <= before.running_claims
        if key is not None:
            claimed = books.running_claims > before.running_claims
            self.judge(self.keys.setdefault((who, key), Kept()), result, claimed, LEASES[form])

    def judge(self, kept: Kept, result: Run, claimed: bool, lease_seconds: float) -> None:
        """A key's first reply is its only one, and while somebody holds it nobody else runs."""
        sandbox = type(self).sandbox
        # Its own: what a vanished call had sent may arrive only now.
        calls = sum(
            received.headers["x-request-id"] == result.asked.request_id
            for vendor in ("openai", "anthropic")
            for received in sandbox.requests(vendor)
        )
        now = self.store.now
        if calls:
            assert now > kept.certain_until and now > kept.held_until
        match result.outcome:
            case "replayed":
                assert result.text in kept.possible and not calls
                kept.possible = {result.text}
            case "replied":
                kept.possible = {result.text}
                kept.certain_until = now + REPLY_TTL_SECONDS - SLACK_SECONDS
            case "request_in_flight":
                assert now < kept.may_be_held_until and not calls
            case "cancelled":
                kept.possible.add(f"reply {self.replies}")
            case "vanished":
                kept.possible.add(f"reply {self.replies}")
                kept.may_be_held_until = now + lease_seconds + SLACK_SECONDS
                if claimed:
                    kept.held_until = now + lease_seconds - SLACK_SECONDS

    async def ask(self, who: str, key: str | None, form: str) -> Run:
        asked = caller(who, key=key, request_id=f"{self.prefix}{self.replies}")
        waiting = asyncio.create_task(self.answer(asked, form))
        gone = asyncio.create_task(self.tasks.vanished.wait())
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        vanished = self.tasks.vanished.is_set()
        if vanished:
            self.tasks.vanished.clear()
            waiting.cancel()
        gone.cancel()
        outcome, text = "vanished", ""
        with suppress(asyncio.CancelledError):
            outcome, text = await waiting
        if self.tasks.started:
            await asyncio.wait(self.tasks.started)
            self.tasks.started.clear()
        assert await self.assembly.backlog.close(5) == 0
        # The step that a vanished call was at begins, and is over before the next one.
        await asyncio.sleep(0.001)
        await self.store.ping()
        return Run("vanished" if vanished else outcome, asked, text)

    async def answer(self, asked: Caller, form: str) -> tuple[str, str]:
        chat = self.assembly.chat
        try:
            if form == "json":
                completion = await chat.complete(QUESTION, asked)
                return "replayed" if completion.replayed else "replied", completion.text
            stream = await chat.stream(QUESTION, asked)
            pieces = [chunk.text async for chunk in stream]
        except ShuttingDown:
            return "cancelled", ""
        except ServiceError as error:
            return error.code, ""
        return "replayed" if asked.record.replayed else "replied", "".join(pieces)

    @rule()
    def what_is_late_arrives(self) -> None:
        self.run(self.store.arrive())
        for kept in self.keys.values():
            # It may have been the settlement of a call that has vanished.
            kept.held_until = 0.0

    @rule(seconds=st.sampled_from([1, 15, 60, 200]))
    def time_passes(self, seconds: float) -> None:
        self.store.ahead_seconds += seconds

    @invariant()
    def the_counter_equals_the_ledger(self) -> None:
        books = type(self).backend.books()
        assert books.balanced
        assert _committed(books) <= self.cap
        assert books.open_operations - self.before.open_operations <= self.vanished

    def teardown(self) -> None:
        self.run(self.end())

    async def end(self) -> None:
        """Nothing is held past its lease, and what arrives after all changes nothing."""
        await self.store.arrive()
        assert type(self).backend.books().balanced
        now = self.store.now + max(LEASES.values()) + 1
        for who, key in self.keys:
            claim = claim_for(caller(self.prefix + who, key=key), "retries", 1)
            asked = request(self.prefix + who, claim=claim, reserve=reservation(0, moment=now))
            assert reason(await self.store._store.admit(asked, now=now)) in ("admitted", "replay")
        for task in self.tasks.lost:
            task.cancel()
        if self.tasks.lost:
            await asyncio.wait(self.tasks.lost)
        await self.stack.aclose()


@pytest.mark.promise("R4")
def test_random_calls_leave_the_books_balanced(
    backend: Backend,
    sandbox: Sandbox,
    counter: TokenCounter,
    no_proxy: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever happens to calls: counter equals ledger, the cap holds, one reply a key, what is not
    known is not refunded, and nothing is held longer than its lease."""
    monkeypatch.setattr(policy, "SETTLEMENT_RETRY_SECONDS", 0.001)
    with asyncio.Runner() as runner:
        machine = type(
            "Calls",
            (Calls,),
            {"backend": backend, "runner": runner, "sandbox": sandbox, "counter": counter},
        )
        run_state_machine_as_test(
            machine, settings=settings(max_examples=50, stateful_step_count=20, deadline=None)
        )


def _committed(books: Books) -> int:
    return sum(sum(sums) for (_, who), sums in books.counter.items() if not who)
