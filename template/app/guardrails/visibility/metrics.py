"""What Prometheus reads. Labels come from the code and the configuration, never from a caller.

With several workers a scrape reaches one of them and tells of all: each keeps its figures in files
of a folder that they share. Counters and histograms add up, and outlive a worker that has ended;
what a gauge of several workers tells is said at each.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ...caller import Attempt, Caller, Record
from ...errors import ServiceError

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder that workers share; prometheus_client reads it when it is imported."""
DURATION_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 180, 600)
RATIO_BUCKETS: Final = (0.5, 0.8, 0.9, 0.95, 0.99, 1, 1.01, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10)
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

M = TypeVar("M", Counter, Histogram)
OfWorkers = Literal["livesum", "livemax", "max", "mostrecent", "livemostrecent"]
"""`live`: without the workers that have ended."""


class Metrics:
    """One registry for each app, so that two apps in one process do not add up.

    `today` is the name of the budget's day, by which the gauge of a used budget ends with its day.
    """

    def __init__(self, *, environment: str, today: Callable[[], str]) -> None:
        self.folder = os.environ.get(FOLDER_VARIABLE)
        self.registry = CollectorRegistry()
        self._today = today
        self._budget_day = ""
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        self._declare_requests()
        self._declare_calls()
        self._declare_limits()
        self._declare_service(environment)

    def _declare_requests(self) -> None:
        self._requests = self._counter(
            "http_requests_total",
            "Requests by route template and status.",
            "method",
            "route",
            "status",
        )
        self._duration = self._histogram(
            "http_request_duration_seconds", "Time to the end of the response.", "route"
        )
        # Of a worker that was killed nothing is under way any more.
        self._in_flight = self._gauge("http_requests_in_flight", "Requests under way.", "livesum")
        self._in_flight.set(0)

    def _declare_calls(self) -> None:
        self._first_token = self._histogram(
            "llm_time_to_first_token_seconds",
            "Time from the request to its stream's first chunk.",
            "provider",
        )
        self._tokens = self._counter(
            "llm_tokens_total",
            "Tokens as the providers billed them.",
            "provider",
            "model",
            "direction",
        )
        # Below 1 a declared bound was broken.
        self._estimate_ratio = self._histogram(
            "llm_input_estimate_ratio",
            "Estimated input tokens of answered attempts, for each that was billed.",
            "provider",
            buckets=RATIO_BUCKETS,
        )
        self._cost = self._counter(
            "llm_cost_usd_total",
            "Cost as settled, unknown usage at its worst case.",
            "provider",
            "model",
        )
        self._attempts = self._counter(
            "llm_provider_attempts_total",
            "Attempts at a provider by outcome.",
            "provider",
            "outcome",
        )
        self._attempt_duration = self._histogram(
            "llm_provider_attempt_duration_seconds",
            "Time from sending an attempt to its end.",
            "provider",
        )
        self._waited = self._counter(
            "llm_provider_wait_seconds_total",
            "Time that attempts have waited for a place at the provider (MAX_CONCURRENT_CALLS).",
            "provider",
        )
        # The worst of the workers, each of which has a breaker of its own.
        self._breaker = self._gauge(
            "llm_circuit_breaker_open",
            "1 while the provider is not asked, 0.5 while one probe decides, else 0.",
            "livemax",
            "provider",
        )

    def _declare_limits(self) -> None:
        self._refusals = self._counter(
            "llm_refusals_total",
            "Requests refused before any provider was called, by reason.",
            "reason",
        )
        for reason in _reasons(ServiceError):
            # A series that begins with its first event hides that event from `increase()`.
            self._refusals.labels(reason)
        self._replays = self._counter(
            "llm_idempotent_replays_total", "Requests answered with a stored reply."
        )
        self._trimmed = self._counter(
            "llm_trimmed_requests_total",
            "Requests whose history was trimmed, by what took its place.",
            "replaced_by",
        )
        for replacement in ("summary", "nothing"):
            self._trimmed.labels(replacement)
        # One budget for all: who has seen it last knows, be that worker still there or not.
        self._budget = self._gauge(
            "llm_daily_budget_used_ratio",
            "Share of the day's budget that is settled or reserved.",
            "mostrecent",
        )

    def _declare_service(self, environment: str) -> None:
        # One store for all: it is there if the last of its steps has had an answer.
        self._store_up = self._gauge(
            "store_up", "Whether the store answered last time: 1 or 0.", "livemostrecent"
        )
        self._settlements_waiting = self._gauge(
            "llm_settlements_waiting", "Settlements that wait for the store.", "livesum"
        )
        self._settlements_lost = self._counter(
            "llm_settlements_lost_total",
            "Settlements given up, whose calls stay charged their worst case.",
        )
        self._alerts_not_sent = self._counter(
            "alerts_not_sent_total", "Alerts that did not reach the webhook."
        )
        self._gauge("service_workers", "Processes that serve.", "livesum", "environment").labels(
            environment
        ).set(1)
        # Of the youngest, so that a worker that keeps dying shows.
        self._gauge("service_start_time_seconds", "When a process last began to serve.", "max").set(
            time.time()
        )

    def request_started(self) -> None:
        self._in_flight.inc()

    def request_ended(
        self, caller: Caller, *, method: str, route: str, status: int, duration_seconds: float
    ) -> None:
        self._in_flight.dec()
        known_method = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._with(self._requests, known_method, route, str(status)).inc()
        self._with(self._duration, route).observe(duration_seconds)
        self._model_call(caller.record)

    def budget_used(self, ratio: float, day: str) -> None:
        self._budget_day = day
        self._budget.set(ratio)

    def watch_breaker(self, provider: str, value: Callable[[], float]) -> None:
        """`value` is asked by `sample`."""
        self._watched.append((self._breaker.labels(provider), value))

    def store_reachable(self, reachable: bool) -> None:
        self._store_up.set(1 if reachable else 0)

    def settlements(self, waiting: int, lost: int) -> None:
        """So many wait now, and so many more were given up."""
        self._settlements_waiting.set(waiting)
        self._settlements_lost.inc(lost)

    def alert_not_sent(self) -> None:
        self._alerts_not_sent.inc()

    def sample(self) -> None:
        """Brings up to date what changes by itself as time goes by.

        A scrape does so for the worker that it reaches; the others have to do it now and then.
        """
        for gauge, value in self._watched:
            gauge.set(value())
        if self._budget_day and self._budget_day < self._today():
            self.budget_used(0, "")

    def render(self) -> bytes:
        """The exposition format, in `CONTENT_TYPE`."""
        self.sample()
        registry = self.registry
        if self.folder is not None:
            registry = CollectorRegistry()
            registry.register(_AllWorkers(Path(self.folder)))
        return generate_latest(registry)

    def _model_call(self, record: Record) -> None:
        if record.refusal and not record.attempts:
            self._with(self._refusals, record.refusal).inc()
        if record.replayed:
            self._replays.inc()
        if record.trimmed_messages:
            self._with(self._trimmed, "summary" if record.summarized_messages else "nothing").inc()
        for attempt in record.attempts:
            self._attempt(attempt)
        for estimate in record.input_estimates:
            if estimate.billed_tokens:
                ratio = estimate.estimated_tokens / estimate.billed_tokens
                self._with(self._estimate_ratio, estimate.provider).observe(ratio)
        for charge in record.charges:
            provider, model = charge.provider, charge.model
            self._with(self._tokens, provider, model, "input").inc(charge.input_tokens)
            self._with(self._tokens, provider, model, "output").inc(charge.output_tokens)
            self._with(self._cost, provider, model).inc(charge.cost_nano_usd / 1e9)
        if record.first_token_seconds is not None and record.provider is not None:
            self._with(self._first_token, record.provider).observe(record.first_token_seconds)

    def _attempt(self, attempt: Attempt) -> None:
        self._with(self._attempts, attempt.provider, attempt.outcome).inc()
        self._with(self._waited, attempt.provider).inc(attempt.waited_seconds)
        if attempt.duration_seconds:
            self._with(self._attempt_duration, attempt.provider).observe(attempt.duration_seconds)

    def _with(self, metric: M, *labels: str) -> M:
        """The metric for these labels. The library's own look-up takes a lock and longer than to
        count."""
        key = metric, labels
        found: M | None = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found

    # Metrics of this registry

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = DURATION_BUCKETS
    ) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, text: str, of_workers: OfWorkers, *labels: str) -> Gauge:
        """`of_workers` is what becomes of the values of several."""
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=of_workers)


class _AllWorkers(Collector):
    """Passes over the file of a worker that is just beginning: it is empty for a moment, and the
    library would fail on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        metrics: Iterable[Metric] = MultiProcessCollector.merge(list(_begun(self._folder)))
        return metrics


def _begun(folder: Path) -> Iterator[str]:
    for file in folder.glob("*.db"):
        # Those of a worker that has ended go away.
        with suppress(FileNotFoundError):
            if file.stat().st_size:
                yield str(file)


def _reasons(error: type[ServiceError]) -> set[str]:
    return {error.code}.union(*(_reasons(kind) for kind in error.__subclasses__()))
