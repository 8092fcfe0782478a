"""Your endpoints. This file is yours: an update of the template never touches it."""

import httpx

from sandbox.server import Sandbox
from tests.running import Service


def test_a_text_is_summarized(client: httpx.Client, sandbox: Sandbox, primary: str) -> None:
    """The endpoint answers with what the model says, and names the provider."""
    response = client.post("/v1/summaries", json={"text": "A long text about guardrails."})
    assert response.status_code == 200
    assert response.json()["provider"] == primary
    assert len(sandbox.requests(primary)) == 1


def test_the_endpoint_is_guarded(service: Service, client: httpx.Client) -> None:
    """Without a key nobody gets in, and an input over the limit is refused."""
    text = {"text": "many words " * 6000}
    assert httpx.post(f"{service.url}/v1/summaries", json=text, trust_env=False).status_code == 401
    assert client.post("/v1/summaries", json=text).status_code == 413
