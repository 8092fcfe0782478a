"""Trimming keeps what a model cannot do without, and of the rest the newest that fits."""

from hypothesis import given
from hypothesis import strategies as st

from app.guardrails.context.history import trim

from .conversations import Conversation, conversations, text


@st.composite
def sized_conversations(draw: st.DrawFn) -> tuple[Conversation, tuple[int, ...]]:
    """A conversation and what each message counts: empty ones, giants and all between."""
    conversation = draw(conversations(st.just("")))
    sizes = st.one_of(st.just(0), st.integers(1, 50), st.integers(1_000, 100_000))
    count = len(conversation.messages)
    return conversation, tuple(draw(st.lists(sizes, min_size=count, max_size=count)))


limits = st.one_of(st.integers(1, 30), st.just(10_000))
token_limits = st.one_of(st.integers(0, 500), st.integers(500, 500_000))

given_limits = given(sized_conversations(), limits, token_limits)
Sized = tuple[Conversation, tuple[int, ...]]


@given_limits
def test_the_limit_holds_when_it_fits(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """What is said to fit counts no more than the limit, and its count is the sum of its parts."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    assert trimmed.tokens == sum(tokens[i] for i in trimmed.kept)
    assert trimmed.fits is (trimmed.tokens <= max_tokens)


@given_limits
def test_the_indispensable_stays(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """Every system message, the last user turn and the newest message are always kept."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    kept = set(trimmed.kept)
    assert kept.issuperset(conversation.indices("system"))
    assert kept.issuperset(conversation.indices("user")[-1:])
    assert len(conversation.messages) - 1 in kept


@given_limits
def test_tool_calls_stay_whole(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """A tool call and all of its results are kept together or dropped together."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    for exchange in conversation.exchanges:
        assert len(set(exchange) & set(trimmed.kept)) in (0, len(exchange))


@given_limits
def test_order_is_kept(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """Kept and dropped are in the conversation's order, and together they are all of it."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    assert list(trimmed.kept) == sorted(trimmed.kept)
    assert list(trimmed.dropped) == sorted(trimmed.dropped)
    assert sorted((*trimmed.kept, *trimmed.dropped)) == list(range(len(tokens)))


@given_limits
def test_a_user_turn_comes_first(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """A history that was trimmed begins with a user turn, where there is one."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    roles = [conversation.messages[i].role for i in trimmed.kept]
    turns = [role for role in roles if role != "system"]
    if trimmed.dropped and "user" in turns:
        assert turns[0] == "user"


@given_limits
def test_what_fits_is_left_alone(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """Nothing is dropped from a conversation that is within both limits."""
    conversation, tokens = sized
    turns = len(tokens) - len(conversation.indices("system"))
    trimmed = trim(
        conversation.messages,
        tokens,
        max_messages=max(turns, max_messages),
        max_tokens=max(sum(tokens), max_tokens),
    )
    assert trimmed.dropped == ()
    assert trimmed.fits


@given_limits
def test_trimming_again_changes_nothing(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """What trimming leaves is left as it is by the same limits."""
    conversation, tokens = sized
    once = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    again = trim(
        [conversation.messages[i] for i in once.kept],
        [tokens[i] for i in once.kept],
        max_messages=max_messages,
        max_tokens=max_tokens,
    )
    assert again.dropped == ()
    assert (again.tokens, again.fits) == (once.tokens, once.fits)


@given_limits
def test_the_newest_turns_are_kept(sized: Sized, max_messages: int, max_tokens: int) -> None:
    """As many turns are kept as fit: with one more, one of the limits would be crossed."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    system = set(conversation.indices("system"))
    turns = [i for i in trimmed.kept if i not in system]
    earlier = [i for i in conversation.indices("user") if i < turns[0]] if turns else []
    if earlier:
        longer = system | set(range(earlier[-1], len(tokens)))
        assert len(longer - system) > max_messages or sum(tokens[i] for i in longer) > max_tokens


@given_limits
def test_the_number_of_messages_is_limited(
    sized: Sized, max_messages: int, max_tokens: int
) -> None:
    """More messages than allowed are kept only where question and newest group are more."""
    conversation, tokens = sized
    trimmed = trim(conversation.messages, tokens, max_messages=max_messages, max_tokens=max_tokens)
    system = set(conversation.indices("system"))
    turns = [i for i in range(len(tokens)) if i not in system]
    newest = set(turns[-1:])
    group = next((set(ex) for ex in conversation.exchanges if newest <= set(ex)), newest)
    least = group | set(conversation.indices("user")[-1:])
    assert len(set(trimmed.kept) - system) <= max(max_messages, len(least))


def test_full_system_messages_drop_the_history() -> None:
    """System messages that fill the limit leave the last question, not the whole history."""
    messages = [text("system", "rules"), *(text("user", "words") for _ in range(9))]
    trimmed = trim(messages, [100] + [10] * 9, max_messages=10, max_tokens=100)
    assert trimmed.kept == (0, 9)
    assert not trimmed.fits
