"""What Prometheus reads. Labels come from the code and the configuration, never from a caller."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from ...caller import Caller, Record

DURATION_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 180, 600)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """One registry for each app, so that two apps in one process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "http_requests_total",
            "Requests by route template and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time to the end of the response.",
            ["route"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "llm_time_to_first_token_seconds",
            "Time from the request to its stream's first chunk.",
            ["provider"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "llm_tokens_total",
            "Tokens as the providers billed them.",
            ["provider", "model", "direction"],
            registry=self.registry,
        )
        self._cost = Counter(
            "llm_cost_usd_total",
            "Cost as settled, unknown usage at its worst case.",
            ["provider", "model"],
            registry=self.registry,
        )
        self._attempts = Counter(
            "llm_provider_attempts_total",
            "Attempts at a provider by outcome.",
            ["provider", "outcome"],
            registry=self.registry,
        )
        self._breaker = Gauge(
            "llm_circuit_breaker_open",
            "1 while the provider is not asked, 0.5 while one probe decides, else 0.",
            ["provider"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "llm_refusals_total",
            "Requests refused before any provider was called, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._replays = Counter(
            "llm_idempotent_replays_total",
            "Requests answered with a stored reply.",
            registry=self.registry,
        )
        self._budget = Gauge(
            "llm_daily_budget_used_ratio",
            "Share of the day's budget that is settled or reserved.",
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "http_requests_in_flight", "Requests under way.", registry=self.registry
        )
        self._store_up = Gauge(
            "store_up", "Whether the store answered last time: 1 or 0.", registry=self.registry
        )
        self._store_up.set(1)

    def request_started(self) -> None:
        self._in_flight.inc()

    def request_ended(
        self, caller: Caller, *, method: str, route: str, status: int, duration_seconds: float
    ) -> None:
        self._in_flight.dec()
        known_method = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(known_method, route, str(status)).inc()
        self._duration.labels(route).observe(duration_seconds)
        self._model_call(caller.record)

    def budget_used(self, ratio: float) -> None:
        self._budget.set(ratio)

    def watch_breaker(self, provider: str, value: Callable[[], float]) -> None:
        """`value` is asked whenever Prometheus reads."""
        self._breaker.labels(provider).set_function(value)

    def store_reachable(self, reachable: bool) -> None:
        self._store_up.set(1 if reachable else 0)

    def render(self) -> bytes:
        """The exposition format, in `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _model_call(self, record: Record) -> None:
        if record.refusal and not record.attempts:
            self._refusals.labels(record.refusal).inc()
        if record.replayed:
            self._replays.inc()
        for attempt in record.attempts:
            self._attempts.labels(attempt.provider, attempt.outcome).inc()
        for charge in record.charges:
            provider, model = charge.provider, charge.model
            self._tokens.labels(provider, model, "input").inc(charge.input_tokens)
            self._tokens.labels(provider, model, "output").inc(charge.output_tokens)
            self._cost.labels(provider, model).inc(charge.cost_nano_usd / 1e9)
        if record.first_token_seconds is not None and record.provider is not None:
            self._first_token.labels(record.provider).observe(record.first_token_seconds)
