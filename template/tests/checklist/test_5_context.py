"""Step 5: is the input limited, and is the history managed?"""

import json

import httpx

from sandbox.server import Sandbox
from tests.asking import CHAT, ask
from tests.checklist.conftest import Evidence


def test_the_input_is_limited(client: httpx.Client, sandbox: Sandbox, evidence: Evidence) -> None:
    """An input over the limit is refused with its count, before any provider is called."""
    refused = ask(client, "many words " * 6000)
    assert refused.status_code == 413
    error = refused.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "4000" in error["message"]
    assert all(sandbox.requests(vendor) == [] for vendor in sandbox.vendors)
    evidence(f"413: {error['message']}")


def test_the_history_is_managed(
    client: httpx.Client, sandbox: Sandbox, primary: str, evidence: Evidence
) -> None:
    """Of a long conversation the provider sees the system message and the last turns only."""
    turns = [
        {"role": role, "content": f"{role} turn {number}"}
        for number in range(20)
        for role in ("user", "assistant")
    ]
    system = {"role": "system", "content": "Answer briefly."}
    last = {"role": "user", "content": "And the last question?"}
    response = client.post(CHAT, json={"messages": [system, *turns, last]})
    assert response.status_code == 200
    received = json.dumps(sandbox.requests(primary)[-1].body)
    assert "Answer briefly." in received and "And the last question?" in received
    assert "user turn 0" not in received and "user turn 17" in received
    kept = sum(f"turn {number}" in received for number in range(20))
    evidence(f"of 20 earlier turns the provider saw the last {kept}")
