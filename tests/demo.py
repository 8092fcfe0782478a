"""Renders a default service, fires each of its guardrails at it over HTTP, prints what each did.

`python -m tests.demo`. The exit status is 0 only if every item of the checklist fired as it should;
whatever was started or written has gone by then.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaffold_cli.environment import find_uv, install
from scaffold_cli.errors import ScaffoldError, UsageError
from tests.rendering import (
    CommandFailed,
    Environment,
    Service,
    StandIns,
    render,
    service,
    stand_ins,
    take_snapshot,
)

T = TypeVar("T")

CHAT = "/v1/chat/completions"
QUESTION = "What is a guardrail?"
RATE_LIMIT = 5
SETTINGS = {
    "ENVIRONMENT": "development",
    "LOG_FORMAT": "json",
    "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
    "RATE_LIMIT_WINDOW_SECONDS": "60",
    "FIRST_BYTE_TIMEOUT_SECONDS": "1",
    "DEADLINE_SECONDS": "30",
    "MAX_INPUT_TOKENS": "1000",
    "MAX_HISTORY_MESSAGES": "6",
}
TOLD_HEADERS = ("Retry-After", "X-Provider", "Idempotent-Replayed", "X-Should-Retry", "RateLimit")
TOLD_FIELDS = (
    *("level", "status", "duration_ms", "caller", "outcome", "refusal", "provider"),
    *("input_tokens", "output_tokens", "cost_usd", "trimmed_messages"),
)


class NotAsItShould(Exception):
    """Says what a guardrail should have done and did not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether one item of the checklist fired, and what was seen of it."""

    item: str
    fired: bool
    evidence: str


def main() -> int:
    """The exit status: 0, 1 when something did not fire, 130 after Ctrl-C."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 110
    began = time.monotonic()
    hear_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="guarded-service-") as folder:
            outcomes = demonstrate(console, Path(folder))
    except KeyboardInterrupt:
        console.print("\nStopped. What was started has ended, what was written is gone.")
        return 130
    except (CommandFailed, ScaffoldError, UsageError) as error:
        console.print(f"\nThe demonstration cannot go on: {error}", style="red", soft_wrap=True)
        return 1
    return conclude(console, outcomes, time.monotonic() - began)


def demonstrate(console: Console, folder: Path) -> list[Outcome]:
    """Makes a service in `folder`, lets each guardrail fire, and ends what it started."""
    console.print("A guarded LLM service, made and put under fire\n", style="bold")
    project = folder / "my-service"
    render(take_snapshot(folder / "template"), project, {})
    files = sum(path.is_file() for path in project.rglob("*"))
    console.print(f"Rendered a service with the default answers: {files} files")
    install(find_uv(), project, console)
    environment = Environment(project / ".venv")
    with (
        stand_ins(environment, project) as sandbox,
        webhook() as alerts,
        httpx.Client(timeout=60, trust_env=False) as client,
    ):
        console.print(f"Started stand-ins for {' and '.join(sandbox.vendors)} at {sandbox.url}")
        stage = Stage(console, project, environment, sandbox, alerts, client)
        with stage.serving() as running:
            stage.find_chain()
            console.print(f"Started the service at {running.url}, with small limits:")
            console.print(" ".join(f"{name}={value}" for name, value in SETTINGS.items()))
            return [outcome for part in GUARDRAILS for outcome in perform(stage, part)]


def perform(stage: Stage, guardrail: Guardrail) -> Iterator[Outcome]:
    """Each item of one guardrail; one that does not fire does not keep the next from trying."""
    stage.console.print(f"\n{guardrail.title}", style="bold")
    for item, fire in guardrail.items.items():
        stage.begin_item()
        stage.console.print(f"\n {stage.caller}. {item}", style="cyan")
        try:
            outcome = Outcome(item, True, fire(stage))
        except (NotAsItShould, CommandFailed, httpx.HTTPError, LookupError, ValueError) as error:
            expected = isinstance(error, NotAsItShould)
            what = f"expected that {error}" if expected else f"broke off: {error!r}"
            outcome = Outcome(item, False, what)
        mark = "fired" if outcome.fired else "NOT FIRED"
        stage.tell(mark, outcome.evidence, "green" if outcome.fired else "bold red")
        yield outcome


def conclude(console: Console, outcomes: list[Outcome], seconds: float) -> int:
    """Prints the checklist as it was seen."""
    table = Table(title="The checklist", title_justify="left", title_style="bold")
    for column in ("item", "fired", "evidence"):
        table.add_column(column)
    for outcome in outcomes:
        fired = Text("yes", "green") if outcome.fired else Text("NO", "bold red")
        table.add_row(outcome.item, fired, Text(outcome.evidence))
    console.print()
    console.print(table)
    missed = [outcome.item for outcome in outcomes if not outcome.fired]
    count = len(outcomes) - len(missed)
    console.print(
        f"{count} of {len(outcomes)} fired. Took {seconds:.0f} s; nothing is left running."
    )
    if missed:
        console.print(f"Not as it should be: {'; '.join(missed)}", style="bold red")
    return 1 if missed else 0


def hear_signals() -> None:
    """Ctrl-C and its like end everything in order. A second one changes nothing: uv and the
    terminal may both have sent the first."""
    heard = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, stop)


# Where it happens


@dataclass(slots=True)
class Stage:
    """The service under fire, and the voice that tells what goes on.

    Each item of the checklist has a caller of its own, so that none uses up another's limits.
    """

    console: Console
    project: Path
    environment: Environment
    sandbox: StandIns
    webhook: Webhook
    client: httpx.Client
    chain: Sequence[str] = ()
    """The providers in the order of fallback."""
    caller: int = 0
    services: list[Service] = field(default_factory=list)

    @contextmanager
    def serving(self, **settings: str) -> Iterator[Service]:
        """A service with these settings as well; it is the one that is asked until it ends."""
        keys = ",".join(f"caller{n}:{key_of(n)}" for n in range(ITEMS + 1))
        variables = {
            **SETTINGS,
            **self.sandbox.variables,
            "SERVICE_API_KEYS": keys,
            "ALERT_WEBHOOK_URL": self.webhook.url,
            "SQLITE_PATH": str(self.project.parent / f"store-{len(self.services)}.db"),
        }
        log = self.project.parent / f"service-{len(self.services)}.log"
        with service(self.environment, self.project, {**variables, **settings}, log) as running:
            self.services.append(running)
            try:
                yield running
            finally:
                self.services.remove(running)

    def tell(self, label: str, text: str, style: str = "") -> None:
        self.console.print(Text(f"   {label:<10} ", "dim") + Text(text, style), soft_wrap=True)

    def request(
        self, method: str, path: str, *, key: str | None = None, **content: Any
    ) -> httpx.Response:
        """Any request, told; as the item's own caller unless `key` says otherwise."""
        key = key_of(self.caller) if key is None else key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= content.pop("headers", {})
        return self.client.request(method, self.services[-1].url + path, headers=headers, **content)

    def ask(self, messages: str | list[dict[str, str]] = QUESTION, **headers: str) -> Any:
        """One question to a model; what comes back is told."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        started = time.monotonic()
        response = self.request("POST", CHAT, json={"messages": messages}, headers=headers)
        self.tell("came back", describe(response, time.monotonic() - started))
        return response

    def log_line(self, response: httpx.Response) -> dict[str, Any]:
        """The line that the request left; it is written just after the response."""
        request_id = response.headers["x-request-id"]
        line = eventually(
            lambda: next((line for line in self.lines() if line["request_id"] == request_id), None),
            "the request leaves a line in the log",
        )
        told = {name: line[name] for name in TOLD_FIELDS if line.get(name) is not None}
        if "cost_usd" in told:
            told["cost_usd"] = f"{told['cost_usd']:.6f}"
        self.tell("log", " ".join(f"{name}={value}" for name, value in told.items()))
        return line

    def lines(self) -> list[dict[str, Any]]:
        """The lines of all requests so far."""
        # The last one may not be written whole yet.
        *written, _ = self.services[-1].output().split("\n")
        lines = (line for line in written if line.startswith("{"))
        return [line for line in map(json.loads, lines) if line.get("event") == "request"]

    def script(self, vendor: str, *faults: dict[str, Any], times: int | None = 1) -> None:
        """How the vendor's stand-in answers next; `times=None` is until the item ends."""
        self._control("POST", "/faults", {"vendor": vendor, "faults": faults, "times": times})

    def received(self, *vendors: str) -> list[dict[str, Any]]:
        """What the stand-ins of these vendors, or of all, have received in this item."""
        received = self._control("GET", "/requests")
        of_all = (received[vendor]["requests"] for vendor in vendors or self.sandbox.vendors)
        return [request for requests in of_all for request in requests]

    def begin_item(self) -> None:
        self.caller += 1
        self._control("DELETE", "")

    def _control(self, method: str, path: str, content: Any = None) -> Any:
        url = f"{self.sandbox.url}/_sandbox{path}"
        return self.client.request(method, url, json=content).raise_for_status().json()

    def find_chain(self) -> None:
        """`/v1/models` lists `provider/model` in the order of fallback."""
        ids = [model["id"] for model in self.request("GET", "/v1/models").json()["data"]]
        providers = [name.partition("/")[0] for name in ids if "/" in name]
        # A model's own name may have a slash as well.
        self.chain = [name for name in providers if name in self.sandbox.vendors]


def key_of(caller: int) -> str:
    return f"key-of-caller{caller}"


def describe(response: httpx.Response, seconds: float) -> str:
    """Status, time, the error's code, and the headers that a guardrail sets."""
    parts = [f"{response.status_code} {response.reason_phrase} after {seconds * 1000:.0f} ms"]
    if response.is_error:
        parts.append(response.json()["error"]["code"])
    parts += [f"{n}: {response.headers[n]}" for n in TOLD_HEADERS if n in response.headers]
    return "; ".join(parts)


def require(condition: object, claim: str) -> None:
    """Raises `NotAsItShould` unless the condition holds."""
    if not condition:
        raise NotAsItShould(claim)


def eventually(look: Callable[[], T | None], claim: str, seconds: float = 5.0) -> T:
    """The first result of `look()` that is something. Raises `NotAsItShould` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := look()):
        require(time.monotonic() < deadline, claim)
        time.sleep(0.02)
    return result


class Webhook:
    """Receives what the service posts, as Slack would."""

    def __init__(self) -> None:
        messages: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                messages.append(json.loads(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.messages = messages
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def webhook() -> Iterator[Webhook]:
    receiver = Webhook()
    try:
        yield receiver
    finally:
        receiver.close()


# The checklist, one function for each item. It tells what it does and returns the evidence.


def requests_are_logged(stage: Stage) -> str:
    stage.tell("sent", f"POST {CHAT}: {QUESTION!r}")
    answered = stage.log_line(stage.ask())
    require(answered["status"] == 200, "the question is answered")
    stage.tell("sent", f"POST {CHAT}: half a JSON document")
    broken = stage.request("POST", CHAT, content=b'{"messages": [')
    require(stage.log_line(broken)["status"] == 400, "a refusal has its line")
    stage.tell("sent", f"POST {CHAT}: without a key")
    stranger = stage.request("POST", CHAT, key="", json={})
    require(stage.log_line(stranger)["status"] == 401, "an unknown caller has a line")
    return (
        f"3 requests, 3 lines; the first: {answered['duration_ms']} ms,"
        f" {answered['input_tokens']} + {answered['output_tokens']} tokens,"
        f" ${answered['cost_usd']:.6f}"
    )


def errors_raise_alerts(stage: Stage) -> str:
    for vendor in stage.chain:
        stage.script(vendor, {"error": "invalid_api_key"}, times=None)
    stage.tell("scripted", f"{' and '.join(stage.chain)} refuse the service's own keys")
    stage.tell("sent", f"POST {CHAT}: {QUESTION!r}")
    response = stage.ask()
    require(
        response.status_code == 503, "with no provider left the caller gets 503, not an apology"
    )
    require(stage.log_line(response)["level"] == "error", "its line is an error")
    alert = eventually(
        lambda: next((m for m in stage.webhook.messages if "providers_down" in m), None),
        "the webhook hears that every provider is down",
    )
    for message in stage.webhook.messages:
        stage.tell("webhook", message)
    return f"the webhook received: {alert}"


def environment_is_validated(stage: Stage) -> str:
    example = (stage.project / ".env.example").read_text(encoding="utf-8")
    needed = [*re.findall(r"^(\w+)=$", example, re.MULTILINE), "SERVICE_API_KEYS"]
    placeholder = "sk-xxx"
    variables = {"ENVIRONMENT": "production", needed[0]: placeholder}
    stage.tell("ran", " ".join([*(f"{k}={v}" for k, v in variables.items()), "python -m app"]))
    result = subprocess.run(
        [stage.environment.python, "-m", "app"],
        cwd=stage.project,
        env={**stage.environment.variables(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    for line in (result.stdout + result.stderr).strip().splitlines():
        stage.tell("it said", line)
    require(result.returncode not in (0, None), "it does not start")
    missing = [name for name in needed if name not in result.stderr]
    require(not missing, f"it names {', '.join(missing)}")
    require(placeholder not in result.stderr, "it does not repeat a value")
    return f"exit status {result.returncode}, all named at once: {', '.join(needed)}"


def keys_are_not_in_code(stage: Stage) -> str:
    stage.tell("sent", f"POST {CHAT}: {QUESTION!r}")
    require(stage.ask().status_code == 200, "the question is answered")
    headers = stage.received(stage.chain[0])[-1]["headers"]
    name = next((name for name, value in headers.items() if value == "the sandbox's key"), "")
    require(name, "the provider receives the key from the environment")
    stage.tell("provider", f"{stage.chain[0]} received the key of the environment in {name}")
    keys = [value for name, value in stage.sandbox.variables.items() if name.endswith("_API_KEY")]
    files = [path for path in (stage.project / "app").rglob("*") if path.suffix != ".pyc"]
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    require(not any(key in text for text in texts for key in keys), "no file of app/ holds a key")
    ignored = (stage.project / ".gitignore").read_text(encoding="utf-8").splitlines()
    require(".env" in ignored, "git ignores .env")
    return f"the key came from the environment, none is in the {len(texts)} files of app/"


def calls_time_out(stage: Stage) -> str:
    primary = stage.chain[0]
    stage.script(primary, {"action": "stall"})
    stage.tell("scripted", f"{primary} takes the request and says nothing")
    stage.tell("sent", f"POST {CHAT}: {QUESTION!r}")
    started = time.monotonic()
    response = stage.ask()
    seconds = time.monotonic() - started
    attempts = stage.log_line(response)["attempts"]
    stage.tell("attempts", told_attempts(attempts))
    require(attempts[0]["outcome"] == "ProviderTimeout", "the silent provider is given up")
    require(0.9 < seconds < 6, "it is given up after FIRST_BYTE_TIMEOUT_SECONDS=1")
    return f"the silent provider was given up after {attempts[0]['duration_ms'] / 1000:.2f} s"


def retries_back_off(stage: Stage) -> str:
    primary = stage.chain[0]
    stage.script(primary, {"status": 500}, {"status": 500})
    stage.tell("scripted", f"{primary} answers 500, then 500, then as usual")
    stage.tell("sent", f"POST {CHAT}: {QUESTION!r}")
    response = stage.ask()
    arrived = [request["arrived_at_seconds"] for request in stage.received(primary)]
    times = ", ".join(f"{at - arrived[0]:.2f}" for at in arrived)
    stage.tell("provider", f"{primary} was asked at {times} s")
    require(response.status_code == 200, "the caller gets an answer and sees no failure")
    require(len(arrived) == 3, "the provider is asked three times")
    first, second = arrived[1] - arrived[0], arrived[2] - arrived[1]
    require(0.4 < first < second, "the waits grow")
    return f"500, 500, 200; waits of {first:.2f} s and {second:.2f} s"


def there_is_a_fallback(stage: Stage) -> str:
    primary, *others = stage.chain
    stage.script(primary, {"status": 500}, times=None)
    stage.tell("scripted", f"{primary} is down: it answers 500 to everything")
    stage.tell("sent", f"POST {CHAT}: {QUESTION!r}")
    response = stage.ask()
    stage.tell("attempts", told_attempts(stage.log_line(response)["attempts"]))
    provider = response.headers.get("x-provider")
    require(response.status_code == 200 and provider in others, "another provider answers")
    return f"{primary} down, answered by {provider} after {len(stage.received(primary))} attempts"


def rate_is_limited(stage: Stage) -> str:
    stage.tell("sent", f"{RATE_LIMIT + 1} questions in a row")
    responses = [stage.ask() for _ in range(RATE_LIMIT + 1)]
    statuses = [response.status_code for response in responses]
    require(statuses == [200] * RATE_LIMIT + [429], f"429 after {RATE_LIMIT}, not before")
    wait = int(responses[-1].headers["retry-after"])
    require(0 < wait <= 60, "Retry-After says when there is room again")
    calls = len(stage.received())
    stage.tell("provider", f"received {calls} requests, none for the one that was refused")
    require(calls == RATE_LIMIT, "the refused one reaches no provider")
    return f"429 after {RATE_LIMIT} of {RATE_LIMIT}, Retry-After {wait} s"


def cost_is_capped(stage: Stage) -> str:
    budget = {"DAILY_BUDGET_USD": "0.002", "MAX_OUTPUT_TOKENS": "50", "RATE_LIMIT_REQUESTS": "100"}
    for vendor in stage.chain:
        budget[f"{vendor.upper()}_INPUT_USD_PER_MTOK"] = "10"
        budget[f"{vendor.upper()}_OUTPUT_USD_PER_MTOK"] = "20"
    stage.tell("started", "another service with " + " ".join(f"{k}={v}" for k, v in budget.items()))
    with stage.serving(**budget):
        stage.tell("sent", "one question after another")
        response = stage.ask()
        while response.status_code == 200:
            response = stage.ask()
        stage.log_line(response)
        costs = [line["cost_usd"] for line in stage.lines() if line.get("cost_usd")]
    error = response.json()["error"]
    stage.tell("detail", error["message"])
    require(error["code"] == "daily_budget_exhausted", "the budget ends, and refuses")
    require(response.status_code == 503 and response.headers["retry-after"], "503 with Retry-After")
    require(response.headers["x-should-retry"] == "false", "no SDK tries again in a moment")
    require(0 < sum(costs) <= 0.002, "no more than the budget is spent")
    require(len(stage.received()) == len(costs), "the refused one makes no call")
    return f"{len(costs)} calls cost ${sum(costs):.5f} of $0.002; one more might exceed it: 503"


def repeats_are_idempotent(stage: Stage) -> str:
    stage.script(stage.chain[0], {"delay_seconds": 0.5})
    key = {"Idempotency-Key": "order-1234"}
    stage.tell("sent", "the same question twice at once, both with Idempotency-Key: order-1234")
    with ThreadPoolExecutor(2) as pool:
        both = [call.result() for call in [pool.submit(stage.ask, **key) for _ in range(2)]]
    require(
        sorted(r.status_code for r in both) == [200, 409], "one runs, the other is told to wait"
    )
    stage.tell("sent", "the question once more, a moment later")
    repeat = stage.ask(**key)
    first = next(response for response in both if response.status_code == 200)
    require(repeat.headers.get("idempotent-replayed") == "true", "the repeat is replayed")
    require(repeat.json()["choices"] == first.json()["choices"], "with the same answer")
    calls = len(stage.received())
    stage.tell("provider", f"received {calls} request for all three")
    require(calls == 1, "the provider is called once")
    return "two at once: 200 and 409; the repeat was replayed; 1 call to a provider"


def input_is_limited(stage: Stage) -> str:
    text = "many words " * 2000
    stage.tell("sent", f"a question of {len(text):,} characters")
    response = stage.ask(text)
    error = response.json()["error"]
    stage.tell("detail", error["message"])
    require(response.status_code == 413, "413")
    require(error["code"] == "context_length_exceeded", "with a code that SDKs know")
    require("1000" in error["message"], "the limit is named")
    require(not stage.received(), "no provider is called")
    return f"413: {error['message'].partition(';')[0]}"


def history_is_managed(stage: Stage) -> str:
    turns = [
        {"role": role, "content": f"{role} turn {number}"}
        for number in range(1, 16)
        for role in ("user", "assistant")
    ]
    system = {"role": "system", "content": "Answer briefly."}
    last = {"role": "user", "content": "And what did I ask first?"}
    stage.tell("sent", f"{len(turns) + 2} messages: the system's, {len(turns)} turns, a question")
    response = stage.ask([system, *turns, last])
    line = stage.log_line(response)
    require(response.status_code == 200, "the question is answered")
    received = stage.received()
    for request, purpose in zip(received, ("asked for a summary", "asked to answer"), strict=False):
        stage.tell("provider", f"{purpose}; it saw:")
        for message in messages_of(request["body"]):
            stage.tell("", message)
    seen = json.dumps(received[-1]["body"])
    require("Answer briefly." in seen and "And what did I" in seen, "both ends stay")
    require("user turn 15" in seen and 'user turn 1"' not in seen, "the oldest turns go")
    require(len(received) == 2 and "Summary of the earlier" in seen, "a summary takes their place")
    return f"{line['trimmed_messages']} of {len(turns) + 2} messages became a summary"


def told_attempts(attempts: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{a['provider']} {a['outcome']} ({a['duration_ms']:.0f} ms)" for a in attempts
    )


def messages_of(body: dict[str, Any]) -> Iterator[str]:
    """A line for each message, in whichever vendor's format, long ones cut."""
    system = body.get("system", body.get("systemInstruction", {}).get("parts"))
    messages = [{"role": "system", "content": system}] if system else []
    for message in [*messages, *body.get("messages", body.get("contents", ()))]:
        parts = message.get("content", message.get("parts"))
        text = parts if isinstance(parts, str) else " ".join(part["text"] for part in parts)
        line = " ".join(f"{message['role']}: {text}".split())
        yield line if len(line) <= 90 else f"{line[:60]} ... {line[-26:]}"


@dataclass(frozen=True, slots=True)
class Guardrail:
    title: str
    items: Mapping[str, Callable[[Stage], str]]


GUARDRAILS = (
    Guardrail(
        "Visibility: know before users tell you",
        {
            "All API requests are logged": requests_are_logged,
            "Errors raise alerts": errors_raise_alerts,
        },
    ),
    Guardrail(
        "Environment: what is missing or wrong stops the start",
        {
            "The environment is validated": environment_is_validated,
            "API keys are not in code": keys_are_not_in_code,
        },
    ),
    Guardrail(
        "Availability: one dies, the rest survive",
        {
            "External calls time out": calls_time_out,
            "Retries use exponential backoff": retries_back_off,
            "There is a fallback": there_is_a_fallback,
        },
    ),
    Guardrail(
        "Resources: nobody takes more than their share",
        {
            "The rate limit is enforced": rate_is_limited,
            "The daily cost is capped": cost_is_capped,
            "Repeats are idempotent": repeats_are_idempotent,
        },
    ),
    Guardrail(
        "Context: only what fits goes to a model",
        {
            "The input is limited": input_is_limited,
            "The history is managed": history_is_managed,
        },
    ),
)
ITEMS = sum(len(guardrail.items) for guardrail in GUARDRAILS)

if __name__ == "__main__":
    sys.exit(main())
