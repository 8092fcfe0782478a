"""Who asks, and what became of the request: carried from the outermost layer to the innermost.

The record is written along the way and read once, at the end, by the log line and the metrics.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from .errors import Shortage
from .messages import Charge
from .trace import UNTRACED, Trace

Phase = Literal["context", "admission", "summary", "settlement"]
Limit = Literal["connect", "first_byte", "idle", "deadline", "stream_max", "caller", "shutdown"]
"""What ends an attempt before its time: a limit, its caller's leaving, the service's end."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one provider. `outcome` is `ok` or the failure's class; it holds no free text."""

    provider: str
    outcome: str
    duration_seconds: float
    status: int | None = None
    started_seconds: float = 0.0
    """Since the request came; then it waited for a place at the provider, then it was sent."""
    waited_seconds: float = 0.0
    cost_nano_usd: int = 0
    """Of a failed one: nothing, or its worst case where nobody knows."""
    error: str | None = None
    cut_by: Limit | None = None
    vendor_request_id: str | None = None
    is_summary: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class InputEstimate:
    """What was set aside for an answered attempt's input, and what the provider counted of it."""

    provider: str
    estimated_tokens: int
    billed_tokens: int


@dataclass(slots=True)
class Stopwatch:
    """Adds the time that a block takes to what its phase has taken."""

    phases: dict[Phase, float]
    name: Phase
    _started: float = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = time.monotonic() - self._started
        self.phases[self.name] = self.phases.get(self.name, 0.0) + spent


@dataclass(slots=True)
class Record:
    """What the log line says of a request beyond HTTP. Sums over its model calls, if several."""

    started: float = field(default_factory=time.monotonic)
    outcome: str = "ok"
    provider: str | None = None
    model: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    estimated_input_tokens: int = 0
    """Of the calls whose usage is known, for a comparison with `input_tokens`."""
    input_estimates: list[InputEstimate] = field(default_factory=list)
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    replayed: bool = False
    phases: dict[Phase, float] = field(default_factory=dict)
    """Seconds spent in each, attempts apart; a summary's with its attempts."""
    first_token_seconds: float | None = None
    trimmed_messages: int = 0
    summarized_messages: int = 0
    refusal: str | None = None
    shortage: Shortage | None = None
    retry_after_seconds: int | None = None
    error: BaseException | None = None
    traceback: TracebackType | None = None
    """Of `error`: some frameworks take it off an exception that they have handled."""

    def phase(self, name: Phase) -> Stopwatch:
        """Counts the time of the block, however it ends."""
        return Stopwatch(self.phases, name)

    @property
    def input_tokens(self) -> int:
        return sum(charge.input_tokens for charge in self.charges)

    @property
    def output_tokens(self) -> int:
        return sum(charge.output_tokens for charge in self.charges)

    @property
    def cost_nano_usd(self) -> int:
        return sum(charge.cost_nano_usd for charge in self.charges)


@dataclass(slots=True)
class Caller:
    """One request's caller. Routes receive it and hand it to `GuardedChat` as it is.

    `name` is the API key's name, or the address of an anonymous caller. `headers` go onto the
    response, whatever the framework; once a stream has begun, `trailers` go to its end instead.
    """

    name: str
    authenticated: bool
    request_id: str
    route: str
    query: str = ""
    body: bytes = b""
    idempotency_key: str | None = None
    is_retry: bool = False
    record: Record = field(default_factory=Record)
    trace: Trace = UNTRACED
    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    streaming: bool = False
    _calls: int = 0
    _when_gone: list[Callable[[], None]] = field(default_factory=list)
    _is_gone: bool = False

    @contextmanager
    def phase(self, name: Phase) -> Iterator[Trace]:
        """A part of the request, whose time the log line tells; a step of its trace."""
        with self.record.phase(name), self.trace.step(name) as trace:
            yield trace

    def next_call(self) -> int:
        """Numbers the model calls of one request, so that each has a claim of its own."""
        self._calls += 1
        return self._calls

    def tell(self, figures: Mapping[str, str]) -> None:
        """What the caller is told of its standing, by the name of the header."""
        (self.trailers if self.streaming else self.headers).update(figures)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """`callback` runs when the response has ended or its reader has left; now, if it has."""
        self._when_gone.append(callback)
        if self._is_gone:
            self.gone()

    def gone(self) -> None:
        self._is_gone = True
        while self._when_gone:
            self._when_gone.pop()()
