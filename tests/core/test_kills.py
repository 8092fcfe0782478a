"""A worker may be killed at any moment: what it sent stays charged, and it is in nobody's way."""

import base64
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from app import policy
from app.guardrails.resources.idempotency import claim_for
from app.storage.base import Store
from app.storage.memory import EVERYONE
from sandbox.faults import Fault
from sandbox.server import Sandbox

from ..rendering import ROOT
from .assembly import DEADLINE_SECONDS, STREAM_MAX_SECONDS, caller
from .backends import Backend, Books
from .stores.asking import reason, request, reservation

pytestmark = [pytest.mark.anyio, pytest.mark.promise("R4")]

KILLED = -signal.SIGKILL
LEASES = {
    "json": DEADLINE_SECONDS + policy.CLAIM_MARGIN_SECONDS,
    "stream": DEADLINE_SECONDS + STREAM_MAX_SECONDS + policy.CLAIM_MARGIN_SECONDS,
}

Die = Callable[..., int]


@pytest.fixture(scope="module")
def dying() -> Iterator[subprocess.Popen[str]]:
    """The process that the calls die in; it is ready before the first of them."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.core.dying"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'template'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.fixture
def die(dying: subprocess.Popen[str], sandbox: Sandbox) -> Die:
    """Runs one call to the place where it dies; its exit status, 0 when it did not come there."""

    def run(backend: Backend, **how: Any) -> int:
        assert dying.stdin is not None and dying.stdout is not None
        connect = base64.b64encode(pickle.dumps(backend.connect)).decode()
        asked = {"connect": connect, "variables": sandbox.environment(), **how}
        dying.stdin.write(json.dumps(asked) + "\n")
        dying.stdin.flush()
        return int(json.loads(dying.stdout.readline()))

    return run


CALLS = [
    pytest.param("json", False, [], id="json"),
    pytest.param("json", False, [Fault(status=500)], id="json-retried"),
    pytest.param("json", True, [], id="json-summarised"),
    pytest.param("stream", False, [], id="stream"),
    pytest.param("stream", False, [Fault(action="close")], id="stream-retried"),
]


@pytest.mark.parametrize(("form", "long", "faults"), CALLS)
async def test_killed_at_any_await(
    die: Die, shared_backend: Backend, sandbox: Sandbox, form: str, long: bool, faults: list[Fault]
) -> None:
    """Killed at each await of a call in turn: the books balance, what was sent stays charged, and
    the claim is free once its lease is over."""
    await walk(partial(die, place="await"), shared_backend, sandbox, form, long, faults)


@pytest.mark.parametrize(("form", "long", "faults"), CALLS)
async def test_killed_at_any_statement(
    die: Die, sqlite: Backend, sandbox: Sandbox, form: str, long: bool, faults: list[Fault]
) -> None:
    """The same at each of SQLite's statements: a step is taken as a whole or not at all."""
    await walk(partial(die, place="statement"), sqlite, sandbox, form, long, faults)


async def walk(
    die: Die, backend: Backend, sandbox: Sandbox, form: str, long: bool, faults: list[Fault]
) -> None:
    """One death after another, each a step further on, until a call comes through."""
    store = backend.connect()
    await store.open()
    told: set[str] = set()
    status, at = KILLED, 0
    while status == KILLED:
        at += 1
        key = f"key-{at}"
        sandbox.reset()
        sandbox.script("openai", faults)
        committed = _committed(backend.books())
        status = die(backend, form=form, long=long, at=at, key=key)
        assert status in (KILLED, 0), at
        books = backend.books()
        assert books.balanced, at
        assert _committed(books) > committed or not sandbox.requests("openai"), at
        first = await _repeat(store, form, key)
        told.add(first)
        if first == "in_flight":
            assert await _repeat(store, form, key, later_seconds=LEASES[form]) == "admitted", at
    await store.close()
    # It came by before the claim was taken, while it was held, and after the reply was kept.
    assert told == {"admitted", "in_flight", "replay"}


async def _repeat(store: Store, form: str, key: str, *, later_seconds: float = 0) -> str:
    """What the same request is told, that much later."""
    now = time.time() + later_seconds
    claim = claim_for(caller(key=key), "retries", LEASES[form])
    asked = request("ada", claim=claim, reserve=reservation(0, moment=now))
    return reason(await store.admit(asked, now=now))


def _committed(books: Books) -> int:
    return sum(sum(sums) for (_, who), sums in books.counter.items() if who == EVERYONE)
