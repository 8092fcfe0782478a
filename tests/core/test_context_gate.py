"""The gate decides, before anything is spent, what of a request a provider will see."""

import itertools
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app import policy
from app.errors import ContextTooLong, Shortage
from app.guardrails.context.gate import ContextGate, Fit, FittedRequest
from app.guardrails.context.limits import ModelLimits
from app.guardrails.context.summary import Summary, summary_keys
from app.guardrails.context.token_count import TokenCounter, Tokenizer
from app.messages import ChatRequest, Image, Message, ResponseFormat, Role, Text, Tool, ToolCall
from app.providers.anthropic import Anthropic, AnthropicSettings
from app.providers.base import ProviderAdapter
from app.providers.gemini import Gemini, GeminiSettings
from app.providers.openai import OpenAI, OpenAISettings

from .conversations import Conversation, contents, conversations, requests, text
from .sent import sent_tokens

pytestmark = pytest.mark.anyio

EXACT = OpenAI(OpenAISettings(api_key=SecretStr("key-of-openai")))
DEARER = Anthropic(AnthropicSettings(api_key=SecretStr("key-of-anthropic")))
ROLES: tuple[Role, ...] = ("user", "assistant")
ADAPTERS: dict[str, ProviderAdapter] = {
    "openai": EXACT,
    "anthropic": DEARER,
    "gemini": Gemini(GeminiSettings(api_key=SecretStr("key-of-gemini"))),
}


def gate(
    counter: TokenCounter,
    models: Mapping[str, ModelLimits] = {},
    system_message: str = "",
    **limits: int,
) -> ContextGate:
    usual = {"max_input_tokens": 400, "max_output_tokens": 100, "max_history_messages": 10}
    return ContextGate(
        counter,
        **(usual | limits),
        summary_instruction="Summarise the conversation.",
        default_system_message=system_message,
        models=models,
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


@pytest.mark.parametrize(
    ("wanted", "models", "sent"),
    [
        (None, {}, 100),
        (None, {"openai": ModelLimits(max_output_tokens=60)}, 60),
        (50, {"openai": ModelLimits(max_output_tokens=60)}, 50),
        (10**9, {"openai": ModelLimits(max_output_tokens=60)}, 60),
        (10**9, {"openai": ModelLimits(max_output_tokens=101)}, 100),
        (10**9, {"anthropic": ModelLimits(max_output_tokens=60)}, 100),
    ],
)
async def test_the_output_is_clamped_to_what_a_model_writes(
    counter: TokenCounter, wanted: int | None, models: dict[str, ModelLimits], sent: int
) -> None:
    """The least holds of what is asked for, MAX_OUTPUT_TOKENS and the model's own most."""
    request = ChatRequest((text("user", "Hello"),), max_output_tokens=wanted)
    fitted = await fit_one(gate(counter, models), request, EXACT)
    assert fitted.request.max_output_tokens == sent


async def test_the_window_holds_input_and_answer(counter: TokenCounter) -> None:
    """An input that leaves the window just room for its answer passes; one more token of either is
    too much, and 413 names what the window leaves."""
    request = ChatRequest((text("user", "many words " * 50),), max_output_tokens=30)
    exact = await count(counter, request, EXACT)
    within = gate(counter, {"openai": ModelLimits(window_tokens=exact + 30)})
    fitted = await fit_one(within, request, EXACT)
    assert fitted.input_tokens == exact
    with pytest.raises(ContextTooLong) as refusal:
        await within.fit(replace(request, max_output_tokens=31), [EXACT])
    assert f"has {exact} tokens" in refusal.value.detail
    assert f"the limit is {exact - 1} " in refusal.value.detail
    assert f"context window of openai's model, {exact + 30}, less 31" in refusal.value.detail
    assert refusal.value.shortage == Shortage(limit=exact - 1, asked=exact)
    # A model that writes less leaves more to the input.
    terse = ModelLimits(window_tokens=exact + 30, max_output_tokens=30)
    fitted = await fit_one(gate(counter, {"openai": terse}), request, EXACT)
    assert (fitted.input_tokens, fitted.request.max_output_tokens) == (exact, 30)


async def test_max_input_tokens_holds_in_any_window(counter: TokenCounter) -> None:
    """A window with room for more does not widen the limit for all, which 413 then names."""
    request = ChatRequest((text("user", "many words " * 300),))
    with pytest.raises(ContextTooLong) as refusal:
        await gate(counter, {"openai": ModelLimits(10**6)}).fit(request, [EXACT])
    assert "the limit is 400 (MAX_INPUT_TOKENS)" in refusal.value.detail


async def test_each_provider_has_limits_of_its_own(counter: TokenCounter) -> None:
    """A narrow window trims its provider's history alone, and leaves it out where nothing helps."""
    turns = [text(role, "many words " * 10) for _ in range(4) for role in ("user", "assistant")]
    request = ChatRequest((*turns, text("user", "And now?")))
    narrow = gate(counter, {"openai": ModelLimits(window_tokens=160)}, max_input_tokens=4_000)
    fit = await narrow.fit(request, [EXACT, DEARER])
    assert fit.by_provider["openai"].dropped
    assert fit.by_provider["openai"].input_tokens <= 60
    assert not fit.by_provider["anthropic"].dropped
    closed = gate(counter, {"openai": ModelLimits(window_tokens=109)}, max_input_tokens=4_000)
    assert list((await closed.fit(request, [EXACT, DEARER])).by_provider) == ["anthropic"]


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


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and the limits that each provider is to keep to."""

    conversation: Conversation
    request: ChatRequest
    limits: dict[str, int]
    models: dict[str, ModelLimits]
    system_message: str

    def gate(self, counter: TokenCounter) -> ContextGate:
        return gate(counter, self.models, self.system_message, **self.limits)

    async def fit(self, counter: TokenCounter) -> Fit | None:
        """`None`: it is too long for all of them."""
        with suppress(ContextTooLong):
            return await self.gate(counter).fit(self.request, list(ADAPTERS.values()))
        return None

    def output_limit(self, provider: str) -> int:
        own = self.models[provider].max_output_tokens
        wanted = (self.request.max_output_tokens, own, self.limits["max_output_tokens"])
        return min(limit for limit in wanted if limit is not None)

    def input_limit(self, provider: str) -> int:
        window = self.models[provider].window_tokens
        for_all = self.limits["max_input_tokens"]
        return for_all if window is None else min(for_all, window - self.output_limit(provider))


model_limits = st.builds(
    ModelLimits,
    st.one_of(st.none(), st.integers(50, 5_000)),
    st.one_of(st.none(), st.integers(1, 300)),
)


ESCAPED = st.text('"\\<\n', min_size=20, max_size=600)
"""What takes more tokens in a line of JSON."""


no_system_message = st.just("")


@st.composite
def cases(draw: st.DrawFn, system_messages: st.SearchStrategy[str] = no_system_message) -> Case:
    conversation = draw(conversations(contents | ESCAPED))
    return Case(
        conversation,
        draw(requests(conversation)),
        {
            "max_input_tokens": draw(st.sampled_from([40, 150, 400, 4_000, 40_000])),
            "max_output_tokens": draw(st.sampled_from([1, 100, 1_000])),
            "max_history_messages": draw(st.sampled_from([1, 2, 5, 20])),
        },
        {name: draw(model_limits) for name in ADAPTERS},
        draw(system_messages),
    )


@pytest.mark.promise("C1", "C2", "C3")
@given(cases(st.sampled_from(["", "Be brief, and rhyme."])))
async def test_what_is_sent_is_within_each_providers_limits(
    counter: TokenCounter, oracle: tiktoken.Encoding, case: Case
) -> None:
    """Counted by the bytes that it would be sent, no provider gets more than its limits allow, nor
    more than is set aside, a summary of full length and the default system message included; and
    with or without a summary no less is kept than must be."""
    fit = await case.fit(counter)
    if fit is None:
        return
    adapters = list(ADAPTERS.values())
    limited = case.gate(counter)
    summaries: list[Summary | None] = [None]
    if fit.wanted and (call := await limited.summary_call(fit, adapters)):
        words = call.request.max_output_tokens or 0
        longest = " a" * words
        assert counter.text(longest) == words
        windows = [model.window_tokens for model in case.models.values()]
        limits = [case.limits["max_input_tokens"]]
        limits += [window - words for window in windows if window is not None]
        summaries += [Summary(longest, covered, 1) for covered in (fit.wanted[0], fit.wanted[-1])]
        for asked in (call, await limited.summary_call(fit, adapters, Summary(longest, 1, 1))):
            if asked is not None:
                counted = max(sent_tokens(a, asked.request, oracle) for a in adapters)
                assert counted <= asked.input_tokens <= min(limits)
    messages, must = case.request.messages, case.conversation.indices
    for name, summary in itertools.product(fit.by_provider, summaries):
        fitted = fit.fitted(name, summary)
        sent = sent_tokens(ADAPTERS[name], fitted.request, oracle)
        most = fit.by_provider[name].most_input_tokens
        assert sent <= fitted.input_tokens <= most <= case.input_limit(name)
        assert fitted.request.max_output_tokens == case.output_limit(name)
        ids = set(map(id, fitted.request.messages))
        kept = {i for i, message in enumerate(messages) if id(message) in ids}
        assert [m for i, m in enumerate(messages) if i not in kept] == list(fitted.dropped)
        assert kept.issuperset((*must("system"), *must("user")[-1:]))
        for exchange in case.conversation.exchanges:
            assert len(kept.intersection(exchange)) in (0, len(exchange))


@pytest.mark.promise("C4")
@given(cases())
async def test_what_is_kept_makes_sense_by_itself(counter: TokenCounter, case: Case) -> None:
    """For each provider: system messages, the last question and the newest message are there, a
    tool call has all of its results, and what is kept and dropped is the conversation in order."""
    fit = await case.fit(counter)
    messages = case.request.messages
    for fitted in fit.by_provider.values() if fit else ():
        kept = set(map(id, fitted.request.messages))
        assert [m for m in messages if id(m) in kept] == list(fitted.request.messages)
        assert [m for m in messages if id(m) not in kept] == list(fitted.dropped)
        indices = {i for i, message in enumerate(messages) if id(message) in kept}
        assert indices.issuperset(case.conversation.indices("system"))
        assert indices.issuperset(case.conversation.indices("user")[-1:])
        assert len(messages) - 1 in indices
        for exchange in case.conversation.exchanges:
            assert len(indices & set(exchange)) in (0, len(exchange))


@pytest.mark.promise("C4")
@given(cases())
async def test_nothing_is_trimmed_without_need(counter: TokenCounter, case: Case) -> None:
    """A provider that can take all of it is sent all of it, and it is left out just when not even
    the least is short enough."""
    fit = await case.fit(counter)
    messages = case.request.messages
    turns = len(messages) - len(case.conversation.indices("system"))
    least = replace(
        case.request, messages=tuple(messages[i] for i in sorted(case.conversation.least))
    )
    for name, adapter in ADAPTERS.items():
        fitted = fit.by_provider.get(name) if fit else None
        can_be_asked = await count(counter, least, adapter) <= case.input_limit(name)
        assert (fitted is not None) is can_be_asked
        tokens = await count(counter, case.request, adapter)
        if tokens <= case.input_limit(name) and turns <= case.limits["max_history_messages"]:
            assert fitted is not None
            assert (fitted.input_tokens, fitted.dropped) == (tokens, ())


@pytest.mark.promise("C4")
@given(cases())
async def test_what_was_trimmed_is_not_trimmed_again(counter: TokenCounter, case: Case) -> None:
    """What a provider is sent goes through the gate as it is."""
    fit = await case.fit(counter)
    for name, fitted in fit.by_provider.items() if fit else ():
        again = await replace(case, request=fitted.request).fit(counter)
        assert again is not None
        assert again.by_provider[name].request == fitted.request


def numbered(turns: int, words: int = 0) -> list[Message]:
    return [text(role, f"({role} {n})" + " word" * words) for n in range(turns) for role in ROLES]


async def test_a_summary_takes_the_place_of_what_it_covers(counter: TokenCounter) -> None:
    """A summary stands behind the system message, and what it covers gives way to it."""
    request = ChatRequest((text("system", "Be brief."), *numbered(20), text("user", "And now?")))
    fit = await gate(counter, max_input_tokens=4_000).fit(request, [EXACT])
    for covered in fit.wanted:
        fitted = fit.fitted("openai", Summary("They spoke of numbers.", covered, covered))
        sent = fitted.request.messages
        assert [m.role for m in sent[:2]] == ["system", "system"]
        assert "They spoke of numbers." in sent[1].text
        assert sent[2:] == request.messages[1 + covered :]
        assert fitted.dropped == request.messages[1 : 1 + covered]
    plain = fit.fitted("openai", None).request.messages
    assert plain == (request.messages[0], *request.messages[-9:])


@pytest.mark.parametrize(("kept", "most", "least"), [(10, 9, 5), (20, 19, 9), (3, 3, 1), (1, 1, 1)])
async def test_a_new_summary_leaves_room_for_turns_to_come(
    counter: TokenCounter, kept: int, most: int, least: int
) -> None:
    """It covers half of the turns that would fit beside it. One that covers less serves as long as
    the rest fits; one that covers less than that, or the question, does not."""
    request = ChatRequest((*numbered(20), text("user", "And now?")))
    limited = gate(counter, max_input_tokens=4_000, max_history_messages=kept)
    fit = await limited.fit(request, [EXACT])
    count = len(request.messages)
    assert (fit.wanted[0], fit.wanted[-1]) == (count - most, count - least)
    for covered, takes in ((count - most - 2, False), (count - most, True), (count, False)):
        assert fit.takes("openai", Summary("They spoke.", covered, covered)) is takes


async def test_a_summary_is_made_of_what_came_since(counter: TokenCounter) -> None:
    """The call for the first summary has all of what it is to cover, each later one the summary
    before and only what has come since."""
    request = ChatRequest((*numbered(20), text("user", "And now?")))
    limited = gate(counter, max_input_tokens=4_000)
    fit = await limited.fit(request, [EXACT])
    covered = fit.history[: fit.wanted[-1]]
    first = await limited.summary_call(fit, [EXACT])
    assert first is not None
    assert first.messages == len(covered) > 20
    assert all(message.text in first.request.messages[-1].text for message in covered)
    # Of those sixteen one was too long for a summary at the time.
    later = await limited.summary_call(fit, [EXACT], Summary("They spoke of numbers.", 16, 15))
    assert later is not None
    material = later.request.messages[-1].text
    assert "They spoke of numbers." in material
    seen = [message.text in material for message in fit.history]
    assert seen == [False] * 16 + [True] * (len(covered) - 16) + [False] * (41 - len(covered))
    assert later.messages == len(covered) - 1


async def test_what_does_not_fit_beside_a_summary_is_left_out(counter: TokenCounter) -> None:
    """The newest messages go first into a call for a summary, and it says how many there were."""
    limited = gate(counter, max_input_tokens=800)
    request = ChatRequest((*numbered(20, words=90), text("user", "And now?")))
    fit = await limited.fit(request, [EXACT])
    covered = fit.history[: fit.wanted[-1]]
    before = Summary("word " * 190, 2, 2)
    alone = await limited.summary_call(fit, [EXACT])
    beside = await limited.summary_call(fit, [EXACT], before)
    assert alone is not None and beside is not None
    for call, told in ((alone, 0), (beside, 2)):
        seen = [message.text in call.request.messages[-1].text for message in covered]
        new = call.messages - told
        assert seen == [False] * (len(covered) - new) + [True] * new
        assert await count(counter, call.request, EXACT) == call.input_tokens <= 800
    assert alone.messages > beside.messages - 2 > 0


async def test_a_summary_has_no_more_room_than_is_kept_for_it(counter: TokenCounter) -> None:
    """A model that writes more than it may is cut short; one that writes nothing has no summary."""
    limited = gate(counter, max_input_tokens=400)
    assert limited.summary(" They spoke of rain.\n", 4, 3) == Summary("They spoke of rain.", 4, 3)
    assert limited.summary(" \n", 4, 3) is None
    for endless in ("word " * 10_000, "0a" * 500_000):
        cut = limited.summary(endless, 4, 3)
        assert cut is not None
        assert endless.startswith(cut.text)
        assert 80 < counter.text(cut.text) <= 100


def test_summaries_are_named_by_what_they_cover() -> None:
    """A longer conversation finds the summaries of its beginnings, nobody else's, and none of a
    conversation that differs somewhere."""
    turns = [text(role, f"{role} {n}") for n in range(120) for role in ROLES]
    call = Message("assistant", tool_calls=(ToolCall("1", "look_up", "{}"),))
    turns[5:5] = [call, Message("tool", (Text("found"),), tool_call_id="1")]
    keys = summary_keys("ada", turns)
    assert len(keys) == policy.SUMMARY_LOOKBACK_TURNS
    assert [key.covered for key in keys[:3]] == [242, 240, 238]
    assert [key.covered for key in summary_keys("ada", turns[:8])] == [8, 4, 2]
    assert keys[1:] == summary_keys("ada", turns[:240])[:-1]
    pictured = replace(turns[0], content=(*turns[0].content, Image("https://example.com/a.png")))
    other_calls = [
        replace(call, tool_calls=(ToolCall(*parts),) * count)
        for *parts, count in (
            ("2", "look_up", "{}", 1),
            ("1", "look", "{}", 1),
            ("1", "look_up", "[]", 1),
            ("1", "look_up", "{}", 2),
        )
    ]
    others = (
        summary_keys("grace", turns),
        summary_keys("ada", [text("user", "user 0!"), *turns[1:]]),
        summary_keys("ada", [text("assistant", "user 0"), *turns[1:]]),
        summary_keys("ada", [text("user", "user 0assistantassistant 0"), *turns[2:]]),
        *(summary_keys("ada", [*turns[:5], other, *turns[6:]]) for other in other_calls),
        summary_keys("ada", [*turns[:6], replace(turns[6], tool_call_id="2"), *turns[7:]]),
        summary_keys("ada", [replace(turns[0], name="Ada"), *turns[1:]]),
        summary_keys("ada", [pictured, *turns[1:]]),
    )
    assert not {key.key for key in keys} & {key.key for other in others for key in other}


async def test_the_default_system_message_is_input_like_any_other(counter: TokenCounter) -> None:
    """It stands first, counts, and stays when all else is trimmed; the limit holds with it."""
    default = text("system", "Answer in rhymes. " * 20)
    turns = [text(role, f"{role} {n}") for n in range(20) for role in ("user", "assistant")]
    request = ChatRequest((*turns, text("user", "And now?")))
    limited = gate(counter, system_message=default.text, max_history_messages=2)
    fitted = await fit_one(limited, request, EXACT)
    assert fitted.request.messages == (default, request.messages[-1])
    last = ChatRequest(request.messages[-1:])
    exact = await count(counter, ChatRequest((default, *last.messages)), EXACT)
    assert (await fit_one(limited, last, EXACT)).input_tokens == exact
    await gate(counter, system_message=default.text, max_input_tokens=exact).fit(last, [EXACT])
    with pytest.raises(ContextTooLong):
        await gate(counter, system_message=default.text, max_input_tokens=exact - 1).fit(
            last, [EXACT]
        )


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
        fitted = await fit_one(gate(counter, system_message=default), request, EXACT)
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
    call = await wide.summary_call(await wide.fit(request, [EXACT]), [EXACT])
    assert call is not None and long.text in call.request.messages[-1].text
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
