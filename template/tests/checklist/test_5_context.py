"""Step 5: is the input limited, and is the history managed?"""

import json

import httpx
import pytest

from sandbox.server import Sandbox
from tests.asking import CHAT, ask
from tests.checklist.conftest import Evidence


@pytest.mark.item("5. Tokens", "Is there input token limit?")
def test_the_input_is_limited(client: httpx.Client, sandbox: Sandbox, evidence: Evidence) -> None:
    """An input over the limit is refused with its count, before any provider is called."""
    refused = ask(client, "many words " * 6000)
    assert refused.status_code == 413, f"an input over the limit got {refused.status_code}"
    error = refused.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "4000" in error["message"]
    assert all(sandbox.requests(vendor) == [] for vendor in sandbox.vendors)
    evidence(f"413: {error['message']}")


@pytest.mark.item("5. Tokens", "Is there history management logic?")
def test_the_history_is_managed(
    client: httpx.Client, sandbox: Sandbox, primary: str, evidence: Evidence
) -> None:
    """Of a long conversation the provider sees the system message and the last turns only."""
    count = 20
    turns = [
        {"role": role, "content": f"{role} turn {number}"}
        for number in range(count)
        for role in ("user", "assistant")
    ]
    system = {"role": "system", "content": "Answer briefly."}
    last = {"role": "user", "content": "And the last question?"}
    response = client.post(CHAT, json={"messages": [system, *turns, last]})
    assert response.status_code == 200
    received = json.dumps(sandbox.requests(primary)[-1].body)
    assert "Answer briefly." in received
    assert "And the last question?" in received
    seen = [number for number in range(count) if f'user turn {number}"' in received]
    assert 0 < len(seen) < count, f"of {count} earlier turns the provider saw {len(seen)}"
    assert seen == list(range(count - len(seen), count))
    evidence(f"of {count} earlier turns the provider saw the last {len(seen)}")
