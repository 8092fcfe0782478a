"""A service that is killed refunds nothing, and one that is told to end finishes first."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import openai

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import QUESTION, ask, body, calls, text_of
from .serving import Project, eventually

KEY = {"Idempotency-Key": "payment-1"}
LEASE_SECONDS = 2.0 + 1.0
"""Of a JSON call's claim: DEADLINE_SECONDS and the policy's margin."""


def test_a_killed_service_refunds_nothing(project: Project, sandbox: Sandbox) -> None:
    """SIGKILL in mid-call: its reservation stays charged, its claim is free after its lease."""
    limits = {"DEADLINE_SECONDS": "2", "FIRST_BYTE_TIMEOUT_SECONDS": "2"}
    sandbox.script("openai", [Fault(action="stall")])
    with project.serve(**limits) as service, ThreadPoolExecutor(1) as pool:
        claimed_after = time.monotonic()
        cut_off = pool.submit(ask, service.sdk("key-of-caller1"), extra_headers=KEY)
        eventually(lambda: calls(sandbox))
        service.signal(signal.SIGKILL)
        assert isinstance(cut_off.exception(), openai.APIConnectionError)
        killed = service.books
    assert (killed.open_operations, killed.running_claims) == (1, 1)
    with project.serve(**limits) as service:
        client = service.sdk("key-of-caller1")

        def repeat() -> str:
            with suppress(openai.ConflictError):
                return text_of(ask(client, extra_headers=KEY))
            return ""

        assert QUESTION in eventually(repeat)
        assert time.monotonic() - claimed_after >= LEASE_SECONDS
        books = service.books
    assert books.balanced
    assert (books.open_operations, books.running_claims) == (1, 0)
    ((day, _), (_, reserved)) = next(i for i in killed.counter.items() if not i[0][1])
    assert books.counter[day, ""] == (books.charged_nano_usd, reserved)
    assert reserved > books.charged_nano_usd > 0


def test_a_service_that_is_told_to_end_answers_first(project: Project, sandbox: Sandbox) -> None:
    """SIGTERM: calls and streams under way are answered, left ones settled; then it is over."""
    sandbox.script(
        "openai",
        [
            Fault(delay_seconds=1),
            Reply(chunks=20, chunk_delay_seconds=0.05),
            Fault(delay_seconds=1.2),
        ],
    )
    with project.serve() as service, ThreadPoolExecutor(3) as pool:
        client = service.sdk("key-of-caller1")
        answer = pool.submit(ask, client)
        eventually(lambda: calls(sandbox) == 1)
        streamed = pool.submit(stream, client)
        eventually(lambda: calls(sandbox) == 2)
        with suppress(httpx.ReadTimeout):
            service.http("key-of-caller2").post("/v1/chat/completions", json=body(), timeout=0.2)
        eventually(lambda: calls(sandbox) == 3)
        service.signal(signal.SIGTERM)
        assert QUESTION in text_of(answer.result())
        assert streamed.result().split()[-1] == "word20"
        assert service.process.wait(10) in (0, -signal.SIGTERM)
        books = service.books
    assert all(request.complete for request in sandbox.requests("openai"))
    assert books.balanced
    assert (books.open_operations, books.running_claims) == (0, 0)
    assert service.lines("stopped")


def stream(client: openai.OpenAI) -> str:
    chunks = client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
