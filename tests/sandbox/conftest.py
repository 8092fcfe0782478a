"""The stand-ins are imported from where they lie in the template, and run in one thread."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from google import genai

TEMPLATE = Path(__file__).parents[2] / "template"
sys.path.insert(0, str(TEMPLATE))

from sandbox.server import Sandbox  # noqa: E402


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """One client for all tests: each new one would load the certificates again."""
    with httpx.Client(timeout=5) as client:
        yield client


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Iterator[Sandbox]:
    yield running_sandbox
    running_sandbox.reset()


@pytest.fixture(scope="session")
def openai_connection(running_sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    variables = running_sandbox.environment()
    with openai.OpenAI(
        api_key=variables["OPENAI_API_KEY"],
        base_url=variables["OPENAI_BASE_URL"],
        max_retries=0,
        timeout=5,
    ) as client:
        yield client


@pytest.fixture(scope="session")
def anthropic_connection(running_sandbox: Sandbox) -> Iterator[anthropic.Anthropic]:
    variables = running_sandbox.environment()
    with anthropic.Anthropic(
        api_key=variables["ANTHROPIC_API_KEY"],
        base_url=variables["ANTHROPIC_BASE_URL"],
        max_retries=0,
        timeout=5,
    ) as client:
        yield client


@pytest.fixture(scope="session")
def gemini_connection(running_sandbox: Sandbox) -> Iterator[genai.Client]:
    variables = running_sandbox.environment()
    with genai.Client(
        api_key=variables["GEMINI_API_KEY"],
        http_options=genai.types.HttpOptions(
            base_url=variables["GEMINI_BASE_URL"],
            api_version="v1beta",
            timeout=5000,
            retry_options=genai.types.HttpRetryOptions(attempts=1),
        ),
    ) as client:
        yield client


@pytest.fixture(scope="session")
def compatible_connection(running_sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    variables = running_sandbox.environment()
    with openai.OpenAI(
        api_key=variables["OPENAI_COMPATIBLE_API_KEY"],
        base_url=variables["OPENAI_COMPATIBLE_BASE_URL"],
        max_retries=0,
        timeout=5,
    ) as client:
        yield client


@pytest.fixture
def openai_client(sandbox: Sandbox, openai_connection: openai.OpenAI) -> openai.OpenAI:
    return openai_connection


@pytest.fixture
def anthropic_client(
    sandbox: Sandbox, anthropic_connection: anthropic.Anthropic
) -> anthropic.Anthropic:
    return anthropic_connection


@pytest.fixture
def gemini_client(sandbox: Sandbox, gemini_connection: genai.Client) -> genai.Client:
    return gemini_connection


@pytest.fixture
def compatible_client(sandbox: Sandbox, compatible_connection: openai.OpenAI) -> openai.OpenAI:
    return compatible_connection


@pytest.fixture
def raw(sandbox: Sandbox) -> Iterator[Callable[[bytes], socket.socket]]:
    """Sends bytes on a connection of their own and leaves the socket to be read."""
    opened = []

    def send(data: bytes) -> socket.socket:
        host, port = sandbox.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=5)
        opened.append(connection)
        connection.sendall(data)
        return connection

    yield send
    for connection in opened:
        connection.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, "did not come true within 5 seconds"
            time.sleep(0.005)

    return wait
