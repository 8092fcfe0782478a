"""The account of one admitted call: every attempt is paid for here, and told to the log."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .caller import Attempt, Caller
from .errors import Billing, ProviderError, ProvidersUnavailable
from .guardrails.availability.deadline import Deadline
from .guardrails.context.gate import Fit
from .guardrails.resources.admission import Operation
from .guardrails.resources.prices import Price
from .messages import ChatRequest, TokenUsage
from .providers.provider import Provider


@dataclass(slots=True)
class Call:
    """Hears of attempts from `Fallback` and keeps both books: the budget's and the log line's."""

    caller: Caller
    operation: Operation
    chain: Sequence[Provider]
    fit: Fit
    deadline: Deadline
    prices: Mapping[str, Price]
    summary: str | None = None
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

    def request_for(self, provider: Provider) -> ChatRequest:
        return self.fit.request_for(provider.name, self.summary)

    async def before_attempt(self, provider: Provider) -> None:
        worst_case = worst_attempt(self.fit, provider.name, self.prices[provider.name])
        if self._summarizing:
            worst_case = worst_summary(self.fit, self.prices[provider.name])
        spending = self.operation.spending
        if not await spending.begin_attempt(provider.name, provider.model, worst_case):
            raise ProvidersUnavailable(
                "The provider failed, and the daily budget leaves no room for another attempt.",
                retry_after_seconds=60,
            )
        self._attempt_started = time.monotonic()

    def attempt_failed(self, provider: Provider, error: ProviderError, seconds: float) -> None:
        if error.billing is Billing.NOTHING:
            self.operation.spending.attempt_was_free()
        else:
            self.operation.spending.attempt_is_unknown()
        self._note(provider, type(error).__name__, seconds, error.status)

    def attempt_cut(self, provider: Provider, seconds: float) -> None:
        self.operation.spending.attempt_is_unknown()
        self._note(provider, "Cut", seconds)

    def attempt_skipped(self, provider: Provider, reason: str) -> None:
        self._note(provider, reason, 0.0)

    def began(self, provider: Provider) -> None:
        """The first chunk of a stream has come."""
        self._name(provider)
        self.caller.streaming = True
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

    def _charge(self, provider: Provider, usage: TokenUsage | None) -> None:
        spending = self.operation.spending
        if usage is None:
            spending.attempt_is_unknown()
        else:
            spending.attempt_cost(self.prices[provider.name].cost_nano_usd(usage), usage)

    def _name(self, provider: Provider) -> None:
        self.caller.record.provider = provider.name
        self.caller.record.model = provider.model
        self.caller.headers["x-provider"] = provider.name

    def _note(
        self, provider: Provider, outcome: str, seconds: float, status: int | None = None
    ) -> None:
        self.caller.record.attempts.append(Attempt(provider.name, outcome, seconds, status))


def worst_attempt(fit: Fit, provider: str, price: Price) -> int:
    """The most, in nano-dollars, that one attempt at `provider` can cost."""
    fitted = fit.by_provider[provider]
    return price.worst_case_nano_usd(fitted.input_tokens, fitted.request.max_output_tokens or 0)


def worst_summary(fit: Fit, price: Price) -> int:
    """The most, in nano-dollars, that one attempt at the summary can cost; 0 without one."""
    if fit.summary is None:
        return 0
    output_tokens = fit.summary.request.max_output_tokens or 0
    return price.worst_case_nano_usd(fit.summary.input_tokens, output_tokens)
