"""A service that is killed refunds nothing, and one that is told to end finishes first."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import openai
import psutil
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from ..processes import family_of, is_running
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


@pytest.mark.promise("A8")
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
        assert service.process.wait(10) == 0
        books = service.books
    assert all(request.complete for request in sandbox.requests("openai"))
    assert books.balanced
    assert (books.open_operations, books.running_claims) == (0, 0)
    assert service.lines("stopped")


@pytest.mark.promise("A8")
def test_a_service_that_is_told_to_end_serves_on_for_a_moment(
    project: Project, sandbox: Sandbox
) -> None:
    """SIGTERM: readiness fails at once, and until the delay is over new requests are answered, on
    connections that nobody is to keep."""
    with project.serve(SHUTDOWN_DELAY_SECONDS="600") as service:
        client = service.http("key-of-caller1")
        assert "connection" not in client.get("/readyz").headers
        service.signal(signal.SIGTERM)
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json() == {"status": "shutting_down"}
        response = client.post("/v1/chat/completions", json=body())
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert client.get("/livez").status_code == 200
    assert calls(sandbox) == 1


@pytest.mark.promise("A8")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_service_at_once(
    project: Project, sandbox: Sandbox, workers: str, second: signal.Signals
) -> None:
    """It does not wait for a stream that hangs, whose reservation stays charged and whose claim
    stays, as if the service had been killed."""
    sandbox.script("openai", [Fault(action="stall", after_chunks=2)])
    patient = {"IDLE_TIMEOUT_SECONDS": "600", "GRACE_PERIOD_SECONDS": "600"}
    with project.serve(WORKERS=workers, **patient) as service, ThreadPoolExecutor(1) as pool:
        eventually(lambda: len(service.lines("started")) == int(workers))
        everyone = family_of(service.process.pid)
        cut_off = pool.submit(stream, service.sdk("key-of-caller1", timeout=60), KEY)
        eventually(lambda: calls(sandbox))
        service.signal(signal.SIGTERM)
        eventually(lambda: len(service.lines("stopping")) == int(workers))
        signalled = time.monotonic()
        service.signal(second)
        assert service.process.wait(10) == 128 + second
        eventually(lambda: not any(is_running(process) for process in everyone))
        assert time.monotonic() - signalled < 5
        assert isinstance(cut_off.exception(), httpx.TransportError | openai.APIConnectionError)
        books = service.books
    assert not service.lines("stopped")
    assert (books.open_operations, books.running_claims) == (1, 1)
    assert all(reserved > 0 for _, reserved in books.counter.values())


@pytest.mark.promise("A8")
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)])
def test_a_signal_to_all_processes_counts_once(
    project: Project, sandbox: Sandbox, signals: tuple[signal.Signals, ...]
) -> None:
    """A terminal sends Ctrl-C to the workers as well, and systemd SIGTERM: their parent sends
    SIGTERM once more, and still they answer first."""
    sandbox.script("openai", [Reply(chunks=20, chunk_delay_seconds=0.1)])
    with project.serve(WORKERS="2") as service, ThreadPoolExecutor(1) as pool:
        eventually(lambda: len(service.lines("started")) == 2)
        parent, *workers = family_of(service.process.pid)
        streamed = pool.submit(stream, service.sdk("key-of-caller1"))
        eventually(lambda: calls(sandbox))
        for number in signals:
            send(number, workers)
        parent.send_signal(signals[0])
        assert streamed.result().split()[-1] == "word20"
        assert service.process.wait(10) == 0
        eventually(lambda: not any(is_running(process) for process in workers))
        books = service.books
    assert len(service.lines("stopped")) == 2
    assert (books.open_operations, books.running_claims) == (0, 0)


def send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        process.send_signal(number)


def stream(client: openai.OpenAI, headers: dict[str, str] | None = None) -> str:
    chunks = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        extra_headers=headers,
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
