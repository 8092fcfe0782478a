"""Generated conversations, as callers have them and as they should not."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from app.messages import ChatRequest, Image, Message, Role, Text, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class Conversation:
    """`exchanges` are the indices of each tool call with its results."""

    messages: tuple[Message, ...]
    exchanges: tuple[tuple[int, ...], ...]

    def indices(self, role: Role) -> list[int]:
        return [i for i, message in enumerate(self.messages) if message.role == role]

    @property
    def least_turns(self) -> set[int]:
        """The last user turn, and the newest message with what belongs to it."""
        system = self.indices("system")
        newest = set([i for i in range(len(self.messages)) if i not in system][-1:])
        group = next((set(ex) for ex in self.exchanges if newest & set(ex)), newest)
        return group | set(self.indices("user")[-1:])

    @property
    def least(self) -> set[int]:
        """What trimming may not touch."""
        return self.least_turns.union(self.indices("system"))


def text(role: Role, content: str) -> Message:
    return Message(role, (Text(content),) if content else ())


texts = st.one_of(
    st.just(""),
    st.text(max_size=40),
    st.integers(1, 400).map(lambda words: "many words " * words),
)
giants = st.integers(2_000, 6_000).map(lambda words: "many words " * words)
contents = st.one_of(texts, texts, texts, giants)
"""Now and then one that no usual limit has room for."""
_roles: st.SearchStrategy[Role] = st.sampled_from(("user", "assistant", "system"))
_exchange_ids = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@st.composite
def conversations(
    draw: st.DrawFn, texts: st.SearchStrategy[str] = texts, max_parts: int = 14
) -> Conversation:
    """Any mixture of turns, system messages and parallel tool calls, whose ids repeat later on.

    A call may come with words, and a system message may stand between it and its results.
    """
    messages: list[Message] = []
    exchanges: list[tuple[int, ...]] = []
    for ids in draw(st.lists(st.one_of(st.none(), _exchange_ids), min_size=1, max_size=max_parts)):
        if ids is None:
            messages.append(text(draw(_roles), draw(texts)))
            continue
        calls = tuple(ToolCall(id, "look_up", '{"word": "rain"}') for id in ids)
        exchange = [len(messages)]
        messages.append(Message("assistant", text("assistant", draw(texts)).content, None, calls))
        # Drawn in any order, the results come in another than the calls.
        for id in sorted(ids):
            if draw(st.integers(0, 9)) == 0:
                messages.append(text("system", draw(texts)))
            exchange.append(len(messages))
            messages.append(Message("tool", text("tool", draw(texts)).content, tool_call_id=id))
        exchanges.append(tuple(exchange))
    return Conversation(tuple(messages), tuple(exchanges))


_words = st.text("abcdefgh ,.", max_size=30)
_choices = st.one_of(
    st.lists(_words, min_size=1, max_size=10),
    st.lists(st.sampled_from(("red", "green", "celsius", "a", "7")), min_size=50, max_size=100),
)
_properties = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=8),
    st.fixed_dictionaries(
        {"type": st.sampled_from(("string", "number")), "description": _words},
        optional={"enum": _choices},
    ),
    max_size=6,
)


@st.composite
def _tool(draw: st.DrawFn) -> Tool:
    properties: dict[str, Any] = draw(_properties)
    parameters = {"type": "object", "properties": properties, "required": sorted(properties)}
    name = draw(st.text("abcdefgh_", min_size=1, max_size=20))
    return Tool(name, draw(_words), parameters)


_more_parts = st.lists(
    st.one_of(st.just(Image("https://example.com/a.png")), st.builds(Text, texts)), max_size=3
)
tools = st.lists(_tool(), min_size=1, max_size=4).map(tuple)


@st.composite
def requests(draw: st.DrawFn, conversation: Conversation) -> ChatRequest:
    """`conversation` with any tools, pictures, texts in pieces and wish for an answer's length."""
    messages = tuple(
        Message(m.role, (*m.content, *draw(_more_parts)))
        if m.role == "user" and draw(st.integers(0, 9)) == 0
        else m
        for m in conversation.messages
    )
    return ChatRequest(
        messages,
        max_output_tokens=draw(st.one_of(st.none(), st.integers(1, 500))),
        tools=draw(st.one_of(st.just(()), tools)),
    )
