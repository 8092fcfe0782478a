"""Counts tokens without a network: exact for text on OpenAI's o200k models, an upper bound else.

The ranks ship beside this file; the library would download them at first use.
"""

import asyncio
import json
import math
from binascii import a2b_base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Self

import tiktoken

from ... import policy
from ...messages import ChatRequest, Image, Message, Text
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
TOKENS_PER_PART: Final = 2
"""Declared bound of what each further text of a message costs beyond its own tokens."""
TOKENS_PER_TOOL: Final = 16
"""Declared bound of what a tool's definition or call costs beyond its JSON."""
TOKENS_PER_CHOICE: Final = 2
"""The same for each value that an `enum` lists."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a piece of a request counts before a vendor's factor is applied."""

    text_tokens: int
    overhead_tokens: int
    images: int = 0
    preambles: int = 0
    tool_preambles: int = 0


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A provider's way of counting; for several, the dearest of theirs."""

    factor: float
    image_tokens: int
    preamble_tokens: int = 0
    tool_preamble_tokens: int = 0

    @classmethod
    def of(cls, adapters: Sequence[ProviderAdapter]) -> Self:
        return cls(
            factor=max(adapter.input_token_factor for adapter in adapters),
            image_tokens=max(adapter.image_tokens for adapter in adapters),
            preamble_tokens=max(adapter.preamble_tokens for adapter in adapters),
            tool_preamble_tokens=max(adapter.tool_preamble_tokens for adapter in adapters),
        )

    def tokens(self, size: Size) -> int:
        return (
            math.ceil(size.text_tokens * self.factor)
            + size.overhead_tokens
            + size.images * self.image_tokens
            + size.preambles * self.preamble_tokens
            + size.tool_preambles * self.tool_preamble_tokens
        )


@cache
def _load_encoding() -> tiktoken.Encoding:
    """Takes a quarter of a second and 51 MB, once a process."""
    file = resources.files(__package__).joinpath("encodings", "o200k_base.tiktoken")
    words = file.read_bytes().split()
    ranks = dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
    encoding = tiktoken.Encoding(
        "o200k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=_SPECIAL_TOKENS
    )
    # 28 MB: the encoder has a copy of its own, and this one serves only for pickling.
    ranks.clear()
    return encoding


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a request that is not counted yet: its texts, and what it counts beside them."""

    texts: tuple[str, ...]
    rest: Size


class TokenCounter:
    """Counts text, messages and tools."""

    def __init__(self) -> None:
        self._encoding = _load_encoding()

    def text(self, text: str) -> int:
        """Tokens of `text`; what looks like a special token is text.

        Long texts go in pieces: the encoder aborts on about a million blanks in a row.
        """
        step = policy.COUNT_INLINE_CHARACTERS
        if len(text) <= step:
            return len(self._encoding.encode_ordinary(text))
        pieces = (text[start : start + step] for start in range(0, len(text), step))
        return sum(len(self._encoding.encode_ordinary(piece)) for piece in pieces)

    async def text_of_any_length(self, text: str) -> int:
        """The same, off the event loop where it takes long."""
        if len(text) > policy.COUNT_INLINE_CHARACTERS:
            return await asyncio.to_thread(self.text, text)
        return self.text(text)

    def message(self, message: Message) -> Size:
        return self._size(_of_message(message))

    def frame(self, request: ChatRequest) -> Size:
        """Everything but the messages: tools, the reply's schema, the start of the reply."""
        return self._size(_of_frame(request))

    async def request(self, request: ChatRequest) -> tuple[tuple[Size, ...], Size]:
        """The size of each message and of the frame; long requests are counted in a thread."""
        pieces = [*map(_of_message, request.messages), _of_frame(request)]

        def count() -> tuple[tuple[Size, ...], Size]:
            *messages, frame = map(self._size, pieces)
            return tuple(messages), frame

        # Each text costs something even when it is empty.
        cost = sum(len(text) + 16 for piece in pieces for text in piece.texts)
        return await asyncio.to_thread(count) if cost > policy.COUNT_INLINE_CHARACTERS else count()

    def _size(self, piece: _Piece) -> Size:
        rest = piece.rest
        return Size(
            sum(map(self.text, piece.texts)),
            rest.overhead_tokens,
            rest.images,
            rest.preambles,
            rest.tool_preambles,
        )


def _of_message(message: Message) -> _Piece:
    # Each by itself: a vendor may take a text's parts together, but need not.
    texts = [part.text for part in message.content if isinstance(part, Text)]
    overhead = TOKENS_PER_MESSAGE + TOKENS_PER_PART * max(0, len(texts) - 1)
    overhead += TOKENS_PER_TOOL * len(message.tool_calls)
    texts += [text for text in (message.name, message.tool_call_id) if text]
    if message.name:
        overhead += TOKENS_PER_NAME
    texts += [
        call.id + call.name + call.arguments + (call.signature or "") for call in message.tool_calls
    ]
    images = sum(isinstance(part, Image) for part in message.content)
    return _Piece(tuple(texts), Size(0, overhead, images))


def _of_frame(request: ChatRequest) -> _Piece:
    texts = [
        json.dumps([tool.name, tool.description, tool.parameters], ensure_ascii=False)
        for tool in request.tools
    ]
    overhead = TOKENS_PER_REPLY + sum(
        TOKENS_PER_TOOL + TOKENS_PER_CHOICE * _choices(tool.parameters) for tool in request.tools
    )
    wanted = request.response_format
    if wanted and wanted.json_schema:
        texts.append(json.dumps(wanted.json_schema, ensure_ascii=False))
    tool_preambles = 1 if request.tools or wanted else 0
    return _Piece(tuple(texts), Size(0, overhead, preambles=1, tool_preambles=tool_preambles))


def _choices(schema: dict[str, Any] | None) -> int:
    """How many values the schema's enumerations list."""
    found, unread = 0, [schema or {}]
    while unread:
        part: Any = unread.pop()
        if isinstance(part, dict):
            choices = part.get("enum")
            found += len(choices) if isinstance(choices, list) else 0
            unread += part.values()
        elif isinstance(part, list):
            unread += part
    return found
