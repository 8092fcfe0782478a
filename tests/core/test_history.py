"""Trimming keeps what a model cannot do without, and of the rest the newest that fits."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.guardrails.context.history import Trimmed, trim
from app.messages import Message

from .conversations import Conversation, conversations, text

pytestmark = pytest.mark.promise("C4")


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation, what each message counts, and the limits that it is to fit."""

    conversation: Conversation
    tokens: tuple[int, ...]
    max_messages: int
    max_tokens: int

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.conversation.messages

    @property
    def system(self) -> set[int]:
        return set(self.conversation.indices("system"))

    def trim(self) -> Trimmed:
        return trim(
            self.messages,
            self.tokens,
            max_messages=self.max_messages,
            max_tokens=self.max_tokens,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Empty messages, giants and all between, within limits of any kind."""
    conversation = draw(conversations(st.just("")))
    sizes = st.one_of(st.just(0), st.integers(1, 50), st.integers(1_000, 100_000))
    count = len(conversation.messages)
    return Case(
        conversation,
        tuple(draw(st.lists(sizes, min_size=count, max_size=count))),
        max_messages=draw(st.one_of(st.integers(1, 30), st.just(10_000))),
        max_tokens=draw(st.one_of(st.integers(-100, 500), st.integers(500, 500_000))),
    )


@given(cases())
def test_the_limit_holds_when_it_fits(case: Case) -> None:
    """What is said to fit counts no more than the limit, and its count is the sum of its parts."""
    trimmed = case.trim()
    assert trimmed.tokens == sum(case.tokens[i] for i in trimmed.kept)
    assert trimmed.fits is (trimmed.tokens <= case.max_tokens)


@given(cases())
def test_it_fits_whenever_the_least_does(case: Case) -> None:
    """Only what cannot be left out can be too much."""
    least = sum(case.tokens[i] for i in case.conversation.least)
    assert case.trim().fits is (least <= case.max_tokens)


@given(cases())
def test_the_indispensable_stays(case: Case) -> None:
    """Every system message, the last user turn and the newest message are always kept."""
    kept = set(case.trim().kept)
    assert kept.issuperset(case.system)
    assert kept.issuperset(case.conversation.indices("user")[-1:])
    assert len(case.messages) - 1 in kept


@given(cases())
def test_tool_calls_stay_whole(case: Case) -> None:
    """A tool call and all of its results are kept together or dropped together."""
    kept = set(case.trim().kept)
    for exchange in case.conversation.exchanges:
        assert len(set(exchange) & kept) in (0, len(exchange))


@given(cases())
def test_order_is_kept(case: Case) -> None:
    """Kept and dropped are in the conversation's order, and together they are all of it."""
    trimmed = case.trim()
    assert list(trimmed.kept) == sorted(trimmed.kept)
    assert list(trimmed.dropped) == sorted(trimmed.dropped)
    assert sorted((*trimmed.kept, *trimmed.dropped)) == list(range(len(case.tokens)))


@given(cases())
def test_a_user_turn_comes_first(case: Case) -> None:
    """A history that was trimmed begins with a user turn, where there is one."""
    trimmed = case.trim()
    roles = [case.messages[i].role for i in trimmed.kept]
    turns = [role for role in roles if role != "system"]
    if trimmed.dropped and "user" in turns:
        assert turns[0] == "user"


@given(cases())
def test_what_fits_is_left_alone(case: Case) -> None:
    """Nothing is dropped from a conversation that is within both limits."""
    wide = replace(
        case,
        max_messages=max(len(case.tokens) - len(case.system), case.max_messages),
        max_tokens=max(sum(case.tokens), case.max_tokens),
    )
    assert wide.trim().dropped == ()
    assert wide.trim().fits


@given(cases())
def test_trimming_again_changes_nothing(case: Case) -> None:
    """What trimming leaves is left as it is by the same limits."""
    once = case.trim()
    left = Conversation(tuple(case.messages[i] for i in once.kept), ())
    again = replace(case, conversation=left, tokens=tuple(case.tokens[i] for i in once.kept)).trim()
    assert again.dropped == ()
    assert (again.tokens, again.fits) == (once.tokens, once.fits)


@given(cases())
def test_the_newest_turns_are_kept(case: Case) -> None:
    """As many turns are kept as fit: with one more, one of the limits would be crossed."""
    turns = [i for i in case.trim().kept if i not in case.system]
    earlier = [i for i in case.conversation.indices("user") if i < turns[0]] if turns else []
    if earlier:
        longer = case.system | set(range(earlier[-1], len(case.tokens)))
        crossed = len(longer - case.system) > case.max_messages
        assert crossed or sum(case.tokens[i] for i in longer) > case.max_tokens


WORKED_ON = Conversation((text("user", ""), *[text("assistant", "")] * 5), ())


@given(cases())
@example(Case(WORKED_ON, (10,) * 6, max_messages=10, max_tokens=30))
@example(Case(WORKED_ON, (10,) * 6, max_messages=4, max_tokens=100))
def test_of_the_last_turn_the_newest_is_kept(case: Case) -> None:
    """Of a last turn that is too long, all is kept after its question that fits: with one more call
    and its results, or one more message, one of the limits would be crossed."""
    kept = set(case.trim().kept)
    question = max(case.conversation.indices("user"), default=-1)
    dropped = [i for i in range(question + 1, len(case.tokens)) if i not in kept]
    if dropped:
        newest = dropped[-1]
        more = next((set(ex) for ex in case.conversation.exchanges if newest in ex), {newest})
        longer = kept | more
        crossed = len(longer - case.system) > case.max_messages
        assert crossed or sum(case.tokens[i] for i in longer) > case.max_tokens


@given(cases())
def test_the_number_of_messages_is_limited(case: Case) -> None:
    """More messages than allowed are kept only where question and newest group are more."""
    kept = set(case.trim().kept) - case.system
    assert len(kept) <= max(case.max_messages, len(case.conversation.least_turns))


def test_full_system_messages_drop_the_history() -> None:
    """System messages that fill the limit leave the last question, not the whole history."""
    messages = [text("system", "rules"), *(text("user", "words") for _ in range(9))]
    trimmed = trim(messages, [100] + [10] * 9, max_messages=10, max_tokens=100)
    assert trimmed.kept == (0, 9)
    assert not trimmed.fits
