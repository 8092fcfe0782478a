"""One rendered service, one sandbox, and a caller of its own for each test."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from sandbox.server import Sandbox

from ..rendering import render, set_policy, take_snapshot
from .serving import Project, Service

CALLERS = 100
RATE_LIMIT = 40

# What an owner may set for patient tests: no breaker opens, no retry is denied, and a killed
# worker's claim is soon free.
POLICY = {
    "BREAKER_FAILURES": "1_000",
    "RETRY_BUDGET_RESERVE": "1_000.0",
    "CLAIM_MARGIN_SECONDS": "1.0",
}

DENY_NETWORK = """
import ipaddress
import sys

WATCHED = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0}


def is_local(address):
    host = address[0] if isinstance(address, tuple) else address
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return isinstance(address, str) and address.startswith(("/", "\\0"))  # a Unix socket


def deny(event, arguments):
    if event in WATCHED and not is_local(arguments[WATCHED[event]]):
        print("network denied:", event, arguments, file=sys.stderr, flush=True)
        raise OSError("the network is denied")


sys.addaudithook(deny)
"""
"""Loaded by every interpreter that finds it on its path, before anything else."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default service, rendered from the working tree, with the policy above."""
    destination = tmp_path_factory.mktemp("rendered") / "service"
    render(take_snapshot(tmp_path_factory.mktemp("template")), destination, {})
    set_policy(destination, POLICY)
    return destination


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The stand-ins of the vendors, with nothing scripted and nothing received."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture(scope="session")
def variables(_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Limits fit for tests, the vendors' stand-ins, and no network beyond this machine."""
    hook = tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(DENY_NETWORK, encoding="utf-8")
    return {
        **_sandbox.environment(),
        "PYTHONPATH": str(hook),
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": ",".join(f"caller{n}:key-of-caller{n}" for n in range(CALLERS)),
        "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
        "FIRST_BYTE_TIMEOUT_SECONDS": "3",
        "IDLE_TIMEOUT_SECONDS": "1",
        "DEADLINE_SECONDS": "15",
    }


MakeProject = Callable[[str], Project]


@pytest.fixture(scope="session")
def make_project(
    rendered: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> MakeProject:
    """Makes the service ready to start, with a store of its own."""

    def make(name: str) -> Project:
        return Project(rendered, variables, tmp_path_factory.mktemp(name) / "service.db")

    return make


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    return make_project("own")


@pytest.fixture(scope="session")
def _service(make_project: MakeProject) -> Iterator[Service]:
    with make_project("shared").serve() as service:
        yield service


@pytest.fixture
def service(_service: Service, sandbox: Sandbox) -> Service:
    """A service that tests share; each has a caller of its own."""
    return _service


@pytest.fixture(scope="session")
def _keys() -> Iterator[str]:
    return (f"key-of-caller{number}" for number in itertools.count())


@pytest.fixture
def key(_keys: Iterator[str]) -> str:
    """The key of a caller that no other test has."""
    return next(_keys)


@pytest.fixture
def client(service: Service, key: str) -> openai.OpenAI:
    """OpenAI's SDK as the test's own caller, without retries."""
    return service.sdk(key)
