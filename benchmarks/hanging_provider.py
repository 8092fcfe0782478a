"""What a provider that hangs costs those who do not ask it.

`python -m benchmarks.hanging_provider [--rounds N]`. The provider's bulkhead is full and more calls
wait for a place; meanwhile another provider, replays and probes are asked one after the other. The
same without a hanging call is measured beside it, in turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.rendering import Environment, render, service, stand_ins, take_snapshot

CHAT = "/v1/chat/completions"
HANGING, OTHER = "openai", "anthropic"
PLACES = 64
"""MAX_CONCURRENT_CALLS of a service's policy."""
WAITING = 36
"""Calls beyond it."""
ASKED = 200
"""Requests of each kind in each half of a round."""
SETTLE_SECONDS = 30.0
SETTINGS = {
    "ENVIRONMENT": "development",
    "LOG_FORMAT": "json",
    "SERVICE_API_KEYS": "benchmark:benchmark-key",
    "RATE_LIMIT_REQUESTS": "100000",
    "DAILY_BUDGET_USD": "100000",
    "DAILY_BUDGET_PER_CALLER_USD": "100000",
    # Nothing that hangs ends before it is told to.
    "FIRST_BYTE_TIMEOUT_SECONDS": "3600",
    "DEADLINE_SECONDS": "3600",
}
HEADERS = {"authorization": "Bearer benchmark-key", "content-type": "application/json"}
REPEATED = {**HEADERS, "idempotency-key": "asked-before"}

Seconds = Mapping[str, Sequence[float]]
"""How long each request of a kind took."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hanging_provider")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="hanging-provider-") as folder, ExitStack() as stack:
        stage = set_up(Path(folder), stack)
        stage.measure()  # what is only slow the first time
        idle: list[Seconds] = []
        hanging: list[Seconds] = []
        for number in range(rounds):
            # Whatever drifts meets both halves alike.
            for half in (idle, hanging) if number % 2 == 0 else (hanging, idle):
                with stage.hanging_calls(PLACES + WAITING if half is hanging else 0):
                    half.append(stage.measure())
    print_table(idle, hanging)
    return 0


def set_up(folder: Path, stack: ExitStack) -> Stage:
    """A service with the default answers, and its stand-ins, each a process of its own."""
    project = folder / "service"
    render(take_snapshot(folder / "template"), project, {})
    environment = Environment(Path(sys.prefix))
    sandbox = stack.enter_context(stand_ins(environment, project))
    variables = {**SETTINGS, **sandbox.variables, "SQLITE_PATH": str(folder / "service.db")}
    running = stack.enter_context(service(environment, project, variables, folder / "log"))
    client = stack.enter_context(httpx.Client(trust_env=False, timeout=60))
    answer = client.get(f"{running.url}/v1/models", headers=HEADERS).raise_for_status()
    pinned = {
        name.partition("/")[0]: name for name in (model["id"] for model in answer.json()["data"])
    }
    return Stage(running.url, sandbox.url, client, pinned[HANGING], pinned[OTHER])


@dataclass(frozen=True, slots=True)
class Stage:
    """The service under measurement. `client` is for what is not measured."""

    url: str
    sandbox: str
    client: httpx.Client
    hanging_model: str
    other_model: str

    def measure(self) -> Seconds:
        """Each kind of request in turn, one at a time over one connection."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        _post(connection, self.other_model, headers=REPEATED)
        for _ in range(ASKED):
            for kind, ask in KINDS.items():
                started = time.perf_counter()
                seconds[kind].append(ask(connection, self.other_model) - started)
        connection.close()
        return seconds

    @contextmanager
    def hanging_calls(self, number: int) -> Iterator[None]:
        """So many calls to the provider that hangs are under way, up to its bulkhead's places at
        the provider; when the block ends, their callers leave."""
        self.client.delete(f"{self.sandbox}/_sandbox").raise_for_status()
        script = {"vendor": HANGING, "faults": [{"action": "stall"}], "times": None}
        self.client.post(f"{self.sandbox}/_sandbox/faults", json=script).raise_for_status()
        address = urlsplit(self.url)
        # A stream's call ends when its caller leaves; another would run on.
        body = json.dumps(_body(self.hanging_model, stream=True)).encode()
        fields = {"host": address.netloc, **HEADERS, "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with ExitStack() as stack:
            for _ in range(number):
                place = (str(address.hostname), address.port or 80)
                caller = stack.enter_context(socket.create_connection(place))
                caller.sendall(f"POST {CHAT} HTTP/1.1\r\n{head}\r\n".encode() + body)
            self._wait_for(in_flight=number, received=min(number, PLACES))
            yield
            self._wait_for(in_flight=number, received=min(number, PLACES))
        self._wait_for(in_flight=0)

    def _wait_for(self, *, in_flight: int, received: int | None = None) -> None:
        """Until so many requests run, and so many have come to the provider that hangs."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            running, hanging = self._seen()
            if running == in_flight and received in (None, hanging):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{running} requests run and {hanging} hang, not {in_flight} and {received}."
                )
            time.sleep(0.02)

    def _seen(self) -> tuple[int, int]:
        metrics = self.client.get(f"{self.url}/metrics").text.splitlines()
        (line,) = (line for line in metrics if line.startswith("http_requests_in_flight "))
        received = self.client.get(f"{self.sandbox}/_sandbox/requests").json()
        # One of those that run is the one that asks.
        return int(float(line.split()[1])) - 1, received[HANGING]["count"]


# The requests that are measured. Each returns the moment at which it has what it waits for.


def ask_other(connection: http.client.HTTPConnection, model: str) -> float:
    return _post(connection, model)


def stream_other(connection: http.client.HTTPConnection, model: str) -> float:
    """Up to the first token."""
    content = json.dumps(_body(model, stream=True))
    connection.request("POST", CHAT, content, HEADERS)
    response = connection.getresponse()
    while not (line := response.readline()).startswith(b"data: "):
        _require(line, "a stream has a first token")
    moment = time.perf_counter()
    _require(response.read().endswith(b"data: [DONE]\n\n"), "a stream is whole")
    return moment


def replay(connection: http.client.HTTPConnection, model: str) -> float:
    return _post(connection, model, headers=REPEATED, replayed=True)


def probe(path: str) -> Callable[[http.client.HTTPConnection, str], float]:
    def ask(connection: http.client.HTTPConnection, _: str) -> float:
        connection.request("GET", path)
        return _answered(connection.getresponse())

    return ask


KINDS: Mapping[str, Callable[[http.client.HTTPConnection, str], float]] = {
    "another provider, JSON": ask_other,
    "another provider, first token of a stream": stream_other,
    "replay by `Idempotency-Key`": replay,
    "`/livez`": probe("/livez"),
    "`/readyz`": probe("/readyz"),
}


def _post(
    connection: http.client.HTTPConnection,
    model: str,
    *,
    headers: Mapping[str, str] = HEADERS,
    replayed: bool = False,
) -> float:
    connection.request("POST", CHAT, json.dumps(_body(model)), dict(headers))
    response = connection.getresponse()
    moment = _answered(response)
    if replayed:
        _require(response.headers["idempotent-replayed"] == "true", "a repeat is a replay")
    return moment


def _answered(response: http.client.HTTPResponse) -> float:
    response.read()
    _require(response.status == 200, f"a request is answered, not refused: {response.status}")
    return time.perf_counter()


def _body(model: str, **parameters: Any) -> dict[str, Any]:
    question = {"role": "user", "content": "What is a bulkhead?"}
    return {"model": model, "messages": [question], **parameters}


def _require(condition: object, claim: str) -> None:
    if not condition:
        raise RuntimeError(f"It does not hold that {claim}.")


# What is printed


def print_table(idle: Sequence[Seconds], hanging: Sequence[Seconds]) -> None:
    """Milliseconds, and how many times as long; each the median over the rounds."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; {len(idle)} rounds of {ASKED} requests of each kind\n")
    columns = ("median", "p99", "hanging: median", "p99", "ratio: median", "p99")
    print(f"| | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * len(columns)}")
    for kind in KINDS:
        rounds = [
            _row(before[kind], during[kind]) for before, during in zip(idle, hanging, strict=True)
        ]
        *seconds, median_ratio, p99_ratio = map(median, zip(*rounds, strict=True))
        cells = [*(f"{1000 * s:.2f}" for s in seconds), f"{median_ratio:.2f}", f"{p99_ratio:.2f}"]
        print(f"| {kind} | {' | '.join(cells)} |")


def _row(before: Sequence[float], during: Sequence[float]) -> tuple[float, ...]:
    """Of one round."""
    figures = [(median(times), quantiles(times, n=100)[-1]) for times in (before, during)]
    (median_before, p99_before), (median_during, p99_during) = figures
    ratios = (median_during / median_before, p99_during / p99_before)
    return (median_before, p99_before, median_during, p99_during, *ratios)


if __name__ == "__main__":
    sys.exit(main())
