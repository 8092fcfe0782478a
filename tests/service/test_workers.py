"""Two workers share every limit exactly: rate, claims and a budget that two hundred run against."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import ask, calls
from .conftest import MakeProject
from .serving import Service

KEY = {"Idempotency-Key": "payment-1"}

# An answer of at most a hundred tokens costs a cent, whatever the question.
CENT = 10_000_000
BUDGET_CENTS = 20.5


@pytest.fixture(scope="module")
def _pair(make_project: MakeProject) -> Iterator[Service]:
    with make_project("pair").serve(
        WORKERS="2",
        PROVIDERS="openai",
        OPENAI_INPUT_USD_PER_MTOK="0",
        OPENAI_OUTPUT_USD_PER_MTOK="100",
        MAX_OUTPUT_TOKENS="100",
        DAILY_BUDGET_USD=str(BUDGET_CENTS / 100),
        RATE_LIMIT_REQUESTS="25",
    ) as service:
        yield service


@pytest.fixture
def pair(_pair: Service, sandbox: Sandbox) -> Service:
    """A service of two workers that these tests share, in their order: the last ones spend all."""
    return _pair


def at_once(request: Callable[[], object], count: int) -> list[str]:
    """What becomes of that many simultaneous requests: `answered`, or the code of the refusal."""
    barrier = threading.Barrier(count)

    def attempt(_: int) -> str:
        barrier.wait(30)
        try:
            request()
        except openai.APIStatusError as refused:
            return refused.code or ""
        return "answered"

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(attempt, range(count)))


def test_workers_share_a_rate_limit(pair: Service, sandbox: Sandbox) -> None:
    """Of a caller's simultaneous requests just as many are admitted as one window holds."""
    client = pair.sdk("key-of-caller1")
    outcomes = at_once(lambda: ask(client, max_tokens=1), 40)
    assert Counter(outcomes) == {"answered": 25, "rate_limit_exceeded": 15}
    assert calls(sandbox) == 25


def test_workers_share_claims(pair: Service, sandbox: Sandbox) -> None:
    """Twenty simultaneous requests with one key are one call to the provider."""
    sandbox.script("openai", [Fault(delay_seconds=2)])
    client = pair.sdk("key-of-caller2")
    outcomes = at_once(lambda: ask(client, max_tokens=1, extra_headers=KEY), 20)
    assert Counter(outcomes) == {"answered": 1, "request_in_flight": 19}
    assert calls(sandbox) == 1


def test_a_small_budget_is_never_overspent(pair: Service, sandbox: Sandbox) -> None:
    """Two hundred requests at once, on a budget for about twenty, never spend past it."""
    sandbox.script("openai", [Reply(output_tokens=60)], times=None)
    clients = [pair.sdk(f"key-of-caller{number}") for number in range(10, 20)]
    turns = itertools.cycle(clients)
    outcomes = at_once(lambda: ask(next(turns)), 200)
    answered = outcomes.count("answered")
    assert set(outcomes) == {"answered", "daily_budget_exhausted"}
    books = pair.books
    assert books.balanced
    assert books.open_operations == 0
    assert books.charged_nano_usd <= BUDGET_CENTS * CENT
    assert calls(sandbox) == answered
    assert 20 <= answered <= BUDGET_CENTS / 0.6


def test_a_spent_budget_is_not_asked_again(pair: Service, sandbox: Sandbox) -> None:
    """The SDK takes the refusal for an answer: it does not retry what waiting will not mend."""
    client = pair.sdk("key-of-caller3", max_retries=2)
    sandbox.script("openai", [Reply(output_tokens=100)], times=None)
    with pytest.raises(openai.InternalServerError) as failure:
        for _ in range(25):
            ask(client)
    assert failure.value.code == "daily_budget_exhausted"
    assert failure.value.response.headers["x-should-retry"] == "false"
    pair.line_of(failure.value.response.headers["x-request-id"])
    lines = [line for line in pair.lines("request") if line["caller"] == "caller3"]
    assert [line["status"] for line in lines].count(503) == 1
