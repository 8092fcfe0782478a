"""Admission is one step of the store, settlement another: what each kind of call asks of it,
and how often providers are asked."""

import pytest

from app import policy
from app.errors import (
    BudgetExhausted,
    ContextTooLong,
    NotFound,
    ProvidersUnavailable,
    RateLimited,
    ReplyNotStored,
    RequestInFlight,
    ServiceError,
)
from app.messages import ChatRequest
from app.storage.base import RateLimit
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .assembly import Assembly, caller
from .backends import Backend
from .conftest import Assemble
from .conversations import text

pytestmark = pytest.mark.anyio

QUESTION = ChatRequest((text("user", "What is a guardrail?"),))
LONG = ChatRequest(
    (
        text("system", "Be brief."),
        *(text(role, f"{role} {n}") for n in range(20) for role in ("user", "assistant")),
        text("user", "And now?"),
    )
)


async def stream(assembly: Assembly, key: str | None = None) -> str:
    pieces = await assembly.chat.stream(QUESTION, caller(key=key))
    return "".join([chunk.text async for chunk in pieces])


def provider_calls(sandbox: Sandbox) -> int:
    return sum(len(sandbox.requests(vendor)) for vendor in sandbox.vendors)


async def test_a_plain_call_makes_two(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A JSON call is one admission, one call of a provider and one settlement."""
    async with assemble(backend) as assembly:
        await assembly.chat.complete(QUESTION, caller())
        assert assembly.store.trips == ["admit", "settle"]
        assert provider_calls(sandbox) == 1
    assert (backend.books().open_operations, backend.books().running_claims) == (0, 0)


async def test_a_stream_makes_two(assemble: Assemble, backend: Backend, sandbox: Sandbox) -> None:
    """A stream is the same, however many chunks it has."""
    async with assemble(backend) as assembly:
        assert "What is a guardrail?" in await stream(assembly)
        assert assembly.store.trips == ["admit", "settle"]
        assert provider_calls(sandbox) == 1


async def test_a_replay_makes_one(assemble: Assemble, backend: Backend, sandbox: Sandbox) -> None:
    """What is answered from the store needs no settlement and no provider, as JSON or as a
    stream."""
    async with assemble(backend) as assembly:
        first = await assembly.chat.complete(QUESTION, caller(key="one"))
        assembly.store.trips.clear()
        again = await assembly.chat.complete(QUESTION, caller(key="one"))
        assert (again.reply, again.replayed) == (first.reply, True)
        assert await stream(assembly, key="one") == first.text
        assert assembly.store.trips == ["admit", "admit"]
        assert provider_calls(sandbox) == 1


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"daily_usd": 0}, BudgetExhausted), ({"rate": RateLimit(1, 60)}, RateLimited)],
    ids=["budget", "rate"],
)
async def test_a_refusal_makes_one(
    assemble: Assemble,
    backend: Backend,
    sandbox: Sandbox,
    limits: dict[str, object],
    error: type[ServiceError],
) -> None:
    """What the store refuses is over with that, and reaches no provider."""
    async with assemble(backend, **limits) as assembly:
        if error is RateLimited:
            await assembly.chat.admit(caller())
        assembly.store.trips.clear()
        for call in (assembly.chat.complete, assembly.chat.stream):
            with pytest.raises(error):
                await call(QUESTION, caller())
        assert assembly.store.trips == ["admit", "admit"]
    assert provider_calls(sandbox) == 0
    assert backend.books().counter == {}


async def test_a_repeat_of_a_running_call_makes_one(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A request whose first run is under way is refused in one step."""
    sandbox.script("openai", [Fault(action="stall", after_chunks=3)])
    async with assemble(backend) as assembly:
        running = await assembly.chat.stream(QUESTION, caller(key="one"))
        with pytest.raises(RequestInFlight):
            await assembly.chat.complete(QUESTION, caller(key="one"))
        assert assembly.store.trips == ["admit", "admit"]
        assert provider_calls(sandbox) == 1
        running.cancel()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ChatRequest((text("user", "many words " * 9_000),)), ContextTooLong),
        (ChatRequest((text("user", "Hello"),), model="no-such-model"), NotFound),
    ],
    ids=["context", "model"],
)
async def test_what_is_refused_before_makes_none(
    assemble: Assemble,
    backend: Backend,
    sandbox: Sandbox,
    request_: ChatRequest,
    error: type[ServiceError],
) -> None:
    """What is refused for its content reaches neither store nor provider."""
    async with assemble(backend) as assembly:
        with pytest.raises(error):
            await assembly.chat.complete(request_, caller())
        assert assembly.store.trips == []
    assert provider_calls(sandbox) == 0


async def test_a_free_retry_adds_none(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """An attempt that provably cost nothing is repeated within its own reservation."""
    sandbox.script("openai", [Fault(status=429), Fault(status=429)])
    async with assemble(backend) as assembly:
        await assembly.chat.complete(QUESTION, caller())
        assert assembly.store.trips == ["admit", "settle"]
        assert provider_calls(sandbox) == 3


async def test_an_ambiguous_retry_adds_one(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """After an attempt that may have been billed, each further one is added to the reservation."""
    sandbox.script("openai", [Fault(status=500), Fault(status=500)])
    async with assemble(backend) as assembly:
        asked = caller()
        await assembly.chat.complete(QUESTION, asked)
        assert assembly.store.trips == ["admit", "top_up", "top_up", "settle"]
        assert provider_calls(sandbox) == 3
    books = backend.books()
    assert books.balanced
    assert books.charged_nano_usd == asked.record.cost_nano_usd


async def test_a_failed_call_makes_two(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A call that no provider answers is admitted and settled like any other."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="invalid_api_key")], times=None)
    async with assemble(backend) as assembly:
        with pytest.raises(ProvidersUnavailable):
            await assembly.chat.complete(QUESTION, caller(key="one"))
        assert assembly.store.trips == ["admit", "settle"]
    books = backend.books()
    assert (books.charged_nano_usd, books.open_operations, books.running_claims) == (0, 0, 0)


async def test_a_stored_summary_adds_one_read(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A new summary is read for, paid for and written; after that it is only read, by its
    caller."""
    new = ["admit", "read_summary", "top_up", "write_summary", "settle"]
    async with assemble(backend) as assembly:
        await assembly.chat.complete(LONG, caller())
        assert assembly.store.trips == new
        assert len(sandbox.requests("openai")) == 2
        assembly.store.trips.clear()
        await assembly.chat.complete(LONG, caller())
        assert assembly.store.trips == ["admit", "read_summary", "settle"]
        assert len(sandbox.requests("openai")) == 3
        assembly.store.trips.clear()
        await assembly.chat.complete(LONG, caller("grace"))
        assert assembly.store.trips == new


async def test_a_failed_summary_writes_nothing(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """When the summary fails, the call goes on with plain trimming."""
    sandbox.script("openai", [Fault(error="invalid_request")])
    async with assemble(backend) as assembly:
        asked = caller()
        completion = await assembly.chat.complete(LONG, asked)
        assert completion.text
        assert assembly.store.trips == ["admit", "read_summary", "top_up", "settle"]
        assert (asked.record.trimmed_messages > 0, asked.record.summarized_messages) == (True, 0)


async def test_a_reply_too_large_to_keep_is_not_paid_again(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A call whose reply cannot be stored is answered once; its repeat is told so, and not run."""
    sandbox.script("openai", [Reply(text="x" * policy.MAX_STORED_REPLY_BYTES)])
    async with assemble(backend) as assembly:
        assert (await assembly.chat.complete(QUESTION, caller(key="one"))).text
        with pytest.raises(ReplyNotStored):
            await assembly.chat.complete(QUESTION, caller(key="one"))
    assert len(sandbox.requests("openai")) == 1


async def test_an_endpoint_without_a_model_makes_one(
    assemble: Assemble, backend: Backend, sandbox: Sandbox
) -> None:
    """A request that is only counted has nothing to settle."""
    async with assemble(backend) as assembly:
        await assembly.chat.admit(caller())
        assert assembly.store.trips == ["admit"]
    assert provider_calls(sandbox) == 0
    assert backend.books().counter == {}
