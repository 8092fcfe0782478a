"""A caller that leaves: its stream is closed and paid for, its JSON call runs to its end."""

from contextlib import suppress
from typing import Any

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import body, calls
from .serving import Service, eventually

CHAT = "/v1/chat/completions"


def leave(client: httpx.Client, request_id: str, **parameters: Any) -> None:
    """Asks, and closes the connection after a moment without an answer."""
    headers = {"x-request-id": request_id}
    with suppress(httpx.ReadTimeout):
        client.post(CHAT, json=body(**parameters), headers=headers, timeout=0.3)


@pytest.mark.promise("A7")
def test_a_stream_that_is_left_is_closed_and_settled(
    service: Service, key: str, sandbox: Sandbox
) -> None:
    """The upstream is closed soon, what was emitted is charged, and one line tells of it."""
    sandbox.script("openai", [Reply(chunks=500, chunk_delay_seconds=0.02)])
    request = body(stream=True)
    headers = {"x-request-id": "left-in-the-middle"}
    with service.http(key).stream("POST", CHAT, json=request, headers=headers) as response:
        lines = response.iter_lines()
        for _ in range(10):
            next(lines)
    line = service.line_of("left-in-the-middle")
    (received,) = sandbox.requests("openai")
    assert eventually(lambda: received.client_gone)
    assert line["outcome"] == "disconnected"
    assert line["provider"] == "openai"
    assert 0 < line["output_tokens"] < 500
    assert line["cost_usd"] > 0
    # The line does not wait for the store.
    eventually(lambda: service.account(key) == (round(line["cost_usd"] * 1e9), 0))
    assert service.books.balanced


@pytest.mark.promise("A7")
def test_a_stream_that_is_left_before_it_began_is_closed(
    service: Service, key: str, sandbox: Sandbox
) -> None:
    """A caller that leaves before the first chunk ends the call too, and nothing crashes."""
    sandbox.script("openai", [Fault(delay_seconds=20)])
    leave(service.http(key), "left-before-the-first", stream=True)
    line = service.line_of("left-before-the-first")
    (received,) = sandbox.requests("openai")
    assert eventually(lambda: received.client_gone)
    assert line["outcome"] == "disconnected"
    assert (line["level"], line["status"]) == ("info", 499)
    eventually(lambda: service.account(key)[1] == 0)
    assert service.account(key)[0] > 0
    assert "Exception in ASGI application" not in service.output()


def test_a_json_call_that_is_left_runs_on(service: Service, key: str, sandbox: Sandbox) -> None:
    """The call is completed, paid and kept: a repeat with the same key gets its reply."""
    sandbox.script("openai", [Fault(delay_seconds=0.6)])
    client = service.http(key, **{"idempotency-key": "payment-1"})
    leave(client, "left-the-call")
    line = service.line_of("left-the-call")
    assert line["outcome"] == "disconnected"
    assert line["output_tokens"] > 0
    repeat = client.post(CHAT, json=body())
    assert repeat.status_code == 200
    assert repeat.headers["idempotent-replayed"] == "true"
    (received,) = sandbox.requests("openai")
    assert received.complete and not received.client_gone
    assert calls(sandbox) == 1


def test_a_body_that_never_comes_is_logged(service: Service, key: str, sandbox: Sandbox) -> None:
    """A caller that leaves before its body is complete has a line, and reaches no provider."""

    def half_a_body() -> object:
        yield b'{"messages": ['
        raise ConnectionError

    with suppress(ConnectionError):
        service.http(key).post(
            CHAT,
            content=half_a_body(),  # type: ignore[arg-type]
            headers={"x-request-id": "left-half-way", "content-type": "application/json"},
        )
    assert service.line_of("left-half-way")["outcome"] == "disconnected"
    assert calls(sandbox) == 0
