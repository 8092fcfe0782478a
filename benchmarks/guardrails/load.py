"""Load by wrk, and the time to a stream's first token, which wrk does not tell."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
CALLERS = 16
"""They take turns, as a service has many. `SERVICE_API_KEYS` is to know them."""
SCRIPT = Path(__file__).with_name("chat.lua")
MISSING = (
    "wrk makes the load, and is not on the PATH. Debian, Ubuntu: apt-get install wrk;"
    " macOS: brew install wrk; its source: https://github.com/wg/wrk"
)
BODY = {
    "model": "gpt-6-luna",
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "What is a bulkhead?"},
    ],
}


class LoadFailed(Exception):
    """There is no figure to be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What callers do: so many connections, each with one request at a time. With `chunks` each
    reply is a stream of so many."""

    name: str
    connections: int
    chunks: int = 0

    def body(self) -> dict[str, Any]:
        return {**BODY, "stream": True, "max_tokens": self.chunks} if self.chunks else BODY


JSON = Load("JSON", 16)
ONE = Load("JSON, one connection", 1)
STREAM = Load("stream", 16, chunks=100)
LOADS = (JSON, ONE, STREAM)


@dataclass(frozen=True, slots=True)
class Measured:
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def callers() -> str:
    """The value of `SERVICE_API_KEYS`."""
    return ",".join(f"caller-{n}:benchmark-key-{n}" for n in range(1, CALLERS + 1))


def find_wrk() -> str:
    """Raises `LoadFailed` with how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadFailed(MISSING)
    return found


def run(url: str, load: Load, seconds: float, *, keyed: bool = True) -> Measured:
    """Raises `LoadFailed` if a single request is refused or broken off."""
    command = [
        find_wrk(),
        *("--threads", "1", "--connections", str(load.connections)),
        # It takes whole seconds.
        *("--duration", f"{max(1, round(seconds))}s", "--timeout", "30s"),
        *("--script", str(SCRIPT), f"{url}{CHAT}", "--"),
        *(json.dumps(load.body()), str(CALLERS), f"{secrets.token_hex(8)}-" if keyed else ""),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise LoadFailed(f"wrk ended with status {told.returncode}: {told.stdout}{told.stderr}")
    return parse(told.stdout)


def parse(output: str) -> Measured:
    """Of wrk's output, what `chat.lua` wrote. Raises `LoadFailed` as `run` does."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadFailed(f"wrk tells no figures: {output}")
    figures = json.loads(lines[-1])
    if figures["not_ok"] or figures["broken"] or not figures["requests"]:
        raise LoadFailed(
            f"Of {figures['requests']} requests {figures['not_ok']} were refused and"
            f" {figures['broken']} were broken off: what is left is no figure of a service that"
            " serves."
        )
    return Measured(
        figures["requests"],
        figures["duration_us"] / 1e6,
        figures["p50_us"] / 1e3,
        figures["p99_us"] / 1e3,
    )


def first_token_ms(url: str, streams: int = 50) -> float:
    """From the request to the first text of a stream, one after the other: the median."""
    return median(_first_tokens(url, streams))


def _first_tokens(url: str, streams: int) -> Iterator[float]:
    body = json.dumps(Load("", 1, chunks=5).body())
    headers = {"authorization": "Bearer benchmark-key-1", "content-type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    for _ in range(streams):
        began = time.perf_counter()
        headers["idempotency-key"] = secrets.token_hex(8)
        connection.request("POST", CHAT, body, headers)
        response = connection.getresponse()
        while b" bulkhead" not in (line := response.readline()):
            if not line:
                raise LoadFailed(f"A stream of {url} ends without text: {response.status}")
        yield 1000 * (time.perf_counter() - began)
        response.read()
    connection.close()
