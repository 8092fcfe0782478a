"""A provider that keeps failing is left alone, and one call finds out whether it is back."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    Billing,
    ProviderRefusesAccount,
    ProviderRejectsRequest,
    ProvidersUnavailable,
    ProviderTimeout,
    ProviderUnavailable,
)
from app.guardrails.availability.circuit_breaker import CircuitBreaker, Pass, State

FAILURES = 3
COOL_DOWN_SECONDS = 30.0

BROKEN = ProviderUnavailable("connection broke", billing=Billing.AMBIGUOUS)
ILL = (
    BROKEN,
    ProviderTimeout("fell silent", billing=Billing.AMBIGUOUS),
    ProviderUnavailable("answered 500", billing=Billing.AMBIGUOUS, status=500),
    ProviderUnavailable("answered 529", billing=Billing.NOTHING, status=529),
)
WELL = (None, ProviderRejectsRequest("answered 400", status=400))
NEITHER = (
    ProviderUnavailable("answered 429", billing=Billing.NOTHING, status=429),
    ProviderRefusesAccount("answered 401", billing=Billing.NOTHING, status=401),
    asyncio.CancelledError(),
    ProvidersUnavailable("the budget leaves no room"),
)


class Breaker(CircuitBreaker):
    """A breaker on a clock that tests set, which counts how often it opens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.opened = 0
        super().__init__(
            failures=FAILURES,
            cool_down_seconds=COOL_DOWN_SECONDS,
            on_open=self._count,
            clock=lambda: self.now,
        )

    def _count(self) -> None:
        self.opened += 1

    def call(self, error: BaseException | None) -> None:
        entry = self.enter()
        assert entry is not None
        self.leave(entry, error)

    def look(self) -> State:
        return self.state

    def break_down(self) -> None:
        for _ in range(FAILURES):
            self.call(BROKEN)

    def must_enter(self) -> Pass:
        entry = self.enter()
        assert entry is not None
        return entry


@pytest.fixture
def breaker() -> Breaker:
    return Breaker()


@pytest.mark.promise("A5")
@pytest.mark.parametrize("error", ILL, ids=str)
def test_failures_in_a_row_open_it(breaker: Breaker, error: Exception) -> None:
    """Timeouts, broken connections and 5xx open the breaker, at the last of them and once."""
    for _ in range(FAILURES - 1):
        breaker.call(error)
    assert (breaker.state, breaker.opened) == (State.CLOSED, 0)
    breaker.call(error)
    assert (breaker.state, breaker.opened) == (State.OPEN, 1)
    assert breaker.enter() is None


@pytest.mark.promise("A5")
@pytest.mark.parametrize("error", WELL, ids=str)
def test_an_answer_starts_the_count_anew(breaker: Breaker, error: Exception | None) -> None:
    """Between failures an answer, also one that blames the request, shows the provider well."""
    for outcome in (BROKEN, BROKEN, error, BROKEN, BROKEN):
        breaker.call(outcome)
    assert breaker.look() is State.CLOSED


@pytest.mark.promise("A5")
@pytest.mark.parametrize("error", NEITHER, ids=repr)
def test_what_is_not_the_providers_illness_does_not_count(
    breaker: Breaker, error: BaseException
) -> None:
    """429, our own credentials, cancellations and refusals of ours neither open it nor heal it."""
    for _ in range(FAILURES * 3):
        breaker.call(error)
    assert breaker.look() is State.CLOSED
    for outcome in (BROKEN, error, BROKEN, error, BROKEN):
        breaker.call(outcome)
    assert breaker.look() is State.OPEN


@pytest.mark.promise("A5")
def test_exactly_one_probe_is_let_through(breaker: Breaker) -> None:
    """After the cool-down one call decides, and nobody else is let through meanwhile."""
    breaker.break_down()
    breaker.now = COOL_DOWN_SECONDS - 0.1
    assert breaker.enter() is None
    breaker.now = COOL_DOWN_SECONDS
    assert breaker.look() is State.HALF_OPEN
    probe = breaker.must_enter()
    assert [breaker.enter() for _ in range(10)] == [None] * 10
    breaker.leave(probe, None)
    assert breaker.look() is State.CLOSED
    assert None not in [breaker.enter() for _ in range(10)]


@pytest.mark.promise("A5")
def test_a_failed_probe_opens_it_again(breaker: Breaker) -> None:
    """A probe that fails starts the cool-down from its own end."""
    breaker.break_down()
    breaker.now = 40.0
    breaker.call(BROKEN)
    breaker.now = 40.0 + COOL_DOWN_SECONDS - 0.1
    assert breaker.look() is State.OPEN
    breaker.now = 40.0 + COOL_DOWN_SECONDS
    breaker.call(None)
    assert breaker.look() is State.CLOSED


@pytest.mark.parametrize("error", NEITHER, ids=repr)
def test_a_probe_that_tells_nothing_is_followed_by_another(
    breaker: Breaker, error: BaseException
) -> None:
    """A probe that is cancelled, or answered with 429, leaves the decision to the next one."""
    breaker.break_down()
    breaker.now = COOL_DOWN_SECONDS
    breaker.call(error)
    assert breaker.look() is State.HALF_OPEN
    breaker.must_enter()
    assert breaker.enter() is None


@pytest.mark.parametrize("error", [None, *ILL, *NEITHER], ids=repr)
def test_a_call_from_before_decides_nothing(breaker: Breaker, error: BaseException | None) -> None:
    """A call that began before the breaker opened neither closes it nor makes way for a probe."""
    late, later = breaker.must_enter(), breaker.must_enter()
    breaker.break_down()
    breaker.now = COOL_DOWN_SECONDS - 1
    breaker.leave(late, error)
    breaker.now = COOL_DOWN_SECONDS
    probe = breaker.must_enter()
    breaker.leave(later, error)
    assert breaker.enter() is None
    breaker.leave(probe, None)
    assert breaker.look() is State.CLOSED


@pytest.mark.promise("A5")
@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "wait"]), st.integers(0, 40))))
def test_there_are_never_two_probes(steps: list[tuple[str, int]]) -> None:
    """Whatever calls come, go and fail, between two openings at most one is under way."""
    breaker = Breaker()
    inside: list[tuple[Pass, bool]] = []
    for step, number in steps:
        if step == "wait":
            breaker.now += number
        elif step == "enter":
            probing = breaker.state is State.HALF_OPEN
            entry = breaker.enter()
            if entry is not None:
                inside.append((entry, probing))
        elif inside:
            entry, _ = inside.pop(number % len(inside))
            breaker.leave(entry, (*ILL, *NEITHER, None)[number % (len(ILL) + len(NEITHER) + 1)])
        if breaker.state is not State.CLOSED:
            assert sum(probing for _, probing in inside) <= 1
