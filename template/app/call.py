"""The account of one admitted call: every attempt is paid for here, and told to log and trace."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from .caller import Attempt, Caller, InputEstimate, Limit
from .errors import Billing, ProviderError, ProvidersUnavailable, ProviderTimeout
from .guardrails.availability.deadline import Deadline
from .guardrails.context.gate import Fit, FittedRequest, SummaryCall
from .guardrails.context.summary import Summary
from .guardrails.resources.admission import Operation
from .guardrails.resources.prices import Price
from .messages import ChatReply, ChatRequest, TokenUsage
from .providers.provider import Provider
from .trace import UNTRACED, AttemptTrace, Trace


@dataclass(slots=True)
class Call:
    """Hears of attempts from `Fallback` and keeps the books: the budget's, the log line's, the
    trace's.

    `is_ending` tells whether the service cuts its calls off.
    """

    caller: Caller
    operation: Operation
    chain: Sequence[Provider]
    fit: Fit
    deadline: Deadline
    prices: Mapping[str, Price]
    is_ending: Callable[[], bool]
    summary: Summary | None = None
    _summary_call: SummaryCall | None = None
    _summary_prices: Mapping[str, Price] = field(default_factory=dict)
    _waits_since: float = field(default_factory=time.monotonic)
    _sent_at: float | None = None
    _vendor_request_id: str | None = None
    _noted_nano_usd: int = 0
    _traced: AttemptTrace = UNTRACED
    _summary_trace: Trace | None = None

    @contextmanager
    def summarizing(self, asked: SummaryCall, prices: Mapping[str, Price]) -> Iterator[None]:
        """Attempts in this block are the summary's, with its size and at these prices."""
        self._summary_call, self._summary_prices = asked, prices
        try:
            with self.caller.trace.step("summary") as self._summary_trace:
                yield
        finally:
            self._summary_call = None
            self._summary_trace = None

    def settling(self) -> AbstractContextManager[Trace]:
        """The step in which the call is paid for."""
        # Of an attempt that ended in a crash nobody has told.
        self._traced.failed("Crashed")
        return self.caller.phase("settlement")

    @property
    def request_id(self) -> str:
        return self.caller.request_id

    def fitted(self, provider: Provider) -> FittedRequest:
        return self.fit.fitted(provider.name, self.summary)

    def request_for(self, provider: Provider) -> ChatRequest:
        return self.fitted(provider).request

    def attempt_waits(self, provider: Provider) -> None:
        self._waits_since = time.monotonic()
        self._sent_at = None
        self._vendor_request_id = None

    async def before_attempt(
        self, provider: Provider, request: ChatRequest, *, stream: bool
    ) -> Mapping[str, str]:
        price, set_aside = self._price(provider), 0
        if self._summary_call is None:
            worst_case = worst_attempt(self.fit, provider.name, price)
        else:
            worst_case = worst_summary(self._summary_call, price)
            # The answer is not to want for what its summary has cost.
            set_aside = worst_answer(self.fit, self.prices)
        if not await self.operation.spending.begin_attempt(
            provider.name, provider.model, worst_case, set_aside_nano_usd=set_aside
        ):
            raise ProvidersUnavailable(
                "The provider failed, and the daily budget leaves no room for another attempt.",
                retry_after_seconds=60,
            )
        self._sent_at = time.monotonic()
        trace = self._summary_trace or self.caller.trace
        self._traced = trace.attempt(provider.name, provider.model, request, stream=stream)
        return {"x-request-id": self.request_id, **self._traced.headers}

    def vendor_answered(self, request_id: str | None) -> None:
        self._vendor_request_id = request_id

    def attempt_failed(self, provider: Provider, error: ProviderError) -> None:
        if error.billing is Billing.NOTHING:
            self.operation.spending.attempt_was_free()
        else:
            self.operation.spending.attempt_is_unknown()
        self._note_error(provider, error)

    def attempt_cut(self, provider: Provider, *, by_deadline: bool) -> None:
        self.operation.spending.attempt_is_unknown()
        self._note_failed(provider, "Cut", cut_by="deadline" if by_deadline else self._who_cuts())

    def attempt_skipped(self, provider: Provider, reason: str) -> None:
        self._note(provider, reason)

    def began(self, provider: Provider) -> None:
        """The first chunk of a stream has come."""
        self._name(provider)
        self.caller.streaming = True
        now, record = time.monotonic(), self.caller.record
        record.first_token_seconds = now - record.started
        self._traced.began(now - (self._sent_at or now))

    def answered(self, provider: Provider, reply: ChatReply) -> None:
        """The attempt has brought a whole reply; without usage it is charged its worst case."""
        self._charge(provider, reply.usage)
        if reply.usage is not None:
            self.caller.record.input_estimates.append(
                InputEstimate(provider.name, self._estimate(provider), reply.usage.input_tokens)
            )
        self._traced.answered(reply)
        self._note(provider, "ok")
        self._name(provider)

    def broke(self, provider: Provider, error: BaseException, usage: TokenUsage | None) -> None:
        """A stream has ended early; `usage` is what it is billed, `None` if nobody knows."""
        self._charge(provider, usage)
        match error:
            case ProviderError():
                self._note_error(provider, error, usage)
            case TimeoutError():
                self._note_failed(provider, "Cut", cut_by="stream_max", usage=usage)
            case asyncio.CancelledError():
                self._note_failed(provider, "Cut", cut_by=self._who_cuts(), usage=usage)
            case _:
                self._note(provider, "Crashed")
                self._traced.failed(type(error).__name__, usage=usage)

    def _who_cuts(self) -> Limit:
        return "shutdown" if self.is_ending() else "caller"

    def _charge(self, provider: Provider, usage: TokenUsage | None) -> None:
        spending = self.operation.spending
        if usage is None:
            spending.attempt_is_unknown()
        else:
            spending.attempt_cost(self._price(provider).cost_nano_usd(usage), usage)
            record = self.caller.record
            record.estimated_input_tokens += self._estimate(provider)
            record.cached_input_tokens += usage.cached_input_tokens
            record.reasoning_tokens += usage.reasoning_tokens

    def _price(self, provider: Provider) -> Price:
        prices = self.prices if self._summary_call is None else self._summary_prices
        return prices[provider.name]

    def _estimate(self, provider: Provider) -> int:
        if self._summary_call is not None:
            return self._summary_call.input_tokens
        return self.fitted(provider).input_tokens

    def _name(self, provider: Provider) -> None:
        """It has answered: what it saw of the conversation is what there is to tell."""
        if self._summary_call is not None:
            return
        record = self.caller.record
        record.provider = provider.name
        record.model = provider.model
        self.caller.headers["x-provider"] = provider.name
        summary = self.summary
        if summary is not None and self.fit.takes(provider.name, summary):
            record.summarized_messages = summary.messages
        record.trimmed_messages = len(self.fitted(provider).dropped)
        if record.trimmed_messages:
            told = f"trimmed={record.trimmed_messages}; summarized={record.summarized_messages}"
            self.caller.headers["x-context"] = told

    def _note_error(
        self, provider: Provider, error: ProviderError, usage: TokenUsage | None = None
    ) -> None:
        cut_by = error.limit if isinstance(error, ProviderTimeout) else None
        outcome = type(error).__name__
        self._note_failed(provider, outcome, error.status, str(error), cut_by, usage)

    def _note_failed(
        self,
        provider: Provider,
        outcome: str,
        status: int | None = None,
        error: str | None = None,
        cut_by: Limit | None = None,
        usage: TokenUsage | None = None,
    ) -> None:
        self._note(provider, outcome, status, error, cut_by)
        self._traced.failed(outcome, error or "", status=status, usage=usage)

    def _note(
        self,
        provider: Provider,
        outcome: str,
        status: int | None = None,
        error: str | None = None,
        cut_by: Limit | None = None,
    ) -> None:
        now, record = time.monotonic(), self.caller.record
        sent_at = now if self._sent_at is None else self._sent_at
        charged_nano_usd = self.operation.spending.cost_nano_usd
        record.attempts.append(
            Attempt(
                provider.name,
                outcome,
                now - sent_at,
                status,
                self._waits_since - record.started,
                sent_at - self._waits_since,
                charged_nano_usd - self._noted_nano_usd,
                error,
                cut_by,
                self._vendor_request_id,
                self._summary_call is not None,
                provider.model,
            )
        )
        self._noted_nano_usd = charged_nano_usd


def worst_attempt(fit: Fit, provider: str, price: Price) -> int:
    """The most, in nano-dollars, that one attempt at `provider` can cost."""
    fitted = fit.by_provider[provider]
    return price.worst_case_nano_usd(
        fitted.most_input_tokens, fitted.request.max_output_tokens or 0
    )


def worst_answer(fit: Fit, prices: Mapping[str, Price]) -> int:
    """The same at the dearest provider that may be asked."""
    return max(worst_attempt(fit, name, prices[name]) for name in fit.by_provider)


def worst_summary(asked: SummaryCall, price: Price) -> int:
    """The most, in nano-dollars, that one attempt at the summary can cost."""
    return price.worst_case_nano_usd(asked.input_tokens, asked.request.max_output_tokens or 0)
