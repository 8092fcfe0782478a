"""Decides, before anything is spent, what of a request a provider will see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ... import policy
from ...errors import ContextTooLong, Shortage
from ...messages import ChatRequest, Message
from ...providers.base import ProviderAdapter
from .history import Trimmed, trim
from .summary import summary_request, with_summary
from .token_count import TOKENS_PER_MESSAGE, Size, TokenCounter, Tokenizer


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
    ) -> None:
        self.counter = counter
        self._max_input_tokens = max_input_tokens
        self._max_output_tokens = max_output_tokens
        self._max_history_messages = max_history_messages
        # So that at most half of a full history makes place for a summary.
        self._block_turns = max(1, max_history_messages // 4)
        # With a small window a summary may take a quarter of it, not all.
        self._summary_tokens = min(policy.SUMMARY_OUTPUT_TOKENS, max_input_tokens // 4)

    async def fit(self, request: ChatRequest, adapters: Sequence[ProviderAdapter]) -> Fit:
        """Clamps the output and trims the history, for each of `adapters` by its own count.

        A provider for which even the least is too long is left out. Raises `ContextTooLong`, with
        the first one's count, when that leaves none.
        """
        sizes, frame = await self.counter.request(request)
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
        return Fit(
            fits, self._summary_call(request, first.dropped, size_of, Tokenizer.of(adapters))
        )

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
        note = self.counter.message(with_summary((), "")[0])
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
        empty = summary_request((), request.model, self._summary_tokens)
        total = tokenizer.tokens(self.counter.frame(empty)) + sum(
            tokenizer.tokens(self.counter.message(message)) for message in empty.messages
        )
        material: list[Message] = []
        for message in reversed(dropped):
            with_this = total + tokenizer.tokens(size_of[message]) + TOKENS_PER_MESSAGE
            if with_this <= self._max_input_tokens:
                material.insert(0, message)
                total = with_this
        if not material:
            return None
        asked = summary_request(material, request.model, self._summary_tokens)
        return SummaryCall(asked, total, dropped)

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
