"""Workers that race for the same money, the same key and the same places never share one twice."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from ..service.asking import calls
from ..service.serving import eventually
from ..stores import SHARED_STORES
from .conftest import CENT, WORKERS, Contender
from .report import Count, Tell
from .storm import Shot, storm, workers_of

REQUESTS = 2_000
BUDGET = 500
LIMITED = {
    "DAILY_BUDGET_USD": str(BUDGET / 100),
    "DAILY_BUDGET_PER_CALLER_USD": str(BUDGET / 100),
}
DUPLICATES = 64
LIMIT = 100


def _scripted(sandbox: Sandbox, reply: Reply) -> None:
    sandbox.reset()
    sandbox.script("openai", [reply], times=None)


@pytest.mark.promise("R3", "R7")
@pytest.mark.parametrize("spent", [100, 60], ids=["all", "some"])
def test_a_budget_is_never_overspent(
    contender: Contender, sandbox: Sandbox, rounds: int, tell: Tell, spent: int
) -> None:
    """2,000 requests of forty callers on a budget for the worst case of 500: when each costs just
    that, exactly 500 are answered; when each costs less, more are, and never for more than there
    is."""
    total = Count(spent=0)
    for _ in range(rounds):
        _scripted(sandbox, Reply(output_tokens=spent))
        with contender.serve(**LIMITED) as service:
            shots = [
                Shot(f"key-of-caller{number % 40}", stream=number % 3 == 0)
                for number in range(REQUESTS)
            ]
            outcomes = storm(service, shots, at_once=64)
            money = contender.settled_money(service)
        assert set(outcomes) == {"answered", "daily_budget_exhausted"}
        assert money.settled == outcomes["answered"] * spent * CENT // 100
        assert money.settled <= BUDGET * CENT
        assert calls(sandbox) == outcomes["answered"]
        if spent == 100:
            assert outcomes["answered"] == BUDGET
        else:
            # Refused is only who would not have fitted beside those that were running.
            assert money.settled > (BUDGET - 64) * CENT
        total += Count(REQUESTS, outcomes["answered"], calls(sandbox), money.settled / 1e9)
    tell(f"budget of ${BUDGET / 100:g}, each call ${spent / 10_000:g}", contender.storage, total)


@pytest.mark.promise("R3", "R4", "R7")
@pytest.mark.parametrize("storage", SHARED_STORES)
def test_a_killed_worker_neither_refunds_nor_overspends(
    contenders: Callable[[str], Contender],
    sandbox: Sandbox,
    key: str,
    tell: Tell,
    storage: str,
) -> None:
    """One of four workers is killed in the middle of the race: what it held stays charged, what the
    others do goes on, and all together stays within the budget."""
    contender = contenders(storage)
    sandbox.script("openai", [Fault(delay_seconds=1, reply=Reply(output_tokens=100))], times=None)
    with (
        contender.serve(**LIMITED) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        shots = [Shot(key, stream=number % 2 == 0) for number in range(1_000)]
        racing = pool.submit(storm, service, shots, at_once=64)
        # All that run at once are under way, so that this worker has its share of them.
        eventually(lambda: contender.money(service).reserved == 64 * CENT)
        workers_of(service)[0].kill()
        outcomes = racing.result()
        money = contender.money(service)
        eventually(lambda: len(workers_of(service)) == WORKERS)
    assert set(outcomes) == {"answered", "daily_budget_exhausted", "lost"}
    settled, held = money.settled / CENT, money.reserved / CENT
    # Each call costs its worst case, so that the last cent is set aside, and not one more.
    assert settled + held == BUDGET
    told = f"{outcomes}, {calls(sandbox)} calls, {settled} settled, {held} held"
    assert 0 < held <= outcomes["lost"], told
    # What was settled may not have come to its caller, and what is held not to the provider.
    assert outcomes["answered"] <= settled <= outcomes["answered"] + outcomes["lost"]
    assert settled <= calls(sandbox) <= settled + held
    count = Count(
        1_000, outcomes["answered"], calls(sandbox), (money.settled + money.reserved) / 1e9
    )
    tell("one worker of four killed", storage, count)


@pytest.mark.promise("R6", "R7")
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_simultaneous_duplicates_are_one_call(
    contender: Contender, sandbox: Sandbox, key: str, rounds: int, tell: Tell, stream: bool
) -> None:
    """64 requests with one key at once are one call to the provider; the others have to wait."""
    total = Count()
    with contender.serve() as service:
        for number in range(rounds * 5):
            sandbox.reset()
            sandbox.script("openai", [Fault(delay_seconds=0.7)], times=None)
            shots = [Shot(key, f"payment-{number}", stream)] * DUPLICATES
            outcomes = storm(service, shots, at_once=DUPLICATES)
            assert outcomes == Counter({"answered": 1, "request_in_flight": DUPLICATES - 1})
            assert calls(sandbox) == 1
            total += Count(DUPLICATES, 1, calls(sandbox))
    form = "streams" if stream else "calls"
    tell(f"{DUPLICATES} duplicate {form} at once", contender.storage, total)


@pytest.mark.promise("R1", "R7")
def test_a_rate_limit_admits_exactly_its_number(
    contender: Contender, sandbox: Sandbox, rounds: int, tell: Tell
) -> None:
    """Of 400 requests at once, a limit of 100 admits exactly 100."""
    total = Count()
    with contender.serve(
        RATE_LIMIT_REQUESTS=str(LIMIT), RATE_LIMIT_WINDOW_SECONDS="600"
    ) as service:
        for number in range(rounds * 3):
            sandbox.reset()
            outcomes = storm(service, [Shot(f"key-of-caller{200 + number}")] * 400, at_once=64)
            assert outcomes == Counter({"answered": LIMIT, "rate_limit_exceeded": 400 - LIMIT})
            assert calls(sandbox) == LIMIT
            total += Count(400, LIMIT, calls(sandbox))
    tell(f"rate limit of {LIMIT}", contender.storage, total)
