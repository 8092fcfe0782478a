"""The account of one admitted call: every attempt is paid for here, and told to log and trace."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from .caller import Attempt, Caller, Limit
from .errors import Billing, ProviderError, ProvidersUnavailable, ProviderTimeout
from .guardrails.availability.deadline import Deadline
from .guardrails.context.gate import Fit
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
    summary: str | None = None
    _summarizing: bool = False
    _waits_since: float = field(default_factory=time.monotonic)
    _sent_at: float | None = None
    _vendor_request_id: str | None = None
    _noted_nano_usd: int = 0
    _traced: AttemptTrace = UNTRACED
    _summary_trace: Trace | None = None

    @contextmanager
    def summarizing(self) -> Iterator[None]:
        """Attempts in this block are the summary's, with its size and its price."""
        self._summarizing = True
        try:
            with self.caller.trace.step("summary") as self._summary_trace:
                yield
        finally:
            self._summarizing = False
            self._summary_trace = None

    def settling(self) -> AbstractContextManager[Trace]:
        """The step in which the call is paid for."""
        # Of an attempt that ended in a crash nobody has told.
        self._traced.failed("Crashed")
        return self.caller.phase("settlement")

    @property
    def request_id(self) -> str:
        return self.caller.request_id

    def request_for(self, provider: Provider) -> ChatRequest:
        return self.fit.request_for(provider.name, self.summary)

    def attempt_waits(self, provider: Provider) -> None:
        self._waits_since = time.monotonic()
        self._sent_at = None
        self._vendor_request_id = None

    async def before_attempt(
        self, provider: Provider, request: ChatRequest, *, stream: bool
    ) -> Mapping[str, str]:
        worst_case = worst_attempt(self.fit, provider.name, self.prices[provider.name])
        if self._summarizing:
            worst_case = worst_summary(self.fit, self.prices[provider.name])
        spending = self.operation.spending
        if not await spending.begin_attempt(provider.name, provider.model, worst_case):
            raise ProvidersUnavailable(
                "The provider failed, and the daily budget leaves no room for another attempt.",
                retry_after_seconds=60,
            )
        self._sent_at = time.monotonic()
        trace = self._summary_trace or self.caller.trace
        self._traced = trace.attempt(provider.name, request, stream=stream)
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
            spending.attempt_cost(self.prices[provider.name].cost_nano_usd(usage), usage)
            record = self.caller.record
            record.estimated_input_tokens += self._estimate(provider)
            record.cached_input_tokens += usage.cached_input_tokens
            record.reasoning_tokens += usage.reasoning_tokens

    def _estimate(self, provider: Provider) -> int:
        if self._summarizing and self.fit.summary is not None:
            return self.fit.summary.input_tokens
        return self.fit.by_provider[provider.name].input_tokens

    def _name(self, provider: Provider) -> None:
        self.caller.record.provider = provider.name
        self.caller.record.model = provider.model
        self.caller.headers["x-provider"] = provider.name

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
                self._summarizing,
            )
        )
        self._noted_nano_usd = charged_nano_usd


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
