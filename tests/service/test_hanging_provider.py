"""One provider hangs and its bulkhead is full: nobody else notices.

What it costs others is measured by `python -m benchmarks.hanging_provider`.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from app.policy import MAX_CONCURRENT_CALLS as PLACES
from sandbox.faults import Fault
from sandbox.server import Sandbox

from .asking import body
from .serving import Project, Service, eventually

CHAT = "/v1/chat/completions"
WAITING = 16
HANGING_SECONDS = 60
"""How long a call to the provider may hang."""
SOON_SECONDS = 5.0
REPEATED = {"idempotency-key": "asked-before"}


def ask_other(service: Service, model: str, **headers: str) -> float:
    response = service.http("key-of-caller1", **headers).post(CHAT, json=body(model=model))
    assert (response.status_code, response.headers["x-provider"]) == (200, "anthropic")
    return time.monotonic()


def stream_other(service: Service, model: str) -> float:
    """Up to the first token."""
    request = body(model=model, stream=True)
    with service.http("key-of-caller1").stream("POST", CHAT, json=request) as response:
        assert next(response.iter_lines()).startswith("data: ")
        return time.monotonic()


def replay(service: Service, model: str) -> float:
    client = service.http("key-of-caller1", **REPEATED)
    response = client.post(CHAT, json=body(model=model))
    assert response.headers["idempotent-replayed"] == "true"
    return time.monotonic()


def probe(path: str) -> Callable[[Service, str], float]:
    def ask(service: Service, _: str) -> float:
        assert service.http().get(path).status_code == 200
        return time.monotonic()

    return ask


@contextmanager
def streams(service: Service, model: str, number: int) -> Iterator[None]:
    """So many are asked for in the block, at the end of which their callers leave."""
    address = urlsplit(service.url)
    content = json.dumps(body(model=model, stream=True)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: {address.netloc}\r\n"
        "authorization: Bearer key-of-caller2\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with ExitStack() as stack:
        for _ in range(number):
            connection = socket.create_connection((str(address.hostname), address.port or 80))
            stack.enter_context(connection).sendall(head.encode() + content)
        yield


def in_flight(service: Service) -> float:
    metrics = service.http().get("/metrics").text.splitlines()
    (line,) = (line for line in metrics if line.startswith("http_requests_in_flight "))
    # The one that asks is one of them.
    return float(line.split()[1]) - 1


@pytest.mark.promise("A6")
def test_a_full_bulkhead_is_one_providers_own(project: Project, sandbox: Sandbox) -> None:
    """While every place at a provider that hangs is taken and more calls wait for one, another
    provider answers and streams, replays and probes come, each well within the limit of those
    that hang; and no call beyond its places has reached the provider."""
    settings = {
        "FIRST_BYTE_TIMEOUT_SECONDS": str(HANGING_SECONDS),
        "DEADLINE_SECONDS": str(HANGING_SECONDS),
        "RATE_LIMIT_REQUESTS": "1000",
    }
    sandbox.script("openai", [Fault(action="stall")], times=None)
    asks: list[Callable[[Service, str], float]] = [
        ask_other,
        stream_other,
        replay,
        probe("/livez"),
        probe("/readyz"),
    ]
    with project.serve(**settings) as service:
        models = [model.id for model in service.sdk("key-of-caller1").models.list()]
        hanging, other = (
            next(model for model in models if model.startswith(f"{provider}/"))
            for provider in ("openai", "anthropic")
        )
        ask_other(service, other, **REPEATED)
        with streams(service, hanging, PLACES + WAITING):
            eventually(lambda: in_flight(service) == PLACES + WAITING)
            eventually(lambda: len(sandbox.requests("openai")) >= PLACES)
            for ask in asks:
                started = time.monotonic()
                assert ask(service, other) - started < SOON_SECONDS
            assert in_flight(service) == PLACES + WAITING
            assert len(sandbox.requests("openai")) == PLACES
        eventually(lambda: in_flight(service) == 0)
        assert service.account("key-of-caller2")[1] == 0
