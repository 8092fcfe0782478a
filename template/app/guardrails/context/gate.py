"""Decides, before anything is spent, what of a request a provider will see."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ... import policy
from ...errors import ContextTooLong, Shortage
from ...messages import ChatRequest, Message, Text
from ...providers.base import ProviderAdapter
from .history import Trimmed, trim
from .summary import message_line, summary_request, with_summary
from .token_count import Size, TokenCounter, Tokenizer


@dataclass(frozen=True, slots=True)
class FittedRequest:
    """What one provider may be asked. `input_tokens` is an upper bound of what it will count."""

    request: ChatRequest
    input_tokens: int
    dropped: tuple[Message, ...] = ()
    room_for_summary: bool = False


@dataclass(frozen=True, slots=True)
class SummaryCall:
    """The call that asks for a summary of `covers`, within the limits of every provider."""

    request: ChatRequest
    input_tokens: int
    covers: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """The request as each provider's tokenizer allows it, by the provider's name, in order."""

    by_provider: Mapping[str, FittedRequest]
    summary: SummaryCall | None = None

    def request_for(self, provider: str, summary: str | None) -> ChatRequest:
        """With `summary`, unless this provider lacks other messages or has no room for it."""
        fitted = self.by_provider[provider]
        covered = self.summary is not None and self.summary.covers == fitted.dropped
        if summary is None or not covered or not fitted.room_for_summary:
            return fitted.request
        messages = with_summary(fitted.request.messages, summary)
        return replace(fitted.request, messages=messages)


class ContextGate:
    def __init__(
        self,
        counter: TokenCounter,
        *,
        max_input_tokens: int,
        max_output_tokens: int,
        max_history_messages: int,
        summary_instruction: str,
        default_system_message: str = "",
    ) -> None:
        self.counter = counter
        self._max_input_tokens = max_input_tokens
        self._max_output_tokens = max_output_tokens
        self._max_history_messages = max_history_messages
        # So that at most half of a full history makes place for a summary.
        self._block_turns = max(1, max_history_messages // 4)
        # With a small window a summary may take a quarter of it, not all.
        self._summary_tokens = min(policy.SUMMARY_OUTPUT_TOKENS, max_input_tokens // 4)
        self._summary_instruction = summary_instruction
        self._default_system = Message("system", (Text(default_system_message),))

    async def fit(self, request: ChatRequest, adapters: Sequence[ProviderAdapter]) -> Fit:
        """Clamps the output and trims the history, for each of `adapters` by its own count.

        A provider for which even the least is too long is left out. Raises `ContextTooLong`, with
        the first one's count, when that leaves none.
        """
        sizes, frame = await self.counter.request(request)
        request, sizes = self._with_system_message(request, sizes)
        request = replace(request, max_output_tokens=self._clamp(request.max_output_tokens))
        fits: dict[str, FittedRequest] = {}
        refusal: ContextTooLong | None = None
        for adapter in adapters:
            try:
                fits[adapter.name] = self._fit_one(request, sizes, frame, Tokenizer.of([adapter]))
            except ContextTooLong as error:
                refusal = refusal or error
        if not fits:
            assert refusal is not None
            raise refusal
        first = next(iter(fits.values()))
        if not first.room_for_summary:
            return Fit(fits)
        size_of = dict(zip(request.messages, sizes, strict=True))
        # What is dropped may be long.
        summary = await asyncio.to_thread(
            self._summary_call, request, first.dropped, size_of, Tokenizer.of(adapters)
        )
        return Fit(fits, summary)

    @cached_property
    def _default_system_size(self) -> Size:
        return self.counter.message(self._default_system)

    def _with_system_message(
        self, request: ChatRequest, sizes: tuple[Size, ...]
    ) -> tuple[ChatRequest, tuple[Size, ...]]:
        """The owner's stands before a conversation that has none of its own."""
        has_own = any(message.role == "system" for message in request.messages)
        if has_own or not self._default_system.text:
            return request, sizes
        messages = (self._default_system, *request.messages)
        return replace(request, messages=messages), (self._default_system_size, *sizes)

    def _fit_one(
        self, request: ChatRequest, sizes: Sequence[Size], frame_size: Size, tokenizer: Tokenizer
    ) -> FittedRequest:
        tokens = [tokenizer.tokens(size) for size in sizes]
        frame = tokenizer.tokens(frame_size)
        whole = self._trim(request, tokens, frame)
        if not whole.fits:
            raise self._too_long(whole.tokens + frame)
        if not whole.dropped:
            return FittedRequest(request, whole.tokens + frame)
        # Trimmed once more, so that a summary finds room; without one where there is none.
        note = self.counter.message(with_summary((), "-")[0])
        room = tokenizer.tokens(replace(note, text_tokens=note.text_tokens + self._summary_tokens))
        roomier = self._trim(request, tokens, frame + room, self._block_turns)
        kept, room = (roomier, room) if roomier.fits else (whole, 0)
        return FittedRequest(
            replace(request, messages=tuple(request.messages[i] for i in kept.kept)),
            kept.tokens + frame + room,
            tuple(request.messages[i] for i in kept.dropped),
            room_for_summary=roomier.fits,
        )

    def _summary_call(
        self,
        request: ChatRequest,
        dropped: tuple[Message, ...],
        size_of: Mapping[Message, Size],
        tokenizer: Tokenizer,
    ) -> SummaryCall | None:
        """A call over the newest of `dropped` that fit into one, by the dearest count."""
        empty = self._summary_request((), request.model)
        total = tokenizer.tokens(self.counter.frame(empty)) + sum(
            tokenizer.tokens(self.counter.message(message)) for message in empty.messages
        )
        material: list[Message] = []
        for message in reversed(dropped):
            # Most that have no room are told without counting their lines.
            if total + size_of[message].text_tokens > self._max_input_tokens:
                continue
            line = Size(self.counter.text(message_line(message)), 0)
            with_this = total + tokenizer.tokens(line)
            if with_this <= self._max_input_tokens:
                material.insert(0, message)
                total = with_this
        if not material:
            return None
        return SummaryCall(self._summary_request(material, request.model), total, dropped)

    def _summary_request(self, material: Sequence[Message], model: str) -> ChatRequest:
        return summary_request(
            material, model, self._summary_tokens, instruction=self._summary_instruction
        )

    def _trim(
        self, request: ChatRequest, tokens: Sequence[int], frame: int, block_turns: int = 1
    ) -> Trimmed:
        return trim(
            request.messages,
            tokens,
            max_messages=self._max_history_messages,
            max_tokens=self._max_input_tokens - frame,
            block_turns=block_turns,
        )

    def _clamp(self, wanted: int | None) -> int:
        return min(wanted or self._max_output_tokens, self._max_output_tokens)

    def _too_long(self, count: int) -> ContextTooLong:
        return ContextTooLong(
            f"The input has {count} tokens (after trimming the history), the limit is"
            f" {self._max_input_tokens}; shorten the system message or the last message.",
            param="messages",
            shortage=Shortage(self._max_input_tokens, count),
        )
