"""Runs the service and reads what it answers and logs.

`start` does it as its owner does, `python -m app`; `running` forks it where that can be done.
"""

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import httpx

from tests.forks import CAN_FORK, CannotFork, fork

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests"
"""Where services run. Not in the project's own folder: a `.env` there would be read."""
START_SECONDS = 60.0
STOP_SECONDS = 20.0
PLAIN_HTTP = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that need no certificates; httpx would make one of these for each client."""


class Process(Protocol):
    """A process that was started, in whatever way."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def wait(self, timeout: float) -> object: ...


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is up. `log` is the file that its output goes to."""

    url: str
    log: Path
    process: Process

    def client(self, key: str | None, **headers: str) -> httpx.Client:
        """A client that authenticates with `key`."""
        authorization = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(
            base_url=self.url,
            headers={**authorization, **headers},
            timeout=30,
            trust_env=False,
            verify=PLAIN_HTTP,
        )

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def lines(self, event: str | None = None, holding: str = "") -> list[dict[str, Any]]:
        """The JSON lines logged so far, those of one event or with this text if wanted."""
        # The last one may not be written whole yet.
        *written, _ = self.output().split("\n")
        lines = [json.loads(line) for line in written if line.startswith("{") and holding in line]
        return [line for line in lines if event is None or line.get("event") == event]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The line of one request; it is written just after the response."""
        return eventually(
            lambda: next(
                (
                    line
                    for line in self.lines("request", holding=request_id)
                    if line["request_id"] == request_id
                ),
                None,
            )
        )


@contextmanager
def running(environment: Mapping[str, str], module: str = "app") -> Iterator[Service]:
    """The service under exactly these variables, up until the block ends."""
    with kept_port() as port, tempfile.TemporaryDirectory() as folder:
        variables = {"PORT": str(port), **environment}
        log = Path(folder) / "service.log"
        log.touch()
        process = _begin(variables, log, module)
        service = Service(f"http://127.0.0.1:{port}", log, process)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _begin(environment: Mapping[str, str], log: Path, module: str) -> Process:
    if CAN_FORK:
        with suppress(CannotFork):
            return fork(_variables(environment), FOLDER, log, module)
    with log.open("wb") as output:
        return start(environment, output, module=module)


def start(
    environment: Mapping[str, str], output: IO[bytes] | int, *arguments: str, module: str = "app"
) -> subprocess.Popen[bytes]:
    """Starts `python -m app` with these variables and nothing else of the caller's own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=FOLDER,
        env=_variables(environment),
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**inherited, "PYTHONPATH": str(ROOT), **environment}


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody else is given until the block ends: another's service there would answer
    as if it were ours. Until something listens, nobody does, not even who tries to connect."""
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        port: int = keeper.getsockname()[1]
        if sys.platform == "linux":
            # Set after the port was chosen: whoever asks for this very port gets it.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            keeper.close()
        yield port


def eventually(look: Callable[[], T | None], seconds: float = 5.0) -> T:
    """The first result of `look()` that is not None or false; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = look()
        if result:
            return result
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert service.process.poll() is None, f"the service ended: {service.output()}"
        try:
            with service.client(None) as client:
                if client.get("/readyz").status_code == 200:
                    return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"the service is not ready: {service.output()}"
        time.sleep(0.05)
