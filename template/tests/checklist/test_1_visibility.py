"""Step 1: are all requests logged, and does somebody hear of errors?"""

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.conftest import Run, Webhook
from tests.running import Service, eventually


@pytest.mark.item("1. Visibility", "Are all API requests logged?")
def test_all_api_requests_are_logged(
    service: Service, client: httpx.Client, evidence: Evidence
) -> None:
    """Each request leaves one line with status, duration and request id, refused ones too."""
    responses = [
        ask(client),
        client.post("/v1/chat/completions", content=b"{"),
        client.get("/no-such-route"),
        httpx.post(f"{service.url}/v1/chat/completions", json={}, trust_env=False),
    ]
    ids = [response.headers["x-request-id"] for response in responses]
    lines = [service.line_of(request_id) for request_id in ids]
    assert [line["status"] for line in lines] == [200, 400, 404, 401]
    assert sum(line["request_id"] in ids for line in service.lines("request")) == len(ids)
    assert all(line["duration_ms"] > 0 for line in lines)
    answered = lines[0]
    assert answered["input_tokens"] > 0 and answered["output_tokens"] > 0
    assert answered["cost_usd"] > 0
    evidence(
        f"4 requests (200, 400, 404, 401), 4 lines; the first took {answered['duration_ms']} ms"
    )


@pytest.mark.item("1. Visibility", "Do you get alerts on errors?")
def test_errors_raise_alerts(
    run: Run, sandbox: Sandbox, key: str, webhook: Webhook, evidence: Evidence
) -> None:
    """When no provider answers, the webhook is told."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="invalid_api_key")], times=None)
    webhook.messages.clear()
    with run() as service, service.client(key) as client:
        ask(client)
        message = eventually(
            lambda: next((text for text in webhook.messages if "providers_down" in text), None)
        )
    evidence(f"webhook received: {message}")
