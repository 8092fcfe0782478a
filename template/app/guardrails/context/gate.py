"""Decides, before anything is spent, what of a request a provider will see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ... import policy
from ...errors import ContextTooLong
from ...messages import ChatRequest, Message
from ...providers.base import ProviderAdapter
from .history import Trimmed, trim
from .summary import summary_request
from .token_count import TOKENS_PER_MESSAGE, Size, TokenCounter, Tokenizer


@dataclass(frozen=True, slots=True)
class FittedRequest:
    """A request within all limits.

    `input_tokens` is an upper bound of what the provider will count, a summary included.
    `summary_request` asks for a summary of `dropped`, when one fits.
    """

    request: ChatRequest
    input_tokens: int
    dropped: tuple[Message, ...] = ()
    summary_request: ChatRequest | None = None
    summary_input_tokens: int = 0


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
        # With a small window a summary may take a quarter of it, not all.
        self._summary_tokens = min(policy.SUMMARY_OUTPUT_TOKENS, max_input_tokens // 4)

    async def fit(self, request: ChatRequest, adapters: Sequence[ProviderAdapter]) -> FittedRequest:
        """Clamps the output, trims the history. Raises `ContextTooLong` when that is not enough.

        `adapters` are those that may see the request; the dearest count of them holds.
        """
        tokenizer = Tokenizer.of(adapters)
        sizes, frame_size = await self.counter.request(request)
        tokens = [tokenizer.tokens(size) for size in sizes]
        frame = tokenizer.tokens(frame_size)
        whole = self._trim(request, tokens, frame)
        if not whole.fits:
            raise self._too_long(whole.tokens + frame)
        request = replace(request, max_output_tokens=self._clamp(request.max_output_tokens))
        if not whole.dropped:
            return FittedRequest(request, whole.tokens + frame)
        return self._fit_with_summary(request, tokens, sizes, frame, whole, tokenizer)

    def _fit_with_summary(
        self,
        request: ChatRequest,
        tokens: Sequence[int],
        sizes: Sequence[Size],
        frame: int,
        trimmed: Trimmed,
        tokenizer: Tokenizer,
    ) -> FittedRequest:
        """Trims once more to make room for a summary; without one where there is no room."""
        room = tokenizer.tokens(Size(self._summary_tokens, 4 * TOKENS_PER_MESSAGE))
        roomier = self._trim(request, tokens, frame + room)
        if not roomier.fits:
            return FittedRequest(
                self._select(request, trimmed), trimmed.tokens + frame, _dropped(request, trimmed)
            )
        summary, summary_tokens = self._ask_for_summary(request, roomier, tokens, tokenizer)
        return FittedRequest(
            self._select(request, roomier),
            roomier.tokens + frame + (room if summary else 0),
            _dropped(request, roomier),
            summary,
            summary_tokens,
        )

    def _ask_for_summary(
        self,
        request: ChatRequest,
        trimmed: Trimmed,
        tokens: Sequence[int],
        tokenizer: Tokenizer,
    ) -> tuple[ChatRequest | None, int]:
        """The summary's own call over the newest of the dropped messages that fit into one."""
        instruction = self.counter.message(summary_request((), "", 1).messages[0])
        total = tokenizer.tokens(instruction) + 4 * TOKENS_PER_MESSAGE
        material: list[Message] = []
        for i in reversed(trimmed.dropped):
            with_this = total + tokens[i] + TOKENS_PER_MESSAGE
            if with_this <= self._max_input_tokens:
                material.insert(0, request.messages[i])
                total = with_this
        if not material:
            return None, 0
        return summary_request(material, request.model, self._summary_tokens), total

    def _trim(self, request: ChatRequest, tokens: Sequence[int], frame: int) -> Trimmed:
        return trim(
            request.messages,
            tokens,
            max_messages=self._max_history_messages,
            max_tokens=self._max_input_tokens - frame,
        )

    def _select(self, request: ChatRequest, trimmed: Trimmed) -> ChatRequest:
        return replace(request, messages=tuple(request.messages[i] for i in trimmed.kept))

    def _clamp(self, wanted: int | None) -> int:
        return min(wanted or self._max_output_tokens, self._max_output_tokens)

    def _too_long(self, count: int) -> ContextTooLong:
        return ContextTooLong(
            f"The input has {count} tokens (after trimming the history), the limit is"
            f" {self._max_input_tokens}; shorten the system message or the last message.",
            param="messages",
        )


def _dropped(request: ChatRequest, trimmed: Trimmed) -> tuple[Message, ...]:
    return tuple(request.messages[i] for i in trimmed.dropped)
