"""Step 3: do external calls time out, are they retried with growing waits, is there a fallback?"""

import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.conftest import Run
from tests.running import eventually


@pytest.mark.item("3. Availability", "Do all external calls have timeouts?")
def test_external_calls_time_out(
    run: Run, sandbox: Sandbox, key: str, primary: str, evidence: Evidence
) -> None:
    """A provider that takes the request and says nothing is given up before the deadline."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(action="stall")], times=None)
    limits = {"FIRST_BYTE_TIMEOUT_SECONDS": "0.5", "DEADLINE_SECONDS": "6", "MAX_ATTEMPTS": "1"}
    with run(**limits) as service, service.client(key) as client:
        response = ask(client)
        requests = sandbox.requests(primary)
        assert len(requests) == 1
        eventually(lambda: requests[0].client_gone)
    assert response.status_code == 503
    # Where only the deadline ends the wait, the code is `deadline_exceeded`.
    assert response.json()["error"]["code"] == "providers_unavailable"
    assert int(response.headers["retry-after"]) >= 1
    seconds = response.elapsed.total_seconds()
    evidence(f"silent {primary} given up after 0.5 s, 503 with Retry-After after {seconds:.1f} s")


@pytest.mark.item("3. Availability", "Is retry logic using exponential backoff?")
def test_retries_use_exponential_backoff(
    run: Run, sandbox: Sandbox, key: str, primary: str, evidence: Evidence
) -> None:
    """A provider that fails is asked again, after waits that grow, and its answer is returned."""
    sandbox.script(primary, [Fault(status=500), Fault(status=500)])
    with run() as service, service.client(key) as client:
        response = ask(client)
    arrived = [request.arrived_at_seconds for request in sandbox.requests(primary)]
    assert len(arrived) == 3, f"{primary} failed twice and was asked {len(arrived)} of 3 times"
    first, second = arrived[1] - arrived[0], arrived[2] - arrived[1]
    waits = f"waits of {first:.2f} s and {second:.2f} s"
    assert 0.4 < first < second, waits
    assert response.status_code == 200
    assert response.headers["x-provider"] == primary
    evidence(f"500, 500, 200 from {primary}; {waits}")


@pytest.mark.item("3. Availability", "Is there a fallback path?")
def test_there_is_a_fallback(
    run: Run, sandbox: Sandbox, key: str, primary: str, evidence: Evidence
) -> None:
    """When a provider is down the next one answers; when none is left, 503 says so."""
    others = [vendor for vendor in sandbox.vendors if vendor != primary]
    with run(MAX_ATTEMPTS="1") as service, service.client(key) as client:
        sandbox.script(primary, [Fault(status=500)], times=None)
        fallen_back = ask(client)
        for vendor in others:
            sandbox.script(vendor, [Fault(status=500)], times=None)
        refused = ask(client)
    if others:
        assert fallen_back.status_code == 200, f"{primary} was down, and nobody stepped in"
        assert fallen_back.headers["x-provider"] in others
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "providers_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    answered = fallen_back.headers.get("x-provider", "nobody else")
    evidence(f"{primary} down: answered by {answered}; all down: 503 with Retry-After")
