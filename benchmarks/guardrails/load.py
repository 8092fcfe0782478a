"""Load by wrk, and the time to a stream's first token, which wrk does not tell."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from .upstream import CONTENT

CHAT = "/v1/chat/completions"
KEYS = tuple(f"benchmark-key-{n}" for n in range(1, 17))
"""Their callers take turns, as a service has many. `SERVICE_API_KEYS` is to know them."""
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
class Callers:
    """Who asks: each with a key of its own, and all with the same further headers."""

    keys: Sequence[str] = KEYS
    headers: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, prefix: str) -> list[str]:
        """As `chat.lua` takes them; with `prefix` each `Idempotency-Key` begins."""
        return [",".join(self.keys), prefix, *(f"{n}: {v}" for n, v in self.headers.items())]

    def first(self) -> dict[str, str]:
        """The headers of a request of the first of them."""
        return {
            **self.headers,
            "authorization": f"Bearer {self.keys[0]}",
            "content-type": "application/json",
            "idempotency-key": secrets.token_hex(8),
        }


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
    return ",".join(f"caller-{n}:{key}" for n, key in enumerate(KEYS, 1))


def find_wrk() -> str:
    """Raises `LoadFailed` with how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadFailed(MISSING)
    return found


def run(
    url: str, load: Load, seconds: float, callers: Callers | None = None, *, keyed: bool = True
) -> Measured:
    """Raises `LoadFailed` if a single request is refused or broken off."""
    command = [
        find_wrk(),
        *("--threads", "1", "--connections", str(load.connections)),
        # It takes whole seconds.
        *("--duration", f"{max(1, round(seconds))}s", "--timeout", "30s"),
        *("--script", str(SCRIPT), f"{url}{CHAT}", "--"),
        json.dumps(load.body()),
        *(callers or Callers()).arguments(f"{secrets.token_hex(8)}-" if keyed else ""),
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


def check(url: str, callers: Callers | None = None) -> None:
    """Raises `LoadFailed` unless both forms of a reply are those of the provider's stand-in."""
    whole, stream = JSON, Load("", 1, chunks=5)
    with closing(_connect(url)) as connection:
        for load, text, times in ((whole, CONTENT, 1), (stream, " bulkhead", stream.chunks)):
            response = _ask(connection, load, callers or Callers())
            said = response.read().decode(errors="replace")
            if response.status != 200 or said.count(text) != times:
                raise LoadFailed(
                    f"instead of the stand-in's {'stream' if load.chunks else 'reply'} it answers"
                    f" {response.status}: {said}"
                )


def first_token_ms(url: str, callers: Callers | None = None, streams: int = 50) -> float:
    """From the request to the first text of a stream, one after the other: the median."""
    return median(_first_tokens(url, callers or Callers(), streams))


def _first_tokens(url: str, callers: Callers, streams: int) -> Iterator[float]:
    with closing(_connect(url)) as connection:
        for _ in range(streams):
            began = time.perf_counter()
            response = _ask(connection, Load("", 1, chunks=5), callers)
            while b" bulkhead" not in (line := response.readline()):
                if not line:
                    raise LoadFailed(f"A stream of {url} ends without text: {response.status}")
            yield 1000 * (time.perf_counter() - began)
            response.read()


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)


def _ask(
    connection: http.client.HTTPConnection, load: Load, callers: Callers
) -> http.client.HTTPResponse:
    connection.request("POST", CHAT, json.dumps(load.body()), callers.first())
    return connection.getresponse()
