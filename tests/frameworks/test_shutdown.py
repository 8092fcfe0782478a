"""Shutdown passes through each framework."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox

from ..rendering import render, take_snapshot
from ..service.asking import body, calls
from ..service.serving import Project, eventually
from .test_frameworks import frameworks, variables

CHAT = "/v1/chat/completions"
GRACE = {"GRACE_PERIOD_SECONDS": "0.5"}
PATIENT = {
    "FIRST_BYTE_TIMEOUT_SECONDS": "600",
    "IDLE_TIMEOUT_SECONDS": "600",
    "DEADLINE_SECONDS": "600",
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.mark.parametrize("framework", frameworks())
def test_what_outlives_the_grace_period_is_cut_off(
    tmp_path: Path, sandbox: Sandbox, framework: str
) -> None:
    """A stream ends with an error event and without `[DONE]`, a call with 503; both are settled,
    and the service has ended as it should."""
    root = tmp_path / "service"
    render(take_snapshot(tmp_path / "template"), root, {"framework": framework})
    project = Project(root, variables(sandbox), tmp_path / "service.db")
    sandbox.script("openai", [Fault(action="stall"), Fault(action="stall", after_chunks=2)])
    with project.serve(**PATIENT, **GRACE) as service, ThreadPoolExecutor(1) as pool:
        client = service.http("key-of-limited")
        answer = pool.submit(client.post, CHAT, json=body())
        eventually(lambda: calls(sandbox) == 1)
        with client.stream("POST", CHAT, json=body(stream=True)) as response:
            lines = response.iter_lines()
            assert "choices" in event(next(lines))
            service.signal(signal.SIGTERM)
            *_, last = (line for line in lines if line)
        assert event(last)["error"]["code"] == "shutting_down"
        assert answer.result().status_code == 503
        assert answer.result().headers["retry-after"] == "1"
        assert answer.result().json()["error"]["code"] == "shutting_down"
        assert service.process.wait(20) == 0
        books = service.books
    assert books.balanced
    assert (books.open_operations, books.running_claims) == (0, 0)
    assert books.charged_nano_usd > 0
    assert not service.lines("settlements_lost")


def event(line: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return parsed
