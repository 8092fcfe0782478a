"""What OpenAI's SDK makes of a budget that is spent."""

import openai
import pytest

from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import ask, calls
from .serving import Project


def test_a_spent_budget_is_not_asked_again(project: Project, sandbox: Sandbox) -> None:
    """The SDK takes the refusal for an answer: it does not retry what waiting will not mend."""
    sandbox.script("openai", [Reply(output_tokens=100)], times=None)
    with project.serve(
        PROVIDERS="openai",
        OPENAI_INPUT_USD_PER_MTOK="0",
        OPENAI_OUTPUT_USD_PER_MTOK="100",
        MAX_OUTPUT_TOKENS="100",
        # An answer costs a cent.
        DAILY_BUDGET_USD="0.055",
    ) as service:
        client = service.sdk("key-of-caller3", max_retries=2)
        with pytest.raises(openai.InternalServerError) as failure:
            for _ in range(10):
                ask(client)
        assert failure.value.code == "daily_budget_exhausted"
        assert failure.value.response.headers["x-should-retry"] == "false"
        service.line_of(failure.value.response.headers["x-request-id"])
        statuses = [line["status"] for line in service.lines("request") if line["caller"] != "-"]
    assert statuses == [200] * 5 + [503]
    assert calls(sandbox) == 5
