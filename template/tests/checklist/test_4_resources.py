"""Step 4: is there a rate limit, a daily cost cap, and idempotency?"""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.conftest import RATE_LIMIT, Run


@pytest.mark.item("4. Cost", "Is Rate Limiting applied?")
def test_the_rate_limit_is_enforced(
    client: httpx.Client, sandbox: Sandbox, evidence: Evidence
) -> None:
    """One request more than the limit is refused, names the wait, and reaches no provider."""
    statuses = [ask(client).status_code for _ in range(RATE_LIMIT)]
    assert statuses == [200] * RATE_LIMIT
    calls = _calls(sandbox)
    refused = ask(client)
    assert refused.status_code == 429, f"request {RATE_LIMIT + 1} got {refused.status_code}"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 60
    assert _calls(sandbox) == calls
    evidence(f"429 after {RATE_LIMIT} of {RATE_LIMIT}, Retry-After {wait} s")


@pytest.mark.item("4. Cost", "Is there a daily cost cap?")
def test_the_daily_cost_is_capped(run: Run, sandbox: Sandbox, key: str, evidence: Evidence) -> None:
    """A call that the day's budget cannot cover is refused before any provider is called."""
    with run(DAILY_BUDGET_USD="0.000001") as service, service.client(key) as client:
        refused = ask(client)
    assert refused.status_code == 503, f"a call over the budget got {refused.status_code}"
    assert refused.json()["error"]["code"] == "daily_budget_exhausted"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-should-retry"] == "false"
    assert _calls(sandbox) == 0
    evidence("503 at a budget of $0.000001, 0 calls to providers")


@pytest.mark.item("4. Cost", "Is there idempotency handling?")
def test_repeats_are_idempotent(
    client: httpx.Client, sandbox: Sandbox, primary: str, evidence: Evidence
) -> None:
    """Two requests at once under one Idempotency-Key make one call; a repeat gets its reply."""
    sandbox.script(primary, [Fault(delay_seconds=0.5)])
    client.headers["idempotency-key"] = "one-payment"
    with ThreadPoolExecutor(2) as pool:
        both = [call.result() for call in [pool.submit(ask, client), pool.submit(ask, client)]]
    statuses = sorted(response.status_code for response in both)
    assert statuses == [200, 409], f"two at once got {statuses}"
    repeat = ask(client)
    assert repeat.status_code == 200
    assert repeat.headers["idempotent-replayed"] == "true"
    assert _calls(sandbox) == 1
    evidence("two at once: 200 and 409; the repeat was replayed; 1 call to a provider")


def _calls(sandbox: Sandbox) -> int:
    return sum(len(sandbox.requests(vendor)) for vendor in sandbox.vendors)
