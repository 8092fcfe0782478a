"""What metrics say of themselves, and what only time changes in them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.caller import Attempt, Caller
from app.errors import ServiceError
from app.guardrails.visibility.metrics import FOLDER_VARIABLE, Metrics
from app.messages import Charge

from ..metrics import Scrape

USED = "llm_daily_budget_used_ratio"


class Day:
    """The calendar's day, as the service's own clock has it."""

    name = "2026-01-31"

    def __call__(self) -> str:
        return self.name


@pytest.fixture
def day() -> Day:
    return Day()


@pytest.fixture
def metrics(day: Day) -> Metrics:
    return Metrics(environment="production", today=day)


def scrape(metrics: Metrics) -> Scrape:
    return Scrape.of(metrics.render().decode())


def test_a_used_budget_ends_with_its_day(metrics: Metrics, day: Day) -> None:
    """At midnight nothing of the new day is used, although no call has said so yet."""
    metrics.budget_used(0.9, "2026-01-31")
    assert scrape(metrics)(USED) == 0.9
    day.name = "2026-02-01"
    assert scrape(metrics)(USED) == 0
    metrics.budget_used(0.1, "2026-02-01")
    assert scrape(metrics)(USED) == 0.1


def test_the_stores_clock_may_be_ahead(metrics: Metrics) -> None:
    """A day that has not come yet here is not over."""
    metrics.budget_used(0.2, "2026-02-01")
    assert scrape(metrics)(USED) == 0.2


def test_a_worker_that_is_just_beginning_breaks_no_scrape(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is empty for a moment, and those of one that has ended go away."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    metrics = Metrics(environment="production", today=day)
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "gauge_livesum_2.db").symlink_to(tmp_path / "gone.db")
    assert metrics.render() == b""


def test_a_breaker_is_asked_when_it_is_scraped(metrics: Metrics) -> None:
    """Its state changes with time alone."""
    states = iter((1.0, 0.5))
    metrics.watch_breaker("somebody", lambda: next(states))
    assert scrape(metrics)("llm_circuit_breaker_open", provider="somebody") == 1
    assert scrape(metrics)("llm_circuit_breaker_open", provider="somebody") == 0.5


def test_each_request_is_counted_under_its_own_labels(metrics: Metrics) -> None:
    """The second time as the first, and never under another metric of the same labels."""
    caller = Caller("ada", authenticated=True, request_id="request-1", route="POST /r")
    caller.record.attempts = [Attempt("one", "ok", 2.0, waited_seconds=0.5)]
    caller.record.charges = [Charge("one", "m", 10**9, input_tokens=7, output_tokens=3)]
    for method in ("POST", "GET", "POST"):
        metrics.request_ended(caller, method=method, route="/r", status=200, duration_seconds=4.0)
    seen = scrape(metrics)

    requests = {"route": "/r", "status": "200"}
    assert seen("http_requests_total", method="POST", **requests) == 2
    assert seen("http_requests_total", method="GET", **requests) == 1
    assert seen("http_request_duration_seconds_sum", route="/r") == 12
    assert seen("llm_provider_attempts_total", provider="one", outcome="ok") == 3
    assert seen("llm_provider_attempt_duration_seconds_sum", provider="one") == 6
    assert seen("llm_provider_wait_seconds_total", provider="one") == 1.5
    tokens = {"provider": "one", "model": "m"}
    assert seen("llm_tokens_total", direction="input", **tokens) == 21
    assert seen("llm_tokens_total", direction="output", **tokens) == 9
    assert seen("llm_cost_usd_total", **tokens) == 3


def codes_of(error: type[ServiceError]) -> Iterator[str]:
    yield error.code
    for kind in error.__subclasses__():
        yield from codes_of(kind)


def test_what_may_be_refused_is_there_from_the_beginning(metrics: Metrics) -> None:
    """`increase()` sees the first refusal of each reason; so it does what is lost."""
    seen = scrape(metrics)
    for code in codes_of(ServiceError):
        assert ("llm_refusals_total", frozenset({("reason", code)})) in seen.series
    for name in ("llm_settlements_lost_total", "alerts_not_sent_total"):
        assert seen.series[name, frozenset()] == 0
