"""Starts a rendered service, and reads what it logs and what it keeps."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai

from ..core.backends import Books, SQLiteFile
from ..rendering import kept_port

T = TypeVar("T")

WITHOUT_TLS: Any = {"verify": False, "trust_env": False}
"""Everything here speaks plain HTTP, and to load the certificates takes a third of a second."""

START_SECONDS = 60.0
STOP_SECONDS = 20.0


@dataclass(slots=True)
class Service:
    """A service that is up. Clients made here are closed with it."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    store: Path
    root: Path
    environment: Mapping[str, str]
    _sdk: openai.OpenAI
    _clients: list[httpx.Client] = field(default_factory=list)

    def sdk(self, key: str, *, max_retries: int = 0, timeout: float = 30) -> openai.OpenAI:
        """OpenAI's SDK, pointed at the service."""
        return self._sdk.with_options(api_key=key, max_retries=max_retries, timeout=timeout)

    def http(self, key: str | None = None, **headers: str) -> httpx.Client:
        """A plain client, for what no SDK would do."""
        authorization = {"authorization": f"Bearer {key}"} if key else {}
        client = httpx.Client(
            base_url=self.url, headers={**authorization, **headers}, timeout=30, **WITHOUT_TLS
        )
        self._clients.append(client)
        return client

    @property
    def books(self) -> Books:
        return SQLiteFile(Path(self.environment["SQLITE_PATH"])).books()

    def account(self, key: str) -> tuple[int, int]:
        """What the key's caller has spent and what is reserved for it, in nano-dollars."""
        name = key.removeprefix("key-of-")
        sums = [sums for (_, caller), sums in self.books.counter.items() if caller == name]
        return sum(settled for settled, _ in sums), sum(reserved for _, reserved in sums)

    def lines(self, *events: str) -> list[dict[str, Any]]:
        """The lines of these events that have been logged so far."""
        # The last one may not be written whole yet.
        *written, _ = self.output().split("\n")
        lines = (json.loads(line) for line in written if line.startswith("{"))
        return [line for line in lines if line.get("event") in events]

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The line of one request, which is written when it has ended."""
        found = eventually(
            lambda: [line for line in self.lines("request") if line["request_id"] == request_id]
        )
        assert len(found) == 1
        return found[0]

    def spend(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m app spend`, as its owner would ask beside it."""
        return subprocess.run(
            [sys.executable, "-m", "app", "spend", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self._sdk.close()
        for client in self._clients:
            client.close()


@dataclass(frozen=True, slots=True)
class Project:
    """A rendered service that is not running, and a place to keep what it writes.

    Without a store's variable among `variables` it has a SQLite file there. `prepare` runs in the
    new process before anything else does.
    """

    root: Path
    variables: Mapping[str, str]
    store: Path
    prepare: Callable[[], None] | None = None
    module: str = "app"

    @contextmanager
    def serve(self, **settings: str) -> Iterator[Service]:
        """`python -m module` under these variables and nothing of this process's own."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with kept_port() as port:
            log = self.store.with_name(f"{self.store.stem}-{port}.log")
            environment = {
                **inherited,
                "SQLITE_PATH": str(self.store),
                **self.variables,
                "PORT": str(port),
                **settings,
            }
            url = f"http://127.0.0.1:{port}"
            with self._process(environment, log) as process:
                sdk = openai.OpenAI(
                    api_key="-",
                    base_url=f"{url}/v1",
                    http_client=openai.DefaultHttpxClient(**WITHOUT_TLS),
                )
                service = Service(url, process, log, self.store, self.root, environment, sdk)
                try:
                    _wait_until_ready(service)
                    yield service
                finally:
                    service.close()

    @contextmanager
    def _process(
        self, environment: Mapping[str, str], log: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Its output goes through a pipe, as where services run for real: a disk that is full for
        the service is not full for its log."""
        with log.open("wb") as output:
            copy = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=output)
        assert copy.stdin is not None
        with copy.stdin:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=self.root,
                env=environment,
                preexec_fn=self.prepare,
                stdout=copy.stdin,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
            copy.wait(STOP_SECONDS)


def eventually(look: Callable[[], T], seconds: float = 10.0) -> T:
    """The first result of `look()` that is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


def _wait_until_ready(service: Service) -> None:
    def ready() -> bool:
        assert service.process.poll() is None, f"the service has ended: {service.output()}"
        try:
            return client.get(f"{service.url}/readyz").is_success
        except httpx.TransportError:
            return False

    with httpx.Client(**WITHOUT_TLS) as client:
        eventually(ready, START_SECONDS)
