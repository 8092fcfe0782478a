"""Step 3: do external calls time out, are they retried with growing waits, is there a fallback?"""

import time

from sandbox.faults import Fault
from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.conftest import Run


def test_external_calls_time_out(
    run: Run, sandbox: Sandbox, key: str, primary: str, evidence: Evidence
) -> None:
    """A provider that takes the request and says nothing does not hold the caller up."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(action="stall")], times=None)
    with run(FIRST_BYTE_TIMEOUT_SECONDS="0.5", DEADLINE_SECONDS="5") as service:
        with service.client(key) as client:
            started = time.monotonic()
            response = ask(client)
            seconds = time.monotonic() - started
        line = service.line_of(response.headers["x-request-id"])
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert line["attempts"][0]["outcome"] == "ProviderTimeout"
    assert seconds < 10
    evidence(f"silent provider given up after 0.5 s, answered 503 within {seconds:.1f} s")


def test_retries_use_exponential_backoff(
    run: Run, sandbox: Sandbox, key: str, primary: str, evidence: Evidence
) -> None:
    """A provider that fails is asked again, after waits that grow, and its answer is returned."""
    sandbox.script(primary, [Fault(status=500), Fault(status=500)])
    with run() as service, service.client(key) as client:
        response = ask(client)
    assert response.status_code == 200
    assert response.headers["x-provider"] == primary
    arrived = [request.arrived_at_seconds for request in sandbox.requests(primary)]
    assert len(arrived) == 3
    first, second = arrived[1] - arrived[0], arrived[2] - arrived[1]
    assert 0.4 < first < second
    evidence(f"500, 500, 200 from {primary}; waits of {first:.2f} s and {second:.2f} s")


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
        assert fallen_back.status_code == 200
        assert fallen_back.headers["x-provider"] in others
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "providers_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    answered = fallen_back.headers.get("x-provider", "nobody else")
    evidence(f"{primary} down: answered by {answered}; all down: 503 with Retry-After")
