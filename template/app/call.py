"""The account of one admitted call: every attempt is paid for here, and told to the log."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .caller import Attempt, Caller
from .errors import Billing, ProviderError, ProvidersUnavailable
from .guardrails.availability.deadline import Deadline
from .guardrails.context.gate import FittedRequest
from .guardrails.resources.admission import Operation
from .guardrails.resources.prices import Price
from .messages import TokenUsage
from .providers.provider import Provider


@dataclass(slots=True)
class Call:
    """Hears of attempts from `Fallback` and keeps both books: the budget's and the log line's."""

    caller: Caller
    operation: Operation
    chain: Sequence[Provider]
    fitted: FittedRequest
    deadline: Deadline
    prices: Mapping[str, Price]
    _summarizing: bool = False
    _attempt_started: float = field(default_factory=time.monotonic)
    _started: float = field(default_factory=time.monotonic)

    @contextmanager
    def summarizing(self) -> Iterator[None]:
        """Attempts in this block are the summary's, with its size and its price."""
        self._summarizing = True
        try:
            yield
        finally:
            self._summarizing = False

    async def before_attempt(self, provider: Provider) -> None:
        request = self.fitted.summary_request if self._summarizing else self.fitted.request
        assert request is not None
        input_tokens = (
            self.fitted.summary_input_tokens if self._summarizing else self.fitted.input_tokens
        )
        worst_case = self.prices[provider.name].worst_case_nano_usd(
            input_tokens, request.max_output_tokens or 0
        )
        if not await self.operation.spending.begin_attempt(worst_case):
            raise ProvidersUnavailable(
                "The provider failed, and the daily budget leaves no room for another attempt.",
                retry_after_seconds=60,
            )
        self._attempt_started = time.monotonic()

    def attempt_failed(self, provider: Provider, error: ProviderError, seconds: float) -> None:
        self.operation.spending.attempt_cost(0 if error.billing is Billing.NOTHING else None)
        self._note(provider, type(error).__name__, seconds, error.status)

    def attempt_cut(self, provider: Provider, seconds: float) -> None:
        self.operation.spending.attempt_cost(None)
        self._note(provider, "Cut", seconds)

    def attempt_skipped(self, provider: Provider, reason: str) -> None:
        self._note(provider, reason, 0.0)

    def began(self, provider: Provider) -> None:
        """The first chunk of a stream has come."""
        self._name(provider)
        self.caller.record.first_token_seconds = time.monotonic() - self._started

    def answered(self, provider: Provider, usage: TokenUsage | None) -> None:
        """The attempt has brought a whole reply; without `usage` it is charged its worst case."""
        self._charge(provider, usage)
        self._note(provider, "ok", time.monotonic() - self._attempt_started)
        self._name(provider)

    def broke(self, provider: Provider, error: BaseException, usage: TokenUsage | None) -> None:
        """A stream has ended early; `usage` is what it is billed, `None` if nobody knows."""
        self._charge(provider, usage)
        seconds = time.monotonic() - self._attempt_started
        status = error.status if isinstance(error, ProviderError) else None
        self._note(provider, type(error).__name__, seconds, status)

    def close(self) -> None:
        """The books as they are when the call ends, however it ends."""
        self.caller.record.cost_nano_usd += self.operation.spending.cost_nano_usd

    def _charge(self, provider: Provider, usage: TokenUsage | None) -> None:
        price = self.prices[provider.name]
        self.operation.spending.attempt_cost(price.cost_nano_usd(usage) if usage else None)
        if usage is not None:
            self.caller.record.input_tokens += usage.input_tokens
            self.caller.record.output_tokens += usage.output_tokens

    def _name(self, provider: Provider) -> None:
        self.caller.record.provider = provider.name
        self.caller.record.model = provider.model
        self.caller.headers["x-provider"] = provider.name

    def _note(
        self, provider: Provider, outcome: str, seconds: float, status: int | None = None
    ) -> None:
        self.caller.record.attempts.append(Attempt(provider.name, outcome, seconds, status))
