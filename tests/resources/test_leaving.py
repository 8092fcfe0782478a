"""Callers hang up at any moment: nothing stays reserved, and what was used is paid."""

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import urlsplit

import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from ..service.asking import body, calls
from ..service.serving import Service, eventually
from ..stores import STORES
from .conftest import CENT, Contender

PROVIDER_SECONDS = 0.4
MOMENTS = (0.0, 0.01, 0.05, 0.2, 0.38, 0.4, 0.41, 0.42, 0.45, 0.5, 0.6, 0.8)
"""After which callers leave: before the provider answers, as it does, and after that."""

pytestmark = pytest.mark.xdist_group("leaving")

Running = tuple[Contender, Service]


@pytest.fixture(scope="module", params=STORES)
def running(
    request: pytest.FixtureRequest, contenders: Callable[[str], Contender]
) -> Iterator[Running]:
    """A service that these tests share."""
    contender = contenders(request.param)
    with contender.serve(IDLE_TIMEOUT_SECONDS="1") as service:
        yield contender, service


@pytest.fixture(scope="module")
def request_ids() -> Iterator[str]:
    return (f"leaver-{number}" for number in itertools.count())


def leave(service: Service, key: str, request_id: str, *, after: float, stream: bool) -> None:
    """Sends a whole request, reads nothing, and closes the connection after that many seconds."""
    content = json.dumps(body(request_id, stream=stream)).encode()
    address = urlsplit(service.url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: Bearer {key}\r\nx-request-id: {request_id}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + content)
        time.sleep(after)


def costs(service: Service, request_ids: list[str]) -> list[int]:
    """What each line says that its request has cost, in nano-dollars; each has its line."""

    def found() -> list[dict[str, object]]:
        lines = [line for line in service.lines("request") if line["request_id"] in request_ids]
        return lines if len(lines) == len(request_ids) else []

    return [round(Decimal(str(line.get("cost_usd", 0))) * 10**9) for line in eventually(found)]


@pytest.mark.promise("R4", "R5")
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_who_leaves_at_any_moment_leaves_nothing_reserved(
    running: Running, sandbox: Sandbox, key: str, request_ids: Iterator[str], stream: bool
) -> None:
    """Before, while and after the provider answers: every call is settled, the books say what the
    lines say, and no call that reached the provider is free."""
    contender, service = running
    before = contender.settled_money(service)
    reply = Reply(text="a b c d e f", output_tokens=50, chunks=6, chunk_delay_seconds=0.02)
    sandbox.script("openai", [Fault(delay_seconds=PROVIDER_SECONDS, reply=reply)], times=None)
    ids = list(itertools.islice(request_ids, len(MOMENTS)))
    with ThreadPoolExecutor(len(MOMENTS)) as pool:
        for request_id, after in zip(ids, MOMENTS, strict=True):
            pool.submit(leave, service, key, request_id, after=after, stream=stream)
    charged = costs(service, ids)
    money = contender.settled_money(service)
    assert money.settled - before.settled == sum(charged)
    assert sum(cost > 0 for cost in charged) >= calls(sandbox)
    if not stream:
        # It runs on without its caller, and is paid by its usage.
        assert sum(charged) == calls(sandbox) * 50 * CENT // 100


@pytest.mark.promise("R5")
def test_a_left_json_call_is_paid_by_its_usage(
    running: Running, sandbox: Sandbox, key: str, request_ids: Iterator[str]
) -> None:
    """The call runs on without its caller: it costs what it used, neither nothing nor its worst
    case."""
    contender, service = running
    before = contender.settled_money(service)
    sandbox.script("openai", [Fault(delay_seconds=0.3, reply=Reply(output_tokens=30))])
    leave(service, key, next(request_ids), after=0.1, stream=False)
    eventually(lambda: contender.money(service).settled > before.settled)
    money = contender.settled_money(service)
    assert money.settled - before.settled == 30 * CENT // 100


@pytest.mark.promise("R5")
def test_a_left_stream_is_paid_for_what_came(
    running: Running, sandbox: Sandbox, key: str, request_ids: Iterator[str]
) -> None:
    """The provider's stream is closed, and what it had emitted by then is charged."""
    contender, service = running
    before = contender.settled_money(service)
    words = " ".join(["word"] * 80)
    reply = Reply(text=words, output_tokens=80, chunks=80, chunk_delay_seconds=0.05)
    sandbox.script("openai", [reply])
    leave(service, key, next(request_ids), after=0.6, stream=True)
    eventually(lambda: contender.money(service).settled > before.settled)
    (received,) = sandbox.requests("openai")
    assert eventually(lambda: received.client_gone)
    spent = contender.settled_money(service).settled - before.settled
    assert 3 * CENT // 100 <= spent <= 60 * CENT // 100


@pytest.mark.promise("R5")
@pytest.mark.parametrize("action", ["end", "close", "stall"])
def test_a_broken_stream_is_paid_for_what_came(
    running: Running, sandbox: Sandbox, key: str, action: str
) -> None:
    """However the provider's stream breaks off, what it had emitted is charged, not nothing."""
    contender, service = running
    before = contender.settled_money(service)
    reply = Reply(text=" ".join(["word"] * 40), chunks=40, output_tokens=40)
    fault = {"action": action, "after_chunks": 10, "reply": reply}
    sandbox.script("openai", [Fault(**fault)])  # type: ignore[arg-type]
    with service.http(key).stream(
        "POST", "/v1/chat/completions", json=body(stream=True)
    ) as response:
        text = "".join(response.iter_text())
    assert '"error"' in text and "[DONE]" not in text
    spent = contender.settled_money(service).settled - before.settled
    assert 8 * CENT // 100 <= spent <= 20 * CENT // 100
    assert f"x-cost-usd={spent / 1e9:.9f}".rstrip("0") in text
