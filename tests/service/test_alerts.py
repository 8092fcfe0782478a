"""Who is told what when something is wrong, and that nobody else notices: over HTTP, at a real
webhook and a real place that takes Sentry's envelopes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import body
from .receiving import SENTRY_KEY, Receiver
from .serving import Project, Service, eventually

pytestmark = pytest.mark.xdist_group("alerts")

CHAT = "/v1/chat/completions"
ROUTES = Path(__file__).parent.parent / "frameworks" / "routes" / "fastapi.py"

POLICY = {"BREAKER_FAILURES": "3", "ALERT_RETRY_SECONDS": "(0.2, 0.4, 0.8)"}
"""What an owner may set: here only to be seen sooner."""

PRICES = {
    f"{vendor}_{direction}_USD_PER_MTOK": "1"
    for vendor in ("OPENAI", "ANTHROPIC")
    for direction in ("INPUT", "OUTPUT")
}
MODEL = "openai/gpt-6-luna"

Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(scope="module")
def root(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service with an owner's routes, of which some crash."""
    root = tmp_path_factory.mktemp("alerting") / "service"
    shutil.copytree(rendered, root)
    shutil.copyfile(ROUTES, root / "app" / "routes.py")
    policy = root / "app" / "policy.py"
    text = policy.read_text(encoding="utf-8")
    for name, value in POLICY.items():
        text, edits = re.subn(rf"(?m)^({name}: Final) = .*$", rf"\1 = {value}", text)
        assert edits == 1
    policy.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def serve(root: Path, variables: dict[str, str], tmp_path: Path) -> Serve:
    """Starts it with these settings more, and a store of its own."""
    return lambda **settings: Project(root, variables, tmp_path / "service.db").serve(**settings)


@pytest.fixture
def webhook() -> Iterator[Receiver]:
    with Receiver.in_thread() as receiver:
        yield receiver


@pytest.fixture
def sentry() -> Iterator[Receiver]:
    with Receiver.in_thread() as receiver:
        yield receiver


def _ask(service: Service, key: str, **parameters: Any) -> httpx.Response:
    return service.http(key).post(CHAT, json=body(**{"max_tokens": 1, **parameters}))


# Each event


@dataclass(frozen=True, slots=True)
class BadDay:
    """Everything that people are to be told of, each more than once; `requests` are those that a
    kind of event happened in first."""

    requests: dict[str, str]
    messages: list[str]
    events: list[dict[str, Any]]
    lines: list[dict[str, Any]]


@pytest.fixture(scope="module")
def bad_day(
    root: Path,
    variables: dict[str, str],
    _sandbox: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> BadDay:
    _sandbox.reset()
    requests: dict[str, str] = {}
    project = Project(root, variables, tmp_path_factory.mktemp("bad-day") / "service.db")
    with Receiver.in_thread() as webhook, Receiver.in_thread() as sentry:
        settings = {
            **PRICES,
            "DAILY_BUDGET_USD": "0.002",
            "MAX_ATTEMPTS": "1",
            "ALERT_WEBHOOK_URL": webhook.url,
            "SENTRY_DSN": sentry.dsn,
        }
        with project.serve(**settings) as service:
            for _ in range(3):
                crash = service.http("key-of-caller0").get("/crash")
                requests.setdefault("unhandled_error", crash.headers["x-request-id"])
            _sandbox.script("openai", [Reply(input_tokens=700, output_tokens=1000)])
            _ask(service, "key-of-caller1", max_tokens=1000)
            for vendor in ("openai", "anthropic"):
                _sandbox.script(vendor, [Fault(error="invalid_api_key")], times=2)
            for _ in range(2):
                refused = _ask(service, "key-of-caller2")
                requests.setdefault("providers_down", refused.headers["x-request-id"])
            _sandbox.script("openai", [Fault(status=529)], times=3)
            for _ in range(4):
                _ask(service, "key-of-caller3", model=MODEL)
            for _ in range(2):
                _ask(service, "key-of-caller4", max_tokens=1000)
            lines = service.lines("alert")
        return BadDay(requests, webhook.messages, sentry.events, lines)


KINDS = (
    "unhandled_error:RuntimeError@app/routes.py",
    "budget_80",
    "account_refused:openai",
    "account_refused:anthropic",
    "providers_down",
    "breaker_open:openai",
    "budget_100",
)


@pytest.mark.promise("V6")
def test_each_event_is_told_once(bad_day: BadDay) -> None:
    """The webhook, Sentry and the log hear of each, in this order, however often it happens."""
    kinds = [re.sub(r":\d+$", "", line["kind"]) for line in bad_day.lines]
    assert tuple(kinds) == KINDS
    told = [text.partition("] ")[2].partition(": ")[0] for text in bad_day.messages]
    assert told == [line["kind"] for line in bad_day.lines]
    assert [event["tags"]["kind"] for event in bad_day.events] == told


@pytest.mark.promise("V6")
@pytest.mark.parametrize(
    ("kind", "words"),
    {
        "unhandled_error": ["RuntimeError at GET /crash", "app/routes.py:", "The line of that"],
        "budget_80": ["85% of the daily budget of $0.002", "until midnight (UTC)", "cost_usd"],
        "account_refused:openai": ["status 401", "key", "vendor's console"],
        "providers_down": ["openai (ProviderRefusesAccount, status 401)", "anthropic (", "503"],
        "breaker_open:openai": ["failed 3 times in a row", "for 30 s", "status page"],
        "budget_100": ["daily budget of $0.002 is used up", "until midnight", "DAILY_BUDGET_USD"],
    }.items(),
)
def test_a_message_says_what_to_do(bad_day: BadDay, kind: str, words: list[str]) -> None:
    """Which service, what has happened, in which request, how long it will last and what helps, at
    which time; the webhook and Sentry are told the same."""
    (message,) = (text for text in bad_day.messages if f"] {kind}" in text)
    (event,) = (e for e in bad_day.events if e["tags"]["kind"].startswith(kind))
    assert re.fullmatch(r"\[service\] \S+: .* \(\d\d:\d\d:\d\d UTC\)", message)
    for text in (message, event["logentry"]["formatted"]):
        assert [word for word in words if word not in text] == []
        assert bad_day.requests.get(kind, "") in text


@pytest.mark.promise("V6")
def test_sentry_has_the_stack_of_a_crash(bad_day: BadDay) -> None:
    """With the request, the route and the message; and what any other event has."""
    (event,) = (event for event in bad_day.events if "exception" in event)
    (raised,) = event["exception"]["values"]
    assert (raised["type"], raised["value"]) == ("RuntimeError", "a bug of the owner's")
    last = raised["stacktrace"]["frames"][-1]
    assert (last["filename"], last["function"]) == ("app/routes.py", "crash")
    own = {frame["filename"]: frame["in_app"] for frame in raised["stacktrace"]["frames"]}
    assert own["app/routes.py"] and not own["fastapi/routing.py"]
    assert event["transaction"] == "GET /crash"
    assert event["tags"]["request_id"] == bad_day.requests["unhandled_error"]
    assert event["level"] == "error"
    for other in bad_day.events:
        assert other["environment"] == "development"
        assert other["release"] == "service@0.1.0"
        assert "server_name" not in other and "contexts" not in other


def test_a_failure_in_the_background_is_told(
    root: Path, variables: dict[str, str], webhook: Receiver, sentry: Receiver, tmp_path: Path
) -> None:
    """What nobody waits for is a line, a message and an event, not a print past the log."""
    bugs = tmp_path / "service"
    shutil.copytree(root, bugs)
    with (bugs / "app" / "routes.py").open("a", encoding="utf-8") as routes:
        routes.write(BACKGROUND)
    project = Project(bugs, variables, tmp_path / "service.db")
    with project.serve(ALERT_WEBHOOK_URL=webhook.url, SENTRY_DSN=sentry.dsn) as service:
        for kind in ("task", "thread"):
            response = service.http("key-of-caller0").get(f"/background/{kind}")
            assert response.status_code == 200
        eventually(lambda: len(webhook.messages) == 2)
        lines = service.lines("uncaught")
        output = service.output()
    told = [(line["source"], line["error_type"], line["stack"]) for line in lines]
    assert [item[:2] for item in told] == [("loop", "KeyError"), ("thread", "ZeroDivisionError")]
    assert "in task" in told[0][2] and "in fail" in told[1][2]
    assert "Traceback" not in output
    assert all("] uncaught_error:" in message for message in webhook.messages)
    eventually(lambda: len(sentry.events) == 2)
    assert {e["transaction"] for e in sentry.events} == {"a loop", "a thread"}


BACKGROUND = """

import gc
import threading


def fail() -> None:
    1 / 0


@router.get("/background/{kind}")
async def background(kind: str) -> str:
    async def task() -> None:
        {}["nothing"]

    if kind == "task":
        failing = asyncio.create_task(task())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del failing
        gc.collect()
    else:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    return "done"
"""


# Nobody else notices


def _crashes(service: Service, count: int = 20) -> None:
    """Crashes, and calls beside them: all answered, and soon."""
    with ThreadPoolExecutor(8) as pool:

        def both(number: int) -> tuple[int, int, float]:
            client = service.http(f"key-of-caller{number}")
            crash, reply = client.get("/crash"), client.post(CHAT, json=body())
            seconds = crash.elapsed.total_seconds() + reply.elapsed.total_seconds()
            return crash.status_code, reply.status_code, seconds

        answers = list(pool.map(both, range(count)))
    assert [answer[:2] for answer in answers] == [(500, 200)] * count
    assert max(answer[2] for answer in answers) < 5


@pytest.mark.promise("V6")
@pytest.mark.usefixtures("sandbox")
def test_hung_receivers_hold_nobody_up(serve: Serve, webhook: Receiver, sentry: Receiver) -> None:
    """Requests are answered while neither the webhook nor Sentry answers; the end is not held up
    for longer than its bound; and once they answer, they are told."""
    webhook.awake.clear()
    sentry.awake.clear()
    with serve(ALERT_WEBHOOK_URL=webhook.url, SENTRY_DSN=sentry.dsn) as service:
        _crashes(service)
        eventually(lambda: webhook.received and sentry.received)
        assert len(webhook.received) == len(sentry.received) == 1
        webhook.awake.set()
        sentry.awake.set()
    # It has ended in order.
    assert [line["event"] for line in service.lines("stopping", "stopped")][-1] == "stopped"
    assert service.process.returncode == 0


@pytest.mark.promise("V6")
@pytest.mark.usefixtures("sandbox")
def test_dead_receivers_hold_nobody_up(serve: Serve) -> None:
    """Where nobody listens, requests are answered, the log says that an alert was not sent and
    never to where, and the service ends in order."""
    with Receiver.in_thread() as gone:
        pass
    with serve(ALERT_WEBHOOK_URL=gone.url, SENTRY_DSN=gone.dsn) as service:
        _crashes(service)
        (line,) = eventually(lambda: service.lines("alert_not_sent"))
        assert (line["channel"], line["reason"]) == ("webhook", "ConnectError")
    assert service.process.returncode == 0
    assert "the-key-of-the-webhook" not in service.output()
    assert SENTRY_KEY not in service.output()


@pytest.mark.usefixtures("sandbox")
def test_a_receiver_that_comes_back_is_told(serve: Serve) -> None:
    """An alert that found nobody is sent again for a while."""
    with Receiver.in_thread() as gone:
        address = gone.address
    with serve(ALERT_WEBHOOK_URL=gone.url) as service:
        assert service.http("key-of-caller0").get("/crash").status_code == 500
        eventually(lambda: service.lines("alert"))
        # Nothing shows that it was tried: by now it was, and the next try is still to come.
        time.sleep(0.1)
        with Receiver.in_thread(int(address.rpartition(":")[2])) as back:
            eventually(lambda: back.messages)
            assert "unhandled_error" in back.messages[0]
    assert not service.lines("alert_not_sent")


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_refusal_is_told_by_its_status(
    serve: Serve, webhook: Receiver, sentry: Receiver, status: int
) -> None:
    """The log has the status and not the address; no redirect is followed."""
    with Receiver.in_thread() as elsewhere:
        for receiver in (webhook, sentry):
            receiver.statuses = [status] * 10
        webhook.headers = {"location": elsewhere.url}
        with serve(ALERT_WEBHOOK_URL=webhook.url, SENTRY_DSN=sentry.dsn) as service:
            _crashes(service, 2)
            (line,) = eventually(lambda: service.lines("alert_not_sent"))
            assert line["reason"] == f"status {status}"
    assert len(webhook.received) == (4 if status == 500 else 1)
    assert not elsewhere.received
    output = service.output()
    assert webhook.address not in output and "the-key-of-the-webhook" not in output
    assert SENTRY_KEY not in output


def test_each_worker_tells_for_itself(serve: Serve, webhook: Receiver) -> None:
    """Cool-downs are those of a process: two of them tell of the same trouble at most twice."""
    with serve(ALERT_WEBHOOK_URL=webhook.url, WORKERS="2") as service:
        for _ in range(30):
            with httpx.Client(base_url=service.url, trust_env=False, verify=False) as client:
                key = {"authorization": "Bearer key-of-caller0"}
                assert client.get("/crash", headers=key).status_code == 500
        eventually(lambda: webhook.messages)
    assert 1 <= len(webhook.messages) <= 2


# The start


def test_nothing_of_sentry_is_loaded_without_it(
    root: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    """A service without a DSN does not pay for the SDK."""
    code = "import sys, app.main; app.main.create_app(); print('sentry_sdk' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PATH": "", "SQLITE_PATH": str(tmp_path / "service.db"), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[-1] == "False"
