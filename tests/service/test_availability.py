"""A provider that fails is retried with growing waits, then left for the next."""

from itertools import pairwise

import openai
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox

from .asking import QUESTION, ask, text_of
from .serving import Service, eventually


@pytest.mark.promise("A3", "A4")
def test_errors_are_retried_and_then_left(
    service: Service, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """500 three times, after waits that grow; then the next provider answers, and is named."""
    sandbox.script("openai", [Fault(status=500)], times=None)
    response = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": QUESTION}]
    )
    assert response.headers["x-provider"] == "anthropic"
    assert QUESTION in text_of(response.parse())
    arrivals = [request.arrived_at_seconds for request in sandbox.requests("openai")]
    first, second = (later - earlier for earlier, later in pairwise(arrivals))
    assert 0.4 < first < second
    assert len(sandbox.requests("anthropic")) == 1
    line = service.line_of(response.headers["x-request-id"])
    assert [attempt["provider"] for attempt in line["attempts"]] == ["openai"] * 3 + ["anthropic"]


def test_a_failed_attempt_stays_charged(
    service: Service, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """What an attempt that ended in 500 may have cost is on the bill, beside the reply's cost."""
    plain = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": QUESTION}]
    )
    sandbox.script("openai", [Fault(status=500)])
    retried = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": QUESTION}]
    )
    cost, dearer = (
        service.line_of(response.headers["x-request-id"])["cost_usd"]
        for response in (plain, retried)
    )
    assert dearer > 2 * cost > 0


@pytest.mark.promise("A6")
def test_a_slow_provider_leaves_the_rest_fast(
    service: Service, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """While one provider is silent, the probes and the other provider's callers are served."""
    sandbox.script("openai", [Fault(delay_seconds=1)])
    pinned = next(model.id for model in client.models.list() if model.id.startswith("anthropic/"))
    impatient = service.sdk("key-of-caller98", timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        ask(impatient)
    assert QUESTION in text_of(
        client.chat.completions.create(
            model=pinned, messages=[{"role": "user", "content": QUESTION}]
        )
    )
    probe = service.http().get("/livez")
    assert probe.status_code == 200
    assert probe.elapsed.total_seconds() < 2
    assert service.account("key-of-caller98")[1] > 0
    eventually(lambda: service.account("key-of-caller98")[1] == 0)
