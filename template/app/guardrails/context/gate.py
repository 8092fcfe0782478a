"""Decides, before anything is spent, what of a request a provider will see."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from ... import policy
from ...errors import ContextTooLong, Shortage
from ...messages import ChatRequest, Message, Text
from ...providers.base import ProviderAdapter
from .history import Trimmed, trim
from .limits import ModelLimits
from .summary import Summary, message_line, summary_request, with_summary
from .token_count import Size, TokenCounter, Tokenizer

_NOBODY: Final[Mapping[str, ModelLimits]] = MappingProxyType({})
_UNLIMITED: Final = ModelLimits()


@dataclass(frozen=True, slots=True)
class InputLimit:
    """So many tokens at most, and what sets that limit."""

    tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A message that a provider may see beside a summary: its place among those that are not the
    system's (-1 for the system's), and its tokens."""

    place: int
    message: Message
    tokens: int


@dataclass(frozen=True, slots=True)
class FittedRequest:
    """What one provider may be asked. `input_tokens` is an upper bound of what it will count.

    `beside_summary` is the most that it may see beside one, which then takes `summary_tokens`;
    empty without need or room for one.
    """

    request: ChatRequest
    input_tokens: int
    dropped: tuple[Message, ...] = ()
    beside_summary: tuple[Kept, ...] = field(default=(), repr=False)
    summary_tokens: int = 0

    @property
    def most_input_tokens(self) -> int:
        """With a summary or without."""
        beside = sum(kept.tokens for kept in self.beside_summary)
        return max(self.input_tokens, self.summary_tokens + beside)

    @property
    def turns(self) -> list[int]:
        """The places where those turns begin that fit beside a summary."""
        return [kept.place for kept in self.beside_summary if kept.message.role == "user"]


@dataclass(frozen=True, slots=True)
class SummaryCall:
    """The call that asks for a summary. `messages` is how many the summary will tell of."""

    request: ChatRequest
    input_tokens: int
    messages: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The request as each provider's tokenizer allows it, by the provider's name, in order.

    `history` is the conversation without the system's messages, `sizes` are theirs.
    """

    by_provider: Mapping[str, FittedRequest]
    history: tuple[Message, ...] = ()
    sizes: tuple[Size, ...] = field(default=(), repr=False)

    @property
    def wanted(self) -> range:
        """How many messages of the history a summary may take the place of, for the first provider:
        as few as make it fit, or up to half of the turns more. Empty: there is none wanted.

        A new one takes the place of the most, and serves until the turns that it has left room for
        have come.
        """
        turns = next(iter(self.by_provider.values())).turns
        return range(max(1, turns[0]), turns[len(turns) // 2] + 1) if turns else range(0)

    def fitted(self, provider: str, summary: Summary | None) -> FittedRequest:
        """With `summary`, where the provider takes it: what it would have to drop is covered."""
        plain = self.by_provider[provider]
        if summary is None or not self.takes(provider, summary):
            return plain
        kept = [kept for kept in plain.beside_summary if not 0 <= kept.place < summary.covered]
        places = {kept.place for kept in kept}
        messages = with_summary([kept.message for kept in kept], summary.text)
        return FittedRequest(
            replace(plain.request, messages=messages),
            plain.summary_tokens + sum(kept.tokens for kept in kept),
            tuple(message for i, message in enumerate(self.history) if i not in places),
        )

    def takes(self, provider: str, summary: Summary) -> bool:
        turns = self.by_provider[provider].turns
        return bool(turns) and turns[0] <= summary.covered <= turns[-1]


class ContextGate:
    """`models` has each provider's own limits by its name; the other ones hold for all."""

    def __init__(
        self,
        counter: TokenCounter,
        *,
        max_input_tokens: int,
        max_output_tokens: int,
        max_history_messages: int,
        summary_instruction: str,
        default_system_message: str = "",
        models: Mapping[str, ModelLimits] = _NOBODY,
    ) -> None:
        self.counter = counter
        self._max_input_tokens = max_input_tokens
        self._max_output_tokens = max_output_tokens
        self._max_history_messages = max_history_messages
        self._summary_instruction = summary_instruction
        self._default_system = Message("system", (Text(default_system_message),))
        self._models = models
        self._tokenizers: dict[ProviderAdapter, Tokenizer] = {}
        # With a small window a summary may take a quarter of it, not all.
        most = min(policy.SUMMARY_OUTPUT_TOKENS, max_input_tokens // 4, max_output_tokens)
        self._summary_tokens = min(
            model.clamp_output(most) for model in (ModelLimits(), *models.values())
        )

    @cached_property
    def _note(self) -> Size:
        """What stands around a summary."""
        return self.counter.message(with_summary((), "-")[0])

    @cached_property
    def _default_system_size(self) -> Size:
        return self.counter.message(self._default_system)

    async def fit(self, request: ChatRequest, adapters: Sequence[ProviderAdapter]) -> Fit:
        """Clamps the output and trims the history, for each of `adapters` by its own count and
        limits.

        A provider for which even the least is too long is left out. Raises `ContextTooLong`, with
        the first one's count and limit, when that leaves none.
        """
        sizes, frame = await self.counter.request(request)
        request, sizes = self._with_system_message(request, sizes)
        clamped: dict[int, ChatRequest] = {}
        fits: dict[str, FittedRequest] = {}
        refusal: ContextTooLong | None = None
        for adapter in adapters:
            output_tokens = self._output_tokens(adapter.name, request.max_output_tokens)
            if output_tokens not in clamped:
                clamped[output_tokens] = replace(request, max_output_tokens=output_tokens)
            try:
                fits[adapter.name] = self._fit_one(
                    clamped[output_tokens], output_tokens, sizes, frame, adapter
                )
            except ContextTooLong as error:
                refusal = refusal or error
        if not fits:
            assert refusal is not None
            raise refusal
        spoken = [
            (message, size)
            for message, size in zip(request.messages, sizes, strict=True)
            if message.role != "system"
        ]
        return Fit(fits, tuple(m for m, _ in spoken), tuple(size for _, size in spoken))

    async def summary_call(
        self,
        fit: Fit,
        adapters: Sequence[ProviderAdapter],
        previous: Summary | None = None,
        *,
        window_tokens: int | None = None,
    ) -> SummaryCall | None:
        """A call for a summary of as much of the history as is wanted: of `previous`, and of the
        newest messages since that fit beside it.

        Within the limits of all `adapters`, by the dearest count; `window_tokens` takes the place
        of their own windows. `None` when nothing fits.
        """
        # What it covers may be long, and is counted once more: as lines of data.
        return await asyncio.to_thread(
            self._summary_call,
            fit,
            adapters,
            previous,
            self._summary_limit(adapters, window_tokens),
        )

    def summary(self, text: str, covered: int, messages: int) -> Summary | None:
        """What a model has written, cut to the room that is kept for it; `None` for a blank."""
        text = text.strip()[: policy.COUNT_INLINE_CHARACTERS]
        while (tokens := self.counter.text(text)) > self._summary_tokens:
            text = text[: len(text) * self._summary_tokens // tokens].strip()
        return Summary(text, covered, messages) if text else None

    def _summary_call(
        self,
        fit: Fit,
        adapters: Sequence[ProviderAdapter],
        previous: Summary | None,
        limit: int,
    ) -> SummaryCall | None:
        tokenizer = Tokenizer.of(adapters)
        model = next(iter(fit.by_provider.values())).request.model
        known = previous.text if previous is not None else None

        def asking(material: Sequence[Message]) -> ChatRequest:
            return summary_request(
                material, model, self._summary_tokens, known, instruction=self._summary_instruction
            )

        empty = asking(())
        sizes = (*map(self.counter.message, empty.messages), self.counter.frame(empty))
        total = sum(map(tokenizer.tokens, sizes))
        material: deque[Message] = deque()
        since = slice(previous.covered if previous is not None else 0, fit.wanted[-1])
        fresh = zip(fit.history[since], fit.sizes[since], strict=True)
        for message, size in reversed(list(fresh)):
            # Most that have no room are told without counting their lines.
            if total + size.text_tokens > limit:
                continue
            with_this = total + tokenizer.tokens(Size(self.counter.text(message_line(message)), 0))
            if with_this <= limit:
                material.appendleft(message)
                total = with_this
        if not material:
            return None
        told = previous.messages if previous is not None else 0
        return SummaryCall(asking(material), total, told + len(material))

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
        self,
        request: ChatRequest,
        output_tokens: int,
        sizes: Sequence[Size],
        frame_size: Size,
        adapter: ProviderAdapter,
    ) -> FittedRequest:
        tokenizer = self._tokenizer(adapter)
        tokens = [tokenizer.tokens(size) for size in sizes]
        frame = tokenizer.tokens(frame_size)
        limit = self._input_limit(adapter.name, output_tokens)
        whole = self._trim(request, tokens, limit.tokens - frame)
        if not whole.fits:
            raise _too_long(whole.tokens + frame, limit)
        if not whole.dropped:
            return FittedRequest(request, whole.tokens + frame)
        fitted = FittedRequest(
            replace(request, messages=tuple(request.messages[i] for i in whole.kept)),
            whole.tokens + frame,
            tuple(request.messages[i] for i in whole.dropped),
        )
        # Trimmed once more, so that a summary finds room; without one where there is none.
        with_note = self._note.text_tokens + self._summary_tokens
        room = tokenizer.tokens(replace(self._note, text_tokens=with_note))
        roomier = self._trim(request, tokens, limit.tokens - frame - room)
        if not roomier.fits:
            return fitted
        places = accumulate(int(message.role != "system") for message in request.messages)
        kept = [
            Kept(-1 if message.role == "system" else place - 1, message, count)
            for message, place, count in zip(request.messages, places, tokens, strict=True)
        ]
        beside = tuple(kept[i] for i in roomier.kept)
        return replace(fitted, beside_summary=beside, summary_tokens=frame + room)

    def _trim(self, request: ChatRequest, tokens: Sequence[int], max_tokens: int) -> Trimmed:
        return trim(
            request.messages,
            tokens,
            max_messages=self._max_history_messages,
            max_tokens=max_tokens,
        )

    def _tokenizer(self, adapter: ProviderAdapter) -> Tokenizer:
        if adapter not in self._tokenizers:
            self._tokenizers[adapter] = Tokenizer.of([adapter])
        return self._tokenizers[adapter]

    def _limits(self, provider: str) -> ModelLimits:
        return self._models.get(provider, _UNLIMITED)

    def _output_tokens(self, provider: str, wanted: int | None) -> int:
        allowed = min(wanted or self._max_output_tokens, self._max_output_tokens)
        return self._limits(provider).clamp_output(allowed)

    def _input_limit(self, provider: str, output_tokens: int) -> InputLimit:
        limits = self._limits(provider)
        room = limits.room_beside(output_tokens)
        if room is None or room >= self._max_input_tokens:
            return InputLimit(self._max_input_tokens, "MAX_INPUT_TOKENS")
        return InputLimit(
            room,
            f"the context window of {provider}'s model, {limits.window_tokens}, less"
            f" {output_tokens} for the answer",
        )

    def _summary_limit(self, adapters: Sequence[ProviderAdapter], window_tokens: int | None) -> int:
        if window_tokens is not None:
            return min(self._max_input_tokens, window_tokens - self._summary_tokens)
        return min(
            self._input_limit(adapter.name, self._summary_tokens).tokens for adapter in adapters
        )


def _too_long(count: int, limit: InputLimit) -> ContextTooLong:
    return ContextTooLong(
        f"The input has {count} tokens (after trimming the history), the limit is {limit.tokens}"
        f" ({limit.reason}); shorten the system message or the last message.",
        param="messages",
        shortage=Shortage(limit.tokens, count),
    )
