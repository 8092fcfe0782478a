"""Counts tokens without a network: exact for text on OpenAI's o200k models, an upper bound else.

The ranks ship beside this file; the library would download them at first use.
"""

import asyncio
import json
import math
from binascii import a2b_base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import Final, Self

import tiktoken

from ... import policy
from ...messages import ChatRequest, Image, Message
from ...providers.base import ProviderAdapter

# The definition of o200k_base, as in tiktoken's registry:
# https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py
_PATTERN: Final = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_SPECIAL_TOKENS: Final = {"<|endoftext|>": 199_999, "<|endofprompt|>": 200_018}

# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
TOKENS_PER_MESSAGE: Final = 4
"""Three for the envelope, one for the role."""
TOKENS_PER_NAME: Final = 1
TOKENS_PER_REPLY: Final = 3
TOKENS_PER_TOOL: Final = 16
"""Declared bound of what a tool's definition or call costs beyond its JSON."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a piece of a request counts before a vendor's factor is applied."""

    text_tokens: int
    overhead_tokens: int
    images: int = 0


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A provider's way of counting; for several, the dearest of theirs."""

    factor: float
    image_tokens: int

    @classmethod
    def of(cls, adapters: Sequence[ProviderAdapter]) -> Self:
        return cls(
            factor=max(adapter.input_token_factor for adapter in adapters),
            image_tokens=max(adapter.image_tokens for adapter in adapters),
        )

    def tokens(self, size: Size) -> int:
        text = math.ceil(size.text_tokens * self.factor)
        return text + size.overhead_tokens + size.images * self.image_tokens


@cache
def _load_encoding() -> tiktoken.Encoding:
    """Takes a quarter of a second and 85 MB, once a process."""
    file = resources.files(__package__).joinpath("encodings", "o200k_base.tiktoken")
    words = file.read_bytes().split()
    ranks = dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
    return tiktoken.Encoding(
        "o200k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=_SPECIAL_TOKENS
    )


class TokenCounter:
    """Counts text, messages and tools."""

    def __init__(self) -> None:
        self._encoding = _load_encoding()

    def text(self, text: str) -> int:
        """Tokens of `text`; what looks like a special token is text.

        Long texts go in pieces: the encoder aborts on about a million blanks in a row.
        """
        step = policy.COUNT_INLINE_CHARACTERS
        pieces = (text[start : start + step] for start in range(0, len(text), step))
        return sum(len(self._encoding.encode_ordinary(piece)) for piece in pieces)

    def message(self, message: Message) -> Size:
        overhead = TOKENS_PER_MESSAGE + TOKENS_PER_TOOL * len(message.tool_calls)
        if message.name:
            overhead += TOKENS_PER_NAME
        images = sum(isinstance(part, Image) for part in message.content)
        return Size(sum(map(self.text, _message_texts(message))), overhead, images)

    def frame(self, request: ChatRequest) -> Size:
        """Everything but the messages: tools, the reply's schema, the start of the reply."""
        overhead = TOKENS_PER_REPLY + TOKENS_PER_TOOL * len(request.tools)
        return Size(sum(map(self.text, _frame_texts(request))), overhead)

    async def request(self, request: ChatRequest) -> tuple[tuple[Size, ...], Size]:
        """The size of each message and of the frame; long requests are counted in a thread."""

        def count() -> tuple[tuple[Size, ...], Size]:
            return tuple(self.message(message) for message in request.messages), self.frame(request)

        texts = chain(*map(_message_texts, request.messages), _frame_texts(request))
        # Each text costs something even when it is empty.
        if sum(len(text) + 16 for text in texts) > policy.COUNT_INLINE_CHARACTERS:
            return await asyncio.to_thread(count)
        return count()


def _message_texts(message: Message) -> Iterator[str]:
    yield message.text
    yield message.name or ""
    yield message.tool_call_id or ""
    for call in message.tool_calls:
        yield call.id + call.name + call.arguments + (call.signature or "")


def _frame_texts(request: ChatRequest) -> Iterator[str]:
    for tool in request.tools:
        definition = [tool.name, tool.description, tool.parameters]
        yield json.dumps(definition, ensure_ascii=False)
    if request.response_format and request.response_format.json_schema:
        yield json.dumps(request.response_format.json_schema)
