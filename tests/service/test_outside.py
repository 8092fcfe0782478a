"""`scaffold check --url`: on running services, whole and broken in one place each."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
from rich.console import Console

from sandbox.server import Sandbox
from scaffold_cli.check import NotChecked, Report, print_report
from scaffold_cli.errors import ScaffoldError, UsageError
from scaffold_cli.main import app
from scaffold_cli.outside import examine
from scaffold_cli.visitor import Address, NoAnswer, visiting

from .asking import calls
from .conftest import MakeProject
from .meddling import Exchange, Meddle, leave, meddled, serving
from .serving import Service

KEY = "key-of-caller0"
VARIABLE = "KEY_OF_THE_SERVICE"
METRICS_TOKEN = "f3a1-for-metrics"
DOCS, METRICS = (
    "Are /docs and /openapi.json closed to strangers?",
    "Is /metrics closed to strangers?",
)


@pytest.fixture(scope="module")
def development(make_project: MakeProject) -> Iterator[Service]:
    """A service at the vendors' stand-ins; as in all development, its documentation is open."""
    limits = {"RATE_LIMIT_REQUESTS": "1000", "METRICS_TOKEN": METRICS_TOKEN}
    with make_project("outside").serve(**limits) as service:
        yield service


@pytest.fixture(scope="module")
def production(make_project: MakeProject) -> Iterator[Service]:
    """A service as it is served for real; it reaches no vendor, and is asked for none."""
    project = make_project("live")
    variables = {n: v for n, v in project.variables.items() if not n.endswith("_BASE_URL")}
    production = {"ENVIRONMENT": "production", "SHUTDOWN_DELAY_SECONDS": "0"}
    with replace(project, variables=variables).serve(**production) as service:
        yield service


def look(url: str, key: str | None = KEY, *, probe: bool = True) -> Report:
    return examine(url, key, Console(file=StringIO()), probe=probe)


def judged(report: Report, passed: bool | None) -> dict[str, str]:
    """What was said of the items with this outcome."""
    return {item.question: item.seen for item in report.items if item.passed is passed}


def close_documentation(exchange: Exchange) -> None:
    if exchange.path in ("/docs", "/openapi.json"):
        exchange.path = "/absent"


def test_a_service_in_production_has_nothing_open(production: Service) -> None:
    """With a key and without a model call no item is a no; what is left is said to be unseen."""
    report = look(production.url, probe=False)
    assert judged(report, False) == {}
    assert report.status == 0
    assert len(judged(report, True)) == 10
    assert report.verdict == "none open, 12 not seen from outside"
    assert production.lines("attempt_failed", "provider_call") == []


def test_a_stranger_sees_less_and_is_told_so(production: Service) -> None:
    """Without a key what needs one is neither a yes nor a no."""
    report = look(production.url, None, probe=False)
    assert judged(report, False) == {}
    unseen = judged(report, None)
    assert unseen["Is a body that is no JSON refused?"] == "not seen without a key (--api-key-env)"
    assert unseen["Does a stream begin?"] == "not seen without a model call (--probe)"
    assert unseen["Is the history managed?"] == "not seen from outside"


def test_nothing_but_a_probe_calls_a_model(development: Service, sandbox: Sandbox) -> None:
    """Read-only means that no vendor is asked and nothing is counted against anybody."""
    before = development.books
    assert judged(look(development.url, probe=False), False).keys() == {DOCS}
    assert calls(sandbox) == 0
    assert development.books == before


def test_a_probe_sees_the_guardrails_at_work(development: Service, sandbox: Sandbox) -> None:
    """Two calls reach a model, and what they cost is what the service says."""
    spent = development.account(KEY)
    report = look(development.url)
    assert judged(report, False).keys() == {DOCS}
    assert len(judged(report, True)) == 15
    assert calls(sandbox) == 2
    cost = development.account(KEY)[0] - spent[0]
    assert report.document["probe"] == {
        "model_calls": 2,
        "cost_usd": f"{cost / 1e9:.9f}".rstrip("0"),
    }
    assert "the limit is 4000 (MAX_INPUT_TOKENS)" in str(judged(report, True))


def test_in_development_all_is_open(service: Service) -> None:
    """Without a token the metrics are a stranger's too."""
    opened = judged(look(service.url, None, probe=False), False)
    assert opened[DOCS].startswith("GET /docs: 200")
    assert opened[METRICS].startswith("GET /metrics: 200")


# Broken in one place


def use_a_key(exchange: Exchange) -> None:
    if not exchange.key:
        exchange.sent["authorization"] = f"Bearer {KEY}"


def take_any_key(exchange: Exchange) -> None:
    if exchange.key not in ("", KEY):
        exchange.sent["authorization"] = f"Bearer {KEY}"


def forget_the_idempotency_key(exchange: Exchange) -> None:
    exchange.sent.pop("idempotency-key", None)


def shorten_the_input(exchange: Exchange) -> None:
    if len(exchange.body) > 10_000:
        messages = [{"role": "user", "content": "short"}]
        exchange.body = json.dumps({**exchange.asked, "messages": messages}).encode()


def name_the_server(exchange: Exchange) -> None:
    exchange.headers["server"] = "uvicorn"


def tell_a_version(exchange: Exchange) -> None:
    exchange.headers["server"] = "nginx/1.27.1"


def lose_an_id(exchange: Exchange) -> None:
    if exchange.path == "/v1/models":
        del exchange.headers["x-request-id"]


def replace_the_id(exchange: Exchange) -> None:
    if exchange.status == 401:
        exchange.headers["x-request-id"] = "another"
        exchange.document = {**exchange.document, "request_id": "another"}


def refuse_in_html(exchange: Exchange) -> None:
    if exchange.status == 404 and exchange.path.startswith("/v1"):
        exchange.headers["content-type"] = "text/html"


def refuse_without_error(exchange: Exchange) -> None:
    if exchange.status == 400:
        exchange.document = {k: v for k, v in exchange.document.items() if k != "error"}


def lose_the_store(exchange: Exchange) -> None:
    if exchange.path == "/readyz":
        exchange.document = {"status": "ready", "store": "unreachable"}


def shut_down(exchange: Exchange) -> None:
    if exchange.path == "/readyz":
        exchange.status, exchange.document = 503, {"status": "shutting_down"}


def answer_for_nobody(exchange: Exchange) -> None:
    exchange.headers.pop("x-provider", None)


def break_streams_off(exchange: Exchange) -> None:
    exchange.content = exchange.content.replace(b"data: [DONE]\n\n", b"")


def stream_nothing(exchange: Exchange) -> None:
    if exchange.asked.get("stream"):
        exchange.content = b"data: [DONE]\n\n"


def never_stream(exchange: Exchange) -> None:
    if exchange.asked.get("stream"):
        exchange.headers["content-type"] = "application/json"


def hide_the_cost(exchange: Exchange) -> None:
    exchange.headers.pop("x-budget-remaining-usd", None)


def hide_the_rate(exchange: Exchange) -> None:
    exchange.headers.pop("ratelimit", None)


def charge_repeats(exchange: Exchange) -> None:
    if exchange.headers.get("idempotent-replayed"):
        exchange.headers["x-cost-usd"] = "0.25"


def take_anything_for_json(exchange: Exchange) -> None:
    if b'"invalid_json"' in exchange.content:
        exchange.status = 200


def read_all(exchange: Exchange) -> None:
    if exchange.status == 413 and not exchange.body:
        exchange.status = 200


def hang_up(exchange: Exchange) -> None:
    if exchange.status == 413 and not exchange.body:
        exchange.status = 0


@pytest.mark.parametrize(
    ("question", "request_", "response", "said"),
    [
        ("Is a call without a key refused?", use_a_key, leave, "400 invalid_json, and not 401"),
        ("Is a call with a wrong key refused?", take_any_key, leave, "400 invalid_json"),
        ("Does it keep its software to itself?", leave, name_the_server, "server: uvicorn"),
        ("Does it keep its software to itself?", leave, tell_a_version, "nginx/1.27.1"),
        ("Has each response its request id?", leave, lose_an_id, "/v1/models: 200"),
        ("Has each response its request id?", leave, replace_the_id, "came back as another"),
        ("Are errors problem documents?", leave, refuse_in_html, "404 not_found is no problem"),
        (
            "Are errors problem documents?",
            leave,
            refuse_without_error,
            "400 application/problem+json lacks error",
        ),
        ("Is it alive and ready?", leave, lose_the_store, "its store is unreachable"),
        ("Is it alive and ready?", leave, shut_down, "503 application/json shutting_down"),
        ("Does a call get an answer?", leave, answer_for_nobody, "without X-Provider"),
        ("Does a stream begin?", leave, break_streams_off, "began and broke off"),
        ("Does a stream begin?", leave, stream_nothing, "brought nothing"),
        ("Does a stream begin?", leave, never_stream, "200 application/json"),
        ("Does a reply tell its cost and what is left?", leave, hide_the_cost, "X-Budget-Rem"),
        ("Does a reply tell the rate limit?", leave, hide_the_rate, "without RateLimit"),
        (
            "Is a repeat replayed without a second charge?",
            forget_the_idempotency_key,
            leave,
            "the model was called again",
        ),
        ("Is a repeat replayed without a second charge?", leave, charge_repeats, "0.25"),
        ("Is a body that is no JSON refused?", leave, take_anything_for_json, "200 invalid_json"),
        ("Is a body that is too large refused before it is read?", leave, read_all, "200"),
        ("Is a body that is too large refused before it is read?", leave, hang_up, "an answer"),
        ("Is an input of 20000 tokens refused?", shorten_the_input, leave, "is higher, or nothing"),
    ],
)
def test_what_is_broken_is_named_and_nothing_else(
    development: Service, question: str, request_: Meddle, response: Meddle, said: str
) -> None:
    """One thing is otherwise than promised, and exactly its item turns to no."""

    def request(exchange: Exchange) -> None:
        close_documentation(exchange)
        request_(exchange)

    with meddled(development.url, request=request, response=response) as url:
        report = look(url)
    assert judged(report, False).keys() == {question}
    assert said in judged(report, False)[question]
    assert report.status == 1


def test_a_way_without_tls_is_a_no(production: Service) -> None:
    """Beyond this machine HTTP is open to whoever is on the way."""
    port = Address.parse(production.url).port
    report = look(f"http://0.0.0.0:{port}", None, probe=False)
    assert judged(report, False).keys() == {"Is the way to it encrypted?"}


def test_several_no_are_not_ready(service: Service) -> None:
    """Three open items are the status of a service that is not ready."""
    with meddled(service.url, response=name_the_server) as url:
        report = look(url, None, probe=False)
    assert len(judged(report, False)) == report.status == 3


def test_probing_ends_with_a_call_that_fails(development: Service, sandbox: Sandbox) -> None:
    """Where the first call gets no answer no other is made; what it would have shown is unseen."""

    def refuse(exchange: Exchange) -> None:
        if exchange.asked:
            exchange.status = 503

    with meddled(development.url, response=refuse) as url:
        report = look(url)
    assert judged(report, False).keys() == {DOCS, "Does a call get an answer?"}
    unseen = judged(report, None)
    assert "no answer" in unseen["Is a repeat replayed without a second charge?"]
    assert "no answer" in unseen["Does a stream begin?"]
    assert calls(sandbox) == 1


@pytest.mark.parametrize("status", [302, 500, 401])
def test_what_is_not_shown_is_no_verdict(production: Service, status: int) -> None:
    """A proxy that keeps the probes to itself leaves it open whether the service is ready, one that
    redirects or fails, whether its documentation is closed."""

    def hide(exchange: Exchange) -> None:
        if exchange.path == "/docs" and status != 401:
            exchange.status, exchange.headers, exchange.content = status, {}, b""
        if exchange.path in ("/livez", "/readyz") and status == 401:
            exchange.status, exchange.headers, exchange.content = status, {}, b""

    with meddled(production.url, response=hide) as url:
        report = look(url, probe=False)
    assert judged(report, False) == {}
    assert ("Is it alive and ready?" if status == 401 else DOCS) in judged(report, None)


# What gives no verdict


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Elsewhere(Files):
    """Sends everybody on, and counts who comes."""

    visits = 0

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("location", "/elsewhere?secret=1")
        self.end_headers()
        type(self).visits += self.path.startswith("/elsewhere")

    def do_POST(self) -> None:
        self.do_GET()


class Dripping(BaseHTTPRequestHandler):
    """A byte of an endless header, again and again."""

    def handle(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx-drip: ")
            while self.wfile.write(b"."):
                pass
        except OSError:
            pass


class Closing(BaseHTTPRequestHandler):
    """As a port for TLS does with whoever speaks none."""

    def handle(self) -> None:
        self.rfile.readline()


class Greeting(BaseHTTPRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass  # what is left unread when it closes would reset the connection
        self.wfile.write(b"220 mail.example.com\r\n\r\n")


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (Files, "is no service of this template .*/livez: 404 text/html.*: give its base URL"),
        (Elsewhere, "it redirects, which is not followed"),
        (Greeting, "what answers there is not HTTP"),
        (Closing, "it closed the connection without an answer|the connection broke"),
    ],
)
def test_something_else_is_named_as_such(handler: type[BaseHTTPRequestHandler], said: str) -> None:
    """What is no service of this kind gets no table."""
    with serving(handler) as url, pytest.raises(NotChecked, match=said) as refused:
        look(url, None, probe=False)
    assert "secret" not in str(refused.value)
    assert Elsewhere.visits == 0


def test_nobody_there() -> None:
    """A port that nobody listens on, and a name that nobody has."""
    with pytest.raises(NotChecked, match="cannot be reached: Connection refused"):
        look("http://127.0.0.1:1", None)
    with pytest.raises(NotChecked, match="cannot be reached: "):
        look("http://nobody.invalid", None)


def test_a_server_that_drips_is_left() -> None:
    """The limit of time is one for the whole exchange, however many bytes come."""

    async def ask(url: str) -> None:
        async with visiting(Address.parse(url)) as visitor:
            await visitor.ask("GET", "/", seconds=0.2)

    with (
        serving(Dripping) as url,
        pytest.raises(NoAnswer, match=r"no answer within 0\.2 s|not HTTP"),
    ):
        asyncio.run(ask(url))


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def encrypted(production: Service, authority: trustme.CA) -> Iterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with meddled(production.url, tls=context) as url:
        yield url


def test_a_trusted_certificate_is_a_yes(
    encrypted: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS all is seen that is seen without, the refusal of a large body too."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    report = look(encrypted, probe=False)
    assert judged(report, False) == {}
    assert len(judged(report, True)) == 11


def test_an_unknown_certificate_is_said_to_be_one(encrypted: str) -> None:
    """No key is sent to whoever cannot show who they are."""
    with pytest.raises(NotChecked, match="its certificate is not trusted"):
        look(encrypted, probe=False)


# The key, and what a server says


def test_a_key_that_is_not_known_is_refused(development: Service) -> None:
    """A typing error is told at once, and not as a table of no."""
    with pytest.raises(UsageError, match=r"does not know the key .*\(401\)"):
        look(development.url, "not-a-key-of-it")


def test_no_key_goes_over_an_open_way() -> None:
    """Beyond this machine a key is sent over TLS alone."""
    with pytest.raises(UsageError, match="not sent over plain HTTP"):
        look("http://example.invalid")


def test_a_server_moves_no_cursor_and_shows_no_key(development: Service) -> None:
    """What it says is shown without control characters, and without the key that it was sent."""

    def echo(exchange: Exchange) -> None:
        if exchange.status == 413 and exchange.content:
            detail = f"\x1b[2J\u202e{exchange.key} 4000"
            exchange.document = {**exchange.document, "detail": detail}

    with meddled(development.url, response=echo) as url:
        report = look(url)
    output = StringIO()
    print_report(Console(file=output, width=110), report)
    assert "413: ?[2J?*** 4000" in output.getvalue()
    assert KEY not in output.getvalue() + json.dumps(report.document)


# The command


def check(*arguments: str) -> object:
    """The exit status."""
    return typer.main.get_command(app)(["check", *arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([".", "--url", "http://localhost"], "give one of them"),
        (["--probe"], "give its --url"),
        (["--api-key-env", "X"], "give its --url"),
        (["--url", "http://localhost", "--probe"], "name its --api-key-env"),
        (["--url", "https://user:pass-4711@host"], "credentials"),
        (["--url", "ftp://host"], "http:// or https://"),
        (["--url", "host:8000"], "http:// or https://"),
        (["--url", "http://"], "a host"),
        (["--url", "http://host:x"], "is no URL"),
        (["--url", "http://ho st"], "is no URL"),
        (["--url", "http://host/?a=b"], "base URL alone"),
        (["--url", "http://localhost", "--api-key-env", "sk-4711"], "name of an environment"),
        (["--url", "http://localhost", "--api-key-env", "EMPTY"], "name of an environment"),
        (["--url", "http://localhost", "--api-key-env", "BROKEN"], "no API key in it"),
    ],
)
def test_what_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """Before anything is asked, in one line that quotes no secret."""
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setenv("BROKEN", "4711\n4712")
    with pytest.raises(ScaffoldError, match=re.escape(said)) as refused:
        check(*arguments)
    assert refused.value.status == 2
    assert "4711" not in str(refused.value) and "\n" not in str(refused.value)


def test_programs_read_the_same(
    production: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` prints the document alone, progress goes to stderr, the status is the verdict."""
    monkeypatch.setenv(VARIABLE, KEY)
    assert check("--url", f"{production.url}/v1/", "--api-key-env", VARIABLE, "--json") == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert (document["service"], document["passed"]) == (production.url, 10)
    assert {item["passed"] for item in document["items"]} == {True, None}
    assert all(item.get("evidence") or item.get("reason") for item in document["items"])
    assert printed.err == f"Asking {production.url} ...\n"
