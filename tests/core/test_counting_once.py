"""Each text of a request is counted once, and a long one where it holds nobody up."""

import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import tiktoken

from app.errors import ProvidersUnavailable
from app.guardrails.context.token_count import TokenCounter
from app.messages import ChatRequest, Message, Text, Tool, ToolCall
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .assembly import Assembly, caller
from .backends import Backend
from .conftest import Assemble
from .conversations import text
from .waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.promise("C2")]

OWN_CHARACTERS = 2_000
"""More than the service's own words to a summariser are, which are counted as well."""
LONG = "0a" * 30_000
TOOL = Tool("look_up", "Looks it up.", {"type": "object"})


@dataclass(slots=True)
class Encoder:
    """What the encoder was given, and in which threads."""

    texts: list[str] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)
    long_threads: set[threading.Thread] = field(default_factory=set)
    """Of texts that take long."""


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    encoder = Encoder()
    encode = tiktoken.Encoding.encode_ordinary

    def watched(self: tiktoken.Encoding, text: str) -> list[int]:
        encoder.texts.append(text)
        encoder.threads.add(threading.current_thread())
        if len(text) > 1_000:
            encoder.long_threads.add(threading.current_thread())
        return encode(self, text)

    monkeypatch.setattr(tiktoken.Encoding, "encode_ordinary", watched)
    return encoder


def conversation(turns: int) -> ChatRequest:
    """So many turns with tools, no two texts of which are the same."""
    messages = [text("system", "Be brief.")]
    for n in range(turns):
        messages += [
            Message("user", (Text(f"Look up number {n}."),)),
            Message("assistant", tool_calls=(ToolCall(f"call-{n}", "look_up", f'{{"n": {n}}}'),)),
            Message("tool", (Text(f"Number {n} was found."),), tool_call_id=f"call-{n}"),
        ]
    return ChatRequest((*messages, text("user", "And now?")), tools=(TOOL,))


async def complete(assembly: Assembly, request: ChatRequest) -> None:
    await assembly.chat.complete(request, caller())


async def stream(assembly: Assembly, request: ChatRequest) -> None:
    async for _ in await assembly.chat.stream(request, caller()):
        pass


Call = Callable[[Assembly, ChatRequest], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("call", [complete, stream])
@pytest.mark.parametrize("turns", [2, 40])
async def test_each_text_is_counted_once(
    assemble: Assemble, memory: Backend, sandbox: Sandbox, encoder: Encoder, call: Call, turns: int
) -> None:
    """However many providers are asked, and whether or not history is trimmed and summarised, the
    encoder is given each text of the conversation one time, and little besides: of what a new
    summary is made of, each line, which is a text of its own."""
    request = conversation(turns)
    async with assemble(memory) as assembly:
        sandbox.script("openai", [Fault(error="invalid_api_key")] * 2)
        encoder.texts.clear()
        await call(assembly, request)
    assert sandbox.requests("openai") and sandbox.requests("anthropic")
    own = [part.text for m in request.messages for part in m.content if isinstance(part, Text)]
    own += [call.arguments for m in request.messages for call in m.tool_calls]
    own += ["Looks it up."]
    lines = {given for given in encoder.texts if given.startswith('{"role": ')}
    given_once = [given for given in encoder.texts if given not in lines]
    for once in own:
        assert sum(given.count(once) for given in given_once) == 1, once
    assert bool(lines) is (turns == 40)
    assert Counter(encoder.texts) - Counter(given_once) == Counter(lines)
    rest = [given for given in given_once if not any(once in given for once in own)]
    # A result's id is one more text than the call's.
    ids = Counter(m.tool_call_id for m in request.messages if m.tool_call_id)
    others = Counter(rest) - ids
    assert ids <= Counter(rest)
    assert sum(map(len, others)) <= (0 if turns == 2 else OWN_CHARACTERS)


async def test_a_long_answer_that_breaks_off_is_counted_off_the_loop(
    assemble: Assemble, memory: Backend, sandbox: Sandbox, encoder: Encoder
) -> None:
    """What a broken stream has said is counted in a thread when it is long, and billed."""
    reply = Reply(text=LONG, chunks=2)
    sandbox.script("openai", [Fault(reply=reply, action="close", after_chunks=1)])
    async with assemble(memory) as assembly:
        encoder.texts.clear()
        encoder.threads.clear()
        asker = caller()
        with pytest.raises(ProvidersUnavailable):
            async for _ in await assembly.chat.stream(
                ChatRequest((text("user", "Hi"),), max_output_tokens=150), asker
            ):
                pass
    assert LONG.startswith("".join(encoder.texts).removeprefix("Hi"))
    assert len("".join(encoder.texts)) > len(LONG) / 3
    assert threading.main_thread() not in encoder.long_threads
    assert asker.record.output_tokens == 150


async def test_who_leaves_while_it_is_counted_is_charged(
    assemble: Assemble,
    memory: Backend,
    sandbox: Sandbox,
    counter: TokenCounter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broken stream that is cut off before its words are counted stands in the line as it broke,
    and is charged its worst case, since nobody knows."""
    counting, go_on = threading.Event(), threading.Event()
    count = counter.text

    def hesitate(text: str) -> int:
        if len(text) > 1_000:
            counting.set()
            assert go_on.wait(10)
        return count(text)

    monkeypatch.setattr(counter, "text", hesitate)
    reply = Reply(text=LONG, chunks=2)
    sandbox.script("openai", [Fault(reply=reply, action="close", after_chunks=1)])
    asker = caller()
    async with assemble(memory) as assembly:
        stream = await assembly.chat.stream(ChatRequest((text("user", "Hi"),)), asker)
        await until(counting.is_set)
        stream.cancel()
        await assembly.finish()
        go_on.set()
        books = memory.books()
        assert books.balanced and not books.open_operations
    (attempt,) = asker.record.attempts
    assert attempt.outcome == "ProviderUnavailable"
    (charge,) = asker.record.charges
    price = assembly.providers.prices["openai"]
    assert charge.cost_nano_usd == attempt.cost_nano_usd == price.worst_case_nano_usd(8, 200)


async def test_a_short_answer_that_breaks_off_needs_no_thread(
    assemble: Assemble, memory: Backend, sandbox: Sandbox, encoder: Encoder
) -> None:
    """The usual one is counted where it is, which is faster."""
    sandbox.script("openai", [Fault(action="close", after_chunks=3)])
    async with assemble(memory) as assembly:
        encoder.threads.clear()
        with pytest.raises(ProvidersUnavailable):
            await stream(assembly, ChatRequest((text("user", "Hi"),)))
    assert encoder.threads == {threading.main_thread()}
