"""Step 1: are all requests logged, and does somebody hear of errors?"""

import httpx

from sandbox.faults import Fault
from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.conftest import Run, Webhook
from tests.running import Service, eventually


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
    lines = [service.line_of(response.headers["x-request-id"]) for response in responses]
    assert [line["status"] for line in lines] == [200, 400, 404, 401]
    assert all(line["duration_ms"] > 0 for line in lines)
    answered = lines[0]
    assert answered["input_tokens"] > 0 and answered["output_tokens"] > 0
    assert answered["cost_usd"] > 0
    evidence(
        f"4 requests (200, 400, 404, 401), 4 lines; the first took {answered['duration_ms']} ms"
    )


def test_errors_raise_alerts(
    run: Run, sandbox: Sandbox, key: str, webhook: Webhook, evidence: Evidence
) -> None:
    """When no provider answers, the webhook is told, and the request's line is an error."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="invalid_api_key")], times=None)
    webhook.messages.clear()
    with run() as service, service.client(key) as client:
        response = ask(client)
        assert response.status_code == 503
        assert service.line_of(response.headers["x-request-id"])["level"] == "error"
        message = eventually(
            lambda: next((text for text in webhook.messages if "providers_down" in text), None)
        )
    evidence(f"webhook received: {message}")
