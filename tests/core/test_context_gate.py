"""The gate decides, before anything is spent, what of a request a provider will see."""

import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app import policy
from app.errors import ContextTooLong
from app.guardrails.context.gate import ContextGate, FittedRequest
from app.guardrails.context.token_count import TokenCounter, Tokenizer
from app.messages import ChatRequest, Image, Message, ResponseFormat, Text, Tool, ToolCall
from app.providers.anthropic import Anthropic, AnthropicSettings
from app.providers.base import ProviderAdapter
from app.providers.openai import OpenAI, OpenAISettings

from .conversations import Conversation, conversations, text, texts

pytestmark = pytest.mark.anyio

EXACT = OpenAI(OpenAISettings(api_key=SecretStr("key-of-openai")))
DEARER = Anthropic(AnthropicSettings(api_key=SecretStr("key-of-anthropic")))
ADAPTERS: dict[str, ProviderAdapter] = {"openai": EXACT, "anthropic": DEARER}


def gate(counter: TokenCounter, system_message: str = "", **limits: int) -> ContextGate:
    return ContextGate(
        counter,
        **{
            "max_input_tokens": 400,
            "max_output_tokens": 100,
            "max_history_messages": 10,
            **limits,
        },
        summary_instruction="Summarise the conversation.",
        default_system_message=system_message,
    )


async def fit_one(
    gate: ContextGate, request: ChatRequest, adapter: ProviderAdapter
) -> FittedRequest:
    fit = await gate.fit(request, [adapter])
    return fit.by_provider[adapter.name]


async def count(counter: TokenCounter, request: ChatRequest, *adapters: ProviderAdapter) -> int:
    tokenizer = Tokenizer.of(adapters)
    sizes, frame = await counter.request(request)
    return sum(map(tokenizer.tokens, sizes)) + tokenizer.tokens(frame)


@pytest.mark.parametrize(
    ("wanted", "sent"), [(None, 100), (1, 1), (100, 100), (101, 100), (10**9, 100)]
)
async def test_the_output_is_clamped(counter: TokenCounter, wanted: int | None, sent: int) -> None:
    """Every call has an output limit, and never one above MAX_OUTPUT_TOKENS."""
    request = ChatRequest((text("user", "Hello"),), max_output_tokens=wanted)
    fitted = await fit_one(gate(counter), request, EXACT)
    assert fitted.request.max_output_tokens == sent


async def test_the_limit_is_exact(counter: TokenCounter) -> None:
    """An input of just as many tokens as allowed passes, one more is refused."""
    request = ChatRequest((text("user", "many words " * 50),))
    exact = await count(counter, request, EXACT)
    fitted = await fit_one(gate(counter, max_input_tokens=exact), request, EXACT)
    assert fitted.input_tokens == exact
    with pytest.raises(ContextTooLong):
        await gate(counter, max_input_tokens=exact - 1).fit(request, [EXACT])


async def test_a_refusal_names_count_and_limit(counter: TokenCounter) -> None:
    """An input that is too long even when trimmed is refused, with its count and the limit."""
    request = ChatRequest((text("system", "rules " * 300), text("user", "many words " * 200)))
    with pytest.raises(ContextTooLong) as refusal:
        await gate(counter).fit(request, [EXACT])
    assert str(await count(counter, request, EXACT)) in refusal.value.detail
    assert "400" in refusal.value.detail
    assert (refusal.value.status, refusal.value.code) == (413, "context_length_exceeded")


async def test_each_provider_counts_its_own_way(counter: TokenCounter) -> None:
    """A provider for which the input is too long by its own count is left out, the others stay."""
    request = ChatRequest((text("user", "many words " * 150),))
    fit = await gate(counter).fit(request, [DEARER, EXACT])
    assert list(fit.by_provider) == ["openai"]
    assert fit.by_provider["openai"].input_tokens == await count(counter, request, EXACT)
    with pytest.raises(ContextTooLong) as refusal:
        await gate(counter).fit(request, [DEARER])
    assert str(await count(counter, request, DEARER)) in refusal.value.detail


async def test_an_image_is_never_free(counter: TokenCounter) -> None:
    """An image counts as its vendor's declared most, and its address as nothing."""
    image = Image("https://example.com/" + "a" * 5_000)
    plain = ChatRequest((text("user", "What is this?"),))
    pictured = ChatRequest((Message("user", (Text("What is this?"), image)),))
    wide = gate(counter, max_input_tokens=100_000)
    for adapter in (EXACT, DEARER):
        without = (await fit_one(wide, plain, adapter)).input_tokens
        with_image = (await fit_one(wide, pictured, adapter)).input_tokens
        assert with_image - without == adapter.image_tokens > 0


ESCAPED = st.text('"\\<\n', min_size=20, max_size=600)
"""What takes more tokens in a line of JSON."""


@given(
    conversations(texts | ESCAPED),
    st.sampled_from([40, 150, 400, 1_000, 4_000]),
    st.sampled_from([2, 5, 20]),
    st.sampled_from(["", "Be brief, and rhyme."]),
)
async def test_what_is_sent_is_within_the_limit(
    counter: TokenCounter,
    conversation: Conversation,
    max_tokens: int,
    max_messages: int,
    system_message: str,
) -> None:
    """Whatever passes the gate, a summary of full length and the default system message included,
    is within MAX_INPUT_TOKENS."""
    limited = gate(
        counter, system_message, max_input_tokens=max_tokens, max_history_messages=max_messages
    )
    request = ChatRequest(conversation.messages)
    try:
        fit = await limited.fit(request, [EXACT, DEARER])
    except ContextTooLong:
        return
    summary: str | None = None
    if fit.summary is not None:
        words = fit.summary.request.max_output_tokens or 0
        summary = " a" * words
        assert counter.text(summary) == words
        asked = await count(counter, fit.summary.request, EXACT, DEARER)
        assert asked <= fit.summary.input_tokens <= max_tokens
    for name, fitted in fit.by_provider.items():
        sent = await count(counter, fit.request_for(name, summary), ADAPTERS[name])
        assert sent <= fitted.input_tokens <= max_tokens
        kept = set(map(id, fitted.request.messages))
        assert [m for m in request.messages if id(m) not in kept] == list(fitted.dropped)


async def test_a_summary_takes_the_place_of_what_it_covers(counter: TokenCounter) -> None:
    """A summary stands behind the system message, where a provider has dropped just that."""
    turns = [text(role, f"{role} {n}") for n in range(20) for role in ("user", "assistant")]
    request = ChatRequest((text("system", "Be brief."), *turns, text("user", "And now?")))
    fit = await gate(counter, max_input_tokens=4_000).fit(request, [EXACT])
    assert fit.summary is not None
    sent = fit.request_for("openai", "They spoke of numbers.").messages
    assert [m.role for m in sent[:3]] == ["system", "system", "user"]
    assert "They spoke of numbers." in sent[1].text
    assert sent[-1].text == "And now?"
    assert fit.request_for("openai", None).messages == (sent[0], *sent[2:])
    material = fit.summary.request.messages[-1].text
    assert all(message.text in material for message in fit.summary.covers)


async def test_the_default_system_message_is_input_like_any_other(counter: TokenCounter) -> None:
    """It stands first, counts, and stays when all else is trimmed; the limit holds with it."""
    default = text("system", "Answer in rhymes. " * 20)
    turns = [text(role, f"{role} {n}") for n in range(20) for role in ("user", "assistant")]
    request = ChatRequest((*turns, text("user", "And now?")))
    limited = gate(counter, default.text, max_history_messages=2)
    fitted = await fit_one(limited, request, EXACT)
    assert fitted.request.messages == (default, request.messages[-1])
    last = ChatRequest(request.messages[-1:])
    exact = await count(counter, ChatRequest((default, *last.messages)), EXACT)
    assert (await fit_one(limited, last, EXACT)).input_tokens == exact
    await gate(counter, default.text, max_input_tokens=exact).fit(last, [EXACT])
    with pytest.raises(ContextTooLong):
        await gate(counter, default.text, max_input_tokens=exact - 1).fit(last, [EXACT])


@pytest.mark.parametrize("own", ["Be brief.", ""])
@pytest.mark.parametrize("place", [0, 1])
async def test_a_conversation_with_a_system_message_gets_no_other(
    counter: TokenCounter, own: str, place: int
) -> None:
    """The caller's own, wherever it stands and though it be empty, is the only one."""
    messages = [text("user", "Hello")]
    messages.insert(place, text("system", own))
    request = ChatRequest(tuple(messages))
    for default in ("Answer in rhymes.", ""):
        fitted = await fit_one(gate(counter, default), request, EXACT)
        assert fitted.request.messages == request.messages
        assert fitted.input_tokens == await count(counter, request, EXACT)


async def test_without_a_default_system_message_nothing_is_added(counter: TokenCounter) -> None:
    """A conversation goes as it came, not with an empty message before it."""
    request = ChatRequest((text("user", "Hello"),))
    assert (await fit_one(gate(counter), request, EXACT)).request.messages == request.messages


BULK = "0a" * 100_000


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([text("user", BULK)], id="text"),
        pytest.param([Message("user", (Text("Hi"),), name=BULK)], id="name"),
        pytest.param(
            [Message("assistant", tool_calls=(ToolCall("1", "f", BULK),))], id="arguments"
        ),
        pytest.param([Message("assistant", tool_calls=(ToolCall(BULK, "f", "{}"),))], id="call"),
        pytest.param([Message("tool", (Text("Hi"),), tool_call_id=BULK)], id="result"),
        pytest.param([text("user", BULK), text("assistant", "So?"), text("user", "Hi")], id="old"),
    ],
)
async def test_a_megabyte_of_messages_is_counted_off_the_loop(
    counter: TokenCounter, messages: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge input is counted in a thread, wherever in a message it hides; `/livez` stays fast."""
    threads = watch_threads(counter, monkeypatch)
    with suppress(ContextTooLong):
        await gate(counter).fit(ChatRequest(tuple(messages)), [EXACT])
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    "parameter",
    [
        {"tools": (Tool("f", BULK),)},
        {"response_format": ResponseFormat("json_schema", {"name": "a", "about": BULK})},
    ],
    ids=["tools", "response_format"],
)
async def test_a_megabyte_of_parameters_is_counted_off_the_loop(
    counter: TokenCounter, parameter: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Huge tools and schemas are counted in a thread too."""
    threads = watch_threads(counter, monkeypatch)
    with pytest.raises(ContextTooLong):
        await gate(counter).fit(ChatRequest((text("user", "Hi"),), **parameter), [EXACT])
    assert threads
    assert threading.main_thread() not in threads


async def test_what_is_to_be_summarised_is_counted_off_the_loop(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lines of data long messages are counted once more, in a thread as well."""
    threads = watch_threads(counter, monkeypatch)
    long = text("user", "many words " * 3_000)
    request = ChatRequest((long, text("assistant", "So?"), text("user", "Hi")))
    wide = gate(counter, max_input_tokens=20_000, max_history_messages=1)
    fit = await wide.fit(request, [EXACT])
    assert fit.summary is not None and long.text in fit.summary.request.messages[-1].text
    assert threads
    assert threading.main_thread() not in threads


def watch_threads(counter: TokenCounter, monkeypatch: pytest.MonkeyPatch) -> set[threading.Thread]:
    """The threads in which long texts are counted from now on."""
    threads: set[threading.Thread] = set()
    count_text = counter.text

    def watched(text: str) -> int:
        if len(text) > policy.COUNT_INLINE_CHARACTERS:
            threads.add(threading.current_thread())
        return count_text(text)

    monkeypatch.setattr(counter, "text", watched)
    return threads
