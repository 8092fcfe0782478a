"""A step of the store whose reply is lost is neither taken twice nor left half-way."""

from collections.abc import AsyncIterator

import pytest

from app import policy
from app.errors import ServiceError, StoreUnavailable
from app.guardrails.context.token_count import TokenCounter
from app.messages import ChatRequest
from sandbox.faults import Fault
from sandbox.server import Sandbox

from .assembly import Assembly, assembled, caller
from .backends import Backend
from .conftest import OpenProviders
from .conversations import text
from .faulty_store import FaultyStore, Mishap

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R4")]

QUESTION = ChatRequest((text("user", "What is a guardrail?"),))


@pytest.fixture
def store(backend: Backend) -> FaultyStore:
    return FaultyStore(backend.connect())


@pytest.fixture
async def assembly(
    store: FaultyStore,
    open_providers: OpenProviders,
    counter: TokenCounter,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Assembly]:
    monkeypatch.setattr(policy, "SETTLEMENT_RETRY_SECONDS", 0.001)
    async with open_providers() as providers, assembled(store, providers, counter) as assembly:
        yield assembly


@pytest.mark.parametrize("mishap", ["not carried out", "reply lost", "carried out late"])
async def test_a_settlement_is_written_once(
    assembly: Assembly, store: FaultyStore, backend: Backend, mishap: Mishap
) -> None:
    """The caller has its reply whatever becomes of the settlement, which is repeated until it is
    known to be written, and counts once."""
    store.mishaps["settle"].extend([mishap] * 3)
    asked = caller(key="one")
    completion = await assembly.chat.complete(QUESTION, asked)
    await assembly.finish()
    await store.arrive()
    assert store.trips.count("settle") >= 4 - 3 * (mishap == "not carried out")
    books = backend.books()
    assert books.balanced
    assert books.charged_nano_usd == asked.record.cost_nano_usd > 0
    assert (books.open_operations, books.running_claims) == (0, 0)
    assembly.tasks.closed = False
    repeat = await assembly.chat.complete(QUESTION, caller(key="one"))
    assert (repeat.reply, repeat.replayed) == (completion.reply, True)


@pytest.mark.parametrize("mishap", ["not carried out", "reply lost", "carried out late"])
async def test_an_admission_without_a_reply_holds_nothing(
    assembly: Assembly, store: FaultyStore, backend: Backend, sandbox: Sandbox, mishap: Mishap
) -> None:
    """503; whether the admission took place, or takes place only after it was given up, it leaves
    no reservation and no claim, and a repeat runs."""
    store.mishaps["admit"].append(mishap)
    with pytest.raises(StoreUnavailable):
        await assembly.chat.complete(QUESTION, caller(key="one"))
    assert await assembly.backlog.close(5) == 0
    await store.arrive()
    assert sandbox.requests("openai") == []
    books = backend.books()
    assert books.balanced
    assert (books.charged_nano_usd, books.open_operations, books.running_claims) == (0, 0, 0)
    assert not (await assembly.chat.complete(QUESTION, caller(key="one"))).replayed


@pytest.mark.parametrize("mishap", ["not carried out", "reply lost", "carried out late"])
async def test_a_top_up_without_a_reply_is_no_leave(
    assembly: Assembly, store: FaultyStore, backend: Backend, sandbox: Sandbox, mishap: Mishap
) -> None:
    """Without a yes there is no further attempt, and what was added in vain is given back."""
    sandbox.script("openai", [Fault(status=500)])
    store.mishaps["top_up"].append(mishap)
    asked = caller()
    with pytest.raises(ServiceError):
        await assembly.chat.complete(QUESTION, asked)
    await assembly.finish()
    await store.arrive()
    assert len(sandbox.requests("openai")) == 1
    books = backend.books()
    assert books.balanced
    assert books.charged_nano_usd == asked.record.cost_nano_usd > 0
    assert books.open_operations == 0
