"""Counting is OpenAI's own to the token, and needs no network."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.guardrails.context.token_count import TokenCounter, Tokenizer
from app.messages import ChatRequest, Image, Message, ResponseFormat, Text, Tool, ToolCall
from app.providers.openai import OpenAI, OpenAISettings

from .conversations import Conversation, conversations, tools
from .sent import sent_tokens

pytestmark = pytest.mark.promise("C2")

FRAGMENTS = (
    "def f(x: int) -> int:\n    return x ** 2  # squared\n",
    "for (let i = 0; i < n; ++i) { a[i] += `${b}`; }\r\n",
    "<|endoftext|>",
    "<|endofprompt|>",
    "<|im_start|>system",
    "Straßenbahnhaltestelle und Übergrößenträger",
    "不要把所有的鸡蛋放在一个篮子里",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301\u0323\u200d\ufeff",
    "        \t\t\n\n\n   ",
    "1234567890.0987654321e-17",
    "I'll we've THEY'RE don't",
    "https://example.com/a?b=c&d=%20#e",
)
corpus = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=60)), max_size=12)


@pytest.fixture(scope="module", autouse=True)
def _no_network() -> Iterator[None]:
    """Denies every connection and every look-up of a name."""

    def deny(*_: object, **__: object) -> NoReturn:
        raise AssertionError("counting reached for the network")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, deny)
        for name in ("create_connection", "getaddrinfo", "gethostbyname"):
            patch.setattr(socket, name, deny)
        yield


def test_the_encoding_loads_without_a_network() -> None:
    """A counter is made from what ships with the service, and counts."""
    assert TokenCounter().text("Hello, world!") == 4


@given(corpus.map("".join))
def test_text_counts_as_openai_counts_it(
    counter: TokenCounter, oracle: tiktoken.Encoding, text: str
) -> None:
    """Any text has exactly as many tokens as the library's own encoding says."""
    assert counter.text(text) == len(oracle.encode_ordinary(text))


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|endofprompt|>", "a<|endoftext|>b"])
def test_special_tokens_are_text(counter: TokenCounter, text: str) -> None:
    """What looks like a special token counts as the letters it is made of."""
    assert counter.text(text) > 3


@pytest.mark.parametrize("filling", ["The quick brown fox. ", "x", "0", "很", "{}", "a b\n"])
def test_a_long_text_counts_as_its_pieces(
    counter: TokenCounter, oracle: tiktoken.Encoding, filling: str
) -> None:
    """Counted in pieces, a long text has no fewer tokens than as a whole, and hardly more."""
    text = filling * (100_000 // len(filling))
    exact = len(oracle.encode_ordinary(text))
    assert exact <= counter.text(text) <= exact + 2 * len(text) // 20_000


@pytest.mark.parametrize("blank", [" ", "\n", "\t", "\u3000", "\x00"])
def test_a_megabyte_of_blanks_is_counted(counter: TokenCounter, blank: str) -> None:
    """A million blanks in a row, which abort the encoder, are counted like any other text."""
    assert 0 < counter.text(blank * 1_000_000) <= 3_000_000


@given(conversations(max_parts=6))
def test_messages_count_with_their_overhead(
    counter: TokenCounter, oracle: tiktoken.Encoding, conversation: Conversation
) -> None:
    """Each message costs its text, its role, three more, and one for a name; the reply three."""
    plain = [m for m in conversation.messages if m.role != "tool" and not m.tool_calls]
    named = [Message(m.role, m.content, name="Ada") for m in plain]
    expected = 3 + sum(
        3 + len(oracle.encode_ordinary(m.role)) + len(oracle.encode_ordinary(m.text)) for m in plain
    )
    assert _count(counter, ChatRequest(tuple(plain))) == expected
    name = 1 + len(oracle.encode_ordinary("Ada"))
    assert _count(counter, ChatRequest(tuple(named))) == expected + name * len(named)


def _count(counter: TokenCounter, request: ChatRequest) -> int:
    exact = Tokenizer(factor=1.0, image_tokens=0)
    sizes = [counter.message(message) for message in request.messages]
    return sum(map(exact.tokens, sizes)) + exact.tokens(counter.frame(request))


@given(st.lists(corpus.map("".join), min_size=1, max_size=5))
def test_a_text_in_parts_counts_as_its_parts(
    counter: TokenCounter, oracle: tiktoken.Encoding, texts: list[str]
) -> None:
    """A vendor that does not join the parts of a message counts no more than is counted here."""
    message = Message("user", tuple(map(Text, texts)))
    apart = sum(len(oracle.encode_ordinary(text)) for text in texts)
    assert counter.message(message).text_tokens == apart
    assert counter.message(message).overhead_tokens == 4 + 2 * (len(texts) - 1)


MANY = {"type": "string", "enum": ["red", "green", "blue", "celsius"] * 20}


@given(tools)
@example((Tool("paint", "", {"type": "object", "properties": {"colour": MANY}}),))
def test_tools_count_no_less_than_by_openais_rule(
    counter: TokenCounter, oracle: tiktoken.Encoding, tools: tuple[Tool, ...]
) -> None:
    """The bound for any tools, long enumerations among them, is above the published rule."""
    plain = ChatRequest((Message("user", (Text("Hi"),)),), max_output_tokens=1)
    adapter = OpenAI(OpenAISettings(api_key=SecretStr("key")))
    equipped = replace(plain, tools=tools)
    assert _count(counter, equipped) >= sent_tokens(adapter, equipped, oracle)


def test_everything_that_is_sent_counts(counter: TokenCounter) -> None:
    """Tools, their calls and results, a schema and an image all add to the count."""
    question = Message("user", (Text("Rain?"),))
    tool = Tool("get_weather", "Tells the weather.", {"type": "object", "properties": {}})
    schema = ResponseFormat("json_schema", {"name": "answer", "schema": {"type": "object"}})
    call = Message("assistant", tool_calls=(ToolCall("call_1", "get_weather", '{"city":"Ulm"}'),))
    result = Message("tool", (Text("Rain."),), tool_call_id="call_1")
    signed = replace(call, tool_calls=(replace(call.tool_calls[0], signature="a8Kx" * 9),))
    least = _count(counter, ChatRequest((question,)))
    with_call = _count(counter, ChatRequest((question, call)))
    assert _count(counter, ChatRequest((question, signed))) > with_call + 4
    for richer in (
        ChatRequest((question,), tools=(tool,)),
        ChatRequest((question,), response_format=schema),
        ChatRequest((question, call)),
        ChatRequest((question, result)),
    ):
        assert _count(counter, richer) > least + 4
    picture = Message("user", (Text("Rain?"), Image("https://example.com/a.png")))
    assert counter.message(picture).images == 1
