"""The running service, the stand-ins of its providers, and a place that receives its alerts."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sandbox.server import Sandbox
from tests.running import Service, running

CALLERS = 100
RATE_LIMIT = 20

Run = Callable[..., AbstractContextManager[Service]]


class Webhook:
    """Receives what the service posts, as Slack would."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                messages.append(json.loads(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The stand-ins of the providers, with nothing scripted and nothing received."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.fixture(scope="session")
def environment(
    _sandbox: Sandbox, webhook: Webhook, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The variables of a service that talks to the stand-ins, with limits fit for tests."""
    keys = ",".join(f"caller{number}:key-of-caller{number}" for number in range(CALLERS))
    return {
        **_sandbox.environment(),
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": keys,
        "SQLITE_PATH": str(tmp_path_factory.mktemp("store") / "service.db"),
        "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
        "ALERT_WEBHOOK_URL": webhook.url,
        "FIRST_BYTE_TIMEOUT_SECONDS": "1",
        "IDLE_TIMEOUT_SECONDS": "1",
        "DEADLINE_SECONDS": "15",
    }


@pytest.fixture(scope="session")
def _service(environment: dict[str, str]) -> Iterator[Service]:
    with running(environment) as service:
        yield service


@pytest.fixture
def service(_service: Service, sandbox: Sandbox) -> Service:
    """A service that all tests share; each has a caller of its own."""
    return _service


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def key(_numbers: Iterator[int]) -> str:
    """The key of a caller that no other test has."""
    return f"key-of-caller{next(_numbers)}"


@pytest.fixture
def client(service: Service, key: str) -> Iterator[httpx.Client]:
    """A caller of the shared service."""
    with service.client(key) as client:
        yield client


@pytest.fixture
def run(environment: Mapping[str, str], sandbox: Sandbox, tmp_path: Path) -> Run:
    """Starts a service of the test's own, with a store of its own and these other settings."""

    def start(**settings: str) -> AbstractContextManager[Service]:
        return running(
            {**environment, "SQLITE_PATH": str(tmp_path / "service.db"), **settings}
        )

    return start


@pytest.fixture
def primary(sandbox: Sandbox) -> str:
    """The provider that is asked first."""
    from app.wiring import ADAPTERS

    return ADAPTERS[0].name
