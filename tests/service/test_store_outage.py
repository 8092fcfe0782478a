"""When the store does not answer, callers are told in time; when it is back, all goes on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import openai

from sandbox.faults import Fault
from sandbox.server import Sandbox

from .asking import QUESTION, ask, calls, text_of
from .serving import Service, eventually

HOLD_THE_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the file's lock until the block ends."""
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(10)


def transitions(service: Service) -> list[str]:
    return [line["event"] for line in service.lines("store_unreachable", "store_reachable")]


def test_callers_are_told_in_time(
    service: Service, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """While the file is locked: 503 within 5 s each; recovery by itself; one line for either."""
    assert transitions(service) == []
    with locked(service.store), ThreadPoolExecutor(4) as pool:
        started = time.monotonic()
        attempts = [pool.submit(ask, client) for _ in range(4)]
        failures = [attempt.exception() for attempt in attempts]
        assert time.monotonic() - started < 5
        for failure in failures:
            assert isinstance(failure, openai.InternalServerError)
            assert (failure.status_code, failure.code) == (503, "store_unavailable")
            assert int(failure.response.headers["retry-after"]) >= 1
        assert service.http().get("/livez").status_code == 200
        assert service.http().get("/readyz").status_code == 200
        assert transitions(service) == ["store_unreachable"]
    assert calls(sandbox) == 0
    assert QUESTION in text_of(ask(client))
    assert transitions(service) == ["store_unreachable", "store_reachable"]


def test_a_settlement_that_cannot_be_written_is_kept(
    service: Service, key: str, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """A call under way when the store goes is answered, and settled when the store is back."""
    told = len(transitions(service))
    sandbox.script("openai", [Fault(delay_seconds=0.5)])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client, extra_headers={"Idempotency-Key": "payment-1"})
        eventually(lambda: calls(sandbox))
        with locked(service.store):
            assert QUESTION in text_of(answer.result())
            assert service.account(key)[0] == 0
            assert len(transitions(service)) == told + 1
    eventually(lambda: service.account(key)[0])
    assert service.account(key)[1] == 0
    assert service.books.balanced
    assert len(eventually(lambda: transitions(service)[told + 1 :])) == 1
    ask(client, extra_headers={"Idempotency-Key": "payment-1"})
    assert calls(sandbox) == 1
