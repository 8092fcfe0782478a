"""The running service, the stand-ins of its providers, and a place that receives its alerts."""

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from sandbox.stores import place, servers
from tests.asking import ask, calls, pinned
from tests.running import Service, eventually, running

CALLERS = 800
KEYS_OF_ONE = ("the-old-key-of-one", "the-new-key-of-one")
RATE_LIMIT = 20
METRICS_TOKEN = "the-token-of-prometheus"
TIGHT = {
    "RATE_LIMIT_REQUESTS": "3",
    "RATE_LIMIT_WINDOW_SECONDS": "1",
    "DAILY_BUDGET_PER_CALLER_USD": "0.0015",
    "FIRST_BYTE_TIMEOUT_SECONDS": "0.5",
    "IDLE_TIMEOUT_SECONDS": "0.5",
    "DEADLINE_SECONDS": "1.2",
    "STREAM_MAX_SECONDS": "1",
    "MAX_ATTEMPTS": "1",
    "IDEMPOTENCY_FROM_BODY": "always",
    "ALLOW_ANONYMOUS": "true",
    "TRUSTED_PROXY_CIDRS": "127.0.0.1/32",
    "METRICS_TOKEN": METRICS_TOKEN,
}

Run = Callable[..., AbstractContextManager[Service]]


@dataclass(frozen=True, slots=True)
class BadDay:
    """What a service did while its first provider was down and its budget ran out.

    `asked_while_open` counts the calls that the provider received once its breaker was open.
    """

    messages: list[str]
    metrics: str
    while_open: httpx.Response
    asked_while_open: int
    refused: list[httpx.Response]
    called_while_refused: int


class Webhook:
    """Receives what the service posts, as Slack would. While not `awake` it does not answer."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.awake = threading.Event()
        self.awake.set()
        messages, awake = self.messages, self.awake

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                awake.wait()
                messages.append(json.loads(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

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
def new_store() -> Iterator[Callable[[], dict[str, str]]]:
    """Makes the variables of a store that nobody else uses."""
    with servers() as variables, ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, url in variables.items():
            patch.setenv(name, url)
        yield lambda: stack.enter_context(place())


@pytest.fixture(scope="session")
def environment(
    _sandbox: Sandbox, webhook: Webhook, new_store: Callable[[], dict[str, str]]
) -> dict[str, str]:
    """The variables of a service that talks to the stand-ins, with limits fit for tests."""
    keys = [f"caller{number}:key-of-caller{number}" for number in range(CALLERS)]
    keys += [f"rotating:{key}" for key in KEYS_OF_ONE]
    return {
        **_sandbox.environment(),
        **new_store(),
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": ",".join(keys),
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
def new_key() -> Callable[[], str]:
    """Makes the key of a caller that nobody else is."""
    numbers = itertools.count()
    return lambda: f"key-of-caller{next(numbers)}"


@pytest.fixture
def key(new_key: Callable[[], str]) -> str:
    """The key of a caller that no other test has."""
    return new_key()


@pytest.fixture
def client(service: Service, key: str) -> Iterator[httpx.Client]:
    """A caller of the shared service."""
    with service.client(key) as client:
        yield client


@pytest.fixture
def run(
    environment: Mapping[str, str], new_store: Callable[[], dict[str, str]], sandbox: Sandbox
) -> Run:
    """Starts a service of the test's own, with a store of its own and these other settings."""

    def start(**settings: str) -> AbstractContextManager[Service]:
        return running({**environment, **new_store(), **settings})

    return start


@pytest.fixture
def mended(service: Service, sandbox: Sandbox, new_key: Callable[[], str]) -> Iterator[None]:
    """Lets each provider answer after the test, so that its failures open no breaker later."""
    yield
    mend(service, sandbox, sandbox.vendors, new_key)


@pytest.fixture(scope="session")
def prices(_sandbox: Sandbox) -> dict[str, str]:
    """The variables that let a token cost a millionth of a dollar, whoever answers."""
    return {
        f"{vendor.upper()}_{direction}_USD_PER_MTOK": "1"
        for vendor in _sandbox.vendors
        for direction in ("INPUT", "OUTPUT")
    }


@pytest.fixture(scope="session")
def hook() -> Iterator[Webhook]:
    """Where the alerts of `tight` go."""
    hook = Webhook()
    yield hook
    hook.close()


@pytest.fixture(scope="session")
def _tight(
    environment: Mapping[str, str],
    new_store: Callable[[], dict[str, str]],
    prices: Mapping[str, str],
    hook: Webhook,
) -> Iterator[Service]:
    settings = {**TIGHT, "ALERT_WEBHOOK_URL": hook.url}
    with running({**environment, **new_store(), **prices, **settings}, "tests.crashing") as service:
        yield service


@pytest.fixture
def tight(_tight: Service, sandbox: Sandbox, new_key: Callable[[], str]) -> Iterator[Service]:
    """A service with the short limits of `TIGHT`, which crashes where `tests.crashing` says. Whose
    answers a test has scripted last are asked until they answer."""
    yield _tight
    mend(_tight, sandbox, sandbox.scripted, new_key)


@pytest.fixture(scope="session")
def bad_day(
    environment: Mapping[str, str],
    new_store: Callable[[], dict[str, str]],
    prices: Mapping[str, str],
    _sandbox: Sandbox,
    new_key: Callable[[], str],
) -> BadDay:
    """A service that has spent 85 % of its budget, then lost a provider, then been asked for more
    than the rest of the budget, twice."""
    from app.wiring import ADAPTERS

    primary, webhook, hook = ADAPTERS[0].name, Webhook(), "ALERT_WEBHOOK_URL"
    _sandbox.reset()
    settings = {"DAILY_BUDGET_USD": "0.002", "MAX_ATTEMPTS": "1", hook: webhook.url}
    with (
        running({**environment, **new_store(), **prices, **settings}) as service,
        service.client(new_key()) as client,
    ):
        model = pinned(client, primary)
        _sandbox.script(primary, [Reply(text="Yes.", input_tokens=700, output_tokens=1000)])
        assert ask(client, model=model).status_code == 200
        _sandbox.script(primary, [Fault(status=529)], times=5)
        for _ in range(5):
            assert ask(client, model=model, max_tokens=1).status_code == 503
        asked = len(_sandbox.requests(primary))
        while_open = ask(client, model=model, max_tokens=1)
        asked_while_open = len(_sandbox.requests(primary)) - asked
        refused = [ask(client), ask(client)]
        called_while_refused = calls(_sandbox) - asked - asked_while_open
        service.line_of(refused[-1].headers["x-request-id"])
        metrics = client.get("/metrics").text
    # The service has sent all its alerts before it ended.
    webhook.close()
    return BadDay(
        webhook.messages, metrics, while_open, asked_while_open, refused, called_while_refused
    )


@pytest.fixture
def primary(sandbox: Sandbox) -> str:
    """The provider that is asked first."""
    from app.wiring import ADAPTERS

    return ADAPTERS[0].name


def mend(
    service: Service, sandbox: Sandbox, vendors: Iterable[str], new_key: Callable[[], str]
) -> None:
    """Asks each of the providers until it answers, so that no failures in a row are left to be
    counted."""
    sandbox.reset()
    for vendor in vendors:
        with service.client(new_key()) as client:
            eventually(partial(_answers, client, pinned(client, vendor)))


def _answers(client: httpx.Client, model: str) -> bool:
    return ask(client, model=model, max_tokens=16).is_success
