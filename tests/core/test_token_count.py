"""Counting is OpenAI's own to the token, and needs no network."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import NoReturn

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from app.guardrails.context.token_count import TokenCounter, Tokenizer
from app.messages import ChatRequest, Image, Message, ResponseFormat, Text, Tool, ToolCall

from .conversations import Conversation, conversations

CACHED_NAME = "fb374d419588a4632f3f557e76b4b70aebbca790"
"""The SHA-1 of the address that the library would download the ranks from."""

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


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiktoken.Encoding]:
    """The library's own encoding, out of a cache that holds what the service ships."""
    folder = tmp_path_factory.mktemp("tiktoken")
    ranks = resources.files("app.guardrails.context") / "encodings" / "o200k_base.tiktoken"
    with resources.as_file(ranks) as file:
        shutil.copy(file, folder / CACHED_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield tiktoken.get_encoding("o200k_base")


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
