"""Generated conversations, as callers have them and as they should not."""

from dataclasses import dataclass

from hypothesis import strategies as st

from app.messages import Message, Role, Text, ToolCall


@dataclass(frozen=True, slots=True)
class Conversation:
    """`exchanges` are the indices of each tool call with its results."""

    messages: tuple[Message, ...]
    exchanges: tuple[tuple[int, ...], ...]

    def indices(self, role: Role) -> list[int]:
        return [i for i, message in enumerate(self.messages) if message.role == role]


def text(role: Role, content: str) -> Message:
    return Message(role, (Text(content),) if content else ())


texts = st.one_of(
    st.just(""),
    st.text(max_size=40),
    st.integers(1, 400).map(lambda words: "many words " * words),
)
_roles: st.SearchStrategy[Role] = st.sampled_from(("user", "assistant", "system"))
_exchange_ids = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@st.composite
def conversations(
    draw: st.DrawFn, texts: st.SearchStrategy[str] = texts, max_parts: int = 14
) -> Conversation:
    """Any mixture of turns, system messages and parallel tool calls, whose ids repeat later on."""
    messages: list[Message] = []
    exchanges: list[tuple[int, ...]] = []
    for ids in draw(st.lists(st.one_of(st.none(), _exchange_ids), min_size=1, max_size=max_parts)):
        if ids is None:
            messages.append(text(draw(_roles), draw(texts)))
            continue
        calls = tuple(ToolCall(id, "look_up", '{"word": "rain"}') for id in ids)
        exchanges.append(tuple(range(len(messages), len(messages) + len(ids) + 1)))
        messages.append(Message("assistant", tool_calls=calls))
        # Drawn in any order, the results come in another than the calls.
        for id in sorted(ids):
            messages.append(Message("tool", text("tool", draw(texts)).content, tool_call_id=id))
    return Conversation(tuple(messages), tuple(exchanges))
