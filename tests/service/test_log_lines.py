"""What a running service writes, and what its README says that it writes."""

import json
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from app.caller import Limit
from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from ..rendering import set_policy
from .asking import body, calls
from .conftest import MakeProject
from .serving import Project, Service, eventually

pytestmark = pytest.mark.xdist_group("log lines")

CHAT = "/v1/chat/completions"
OWNERS_ROUTES = Path(__file__).parents[1] / "frameworks" / "routes" / "fastapi.py"
LIMITS = {
    "RATE_LIMIT_REQUESTS": "10",
    "MAX_ATTEMPTS": "2",
    "MAX_HISTORY_MESSAGES": "3",
    "MAX_BODY_BYTES": "65536",
    "FIRST_BYTE_TIMEOUT_SECONDS": "0.5",
    "IDLE_TIMEOUT_SECONDS": "0.5",
    "DEADLINE_SECONDS": "0.8",
    "STREAM_MAX_SECONDS": "1",
    "GRACE_PERIOD_SECONDS": "0.2",
}
AT_ONCE = {"retry-after-ms": "1"}
ALONE = "openai/gpt-6-luna"

PROMPT = "canary_sings_at_midnight"

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asking:
    """A caller of its own for each request, which is named for what becomes of it."""

    service: Service
    sandbox: Sandbox

    def __call__(
        self, name: str, *faults: Fault, key: str = "", headers: Mapping[str, str] = {}, **more: Any
    ) -> None:
        client = self._client(name, key)
        self.sandbox.script("openai", faults)
        with suppress(httpx.RemoteProtocolError):
            client.post(CHAT, json=body(**more), headers=headers)
        self.sandbox.reset()

    def leave(self, name: str) -> None:
        self.sandbox.script("openai", [Reply(chunks=500, chunk_delay_seconds=0.02)])
        client = self._client(name)
        with client.stream("POST", CHAT, json=body(stream=True)) as response:
            next(response.iter_lines())
        self.sandbox.reset()

    def get(self, name: str, path: str) -> None:
        with suppress(httpx.RemoteProtocolError):
            self._client(name).get(path)

    def _client(self, name: str, key: str = "") -> httpx.Client:
        number = len(self.service._clients)
        return self.service.http(key or f"key-of-caller{number}", **{"x-request-id": name})


def quoting(prompt: str) -> Fault:
    """A refusal in which a vendor repeats the prompt wherever it can."""
    error = {"message": prompt, "type": prompt, "code": prompt, "param": prompt}
    headers = {"x-request-id": f"about {prompt}"}
    return Fault(status=400, body=json.dumps({"error": error}), headers=headers)


def ask_everything(service: Service, sandbox: Sandbox) -> None:
    ask = Asking(service, sandbox)
    down, silent = Fault(status=500, headers=AT_ONCE), Fault(action="stall")
    ask("answered")
    ask("streamed", stream=True)
    ask("fell-back", down, down)
    for number in range(10):
        ask(f"admitted-{number}", key="key-of-caller99")
    ask("refused", key="key-of-caller99")
    for name in ("asked-first", "replayed"):
        ask(name, key="key-of-caller98", headers={"idempotency-key": "1"})
    sandbox.script("anthropic", [silent])
    ask("cut", silent)
    ask.leave("disconnected")
    ask.get("crashed", "/crash")
    # What the examples do not show.
    ask.get("crashed-midway", "/halves")
    ask("too-large", content="x" * 70_000)
    ask("stalled", Fault(action="stall", after_chunks=3), stream=True, model=ALONE)
    ask("endless", Fault(reply=Reply(chunks=90, chunk_delay_seconds=0.1)), stream=True)
    ask("quoted", quoting(PROMPT), content=PROMPT)
    ask("thoughtful", Fault(reply=Reply(cached_input_tokens=3, reasoning_tokens=4)))
    history = [{"role": role, "content": "Hm."} for _ in range(4) for role in ("user", "assistant")]
    ask("summarised", messages=[*history, {"role": "user", "content": "And?"}])
    sandbox.script("openai", [silent])
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask._client("cut-off").post, CHAT, json=body(stream=True))
        eventually(lambda: calls(sandbox))
        service.signal(signal.SIGTERM)
        hanging.exception()
    service.process.wait(10)


@pytest.fixture(scope="module")
def project(make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Its owner has endpoints that crash, and has summaries made however little time is left."""
    project = make_project("told")
    root = tmp_path_factory.mktemp("told") / "service"
    shutil.copytree(project.root, root)
    shutil.copyfile(OWNERS_ROUTES, root / "app" / "routes.py")
    set_policy(root, {"SUMMARY_MIN_DEADLINE_SECONDS": "0.0"})
    return Project(root, project.variables, project.store)


@pytest.fixture(scope="module")
def service(project: Project, _sandbox: Sandbox) -> Iterator[Service]:
    """A service that has been asked everything, and has ended."""
    _sandbox.reset()
    with project.serve(**LIMITS) as service:
        ask_everything(service, _sandbox)
        yield service


@pytest.fixture(scope="module")
def lines(service: Service) -> dict[str, Line]:
    return {line["request_id"]: line for line in service.lines("request")}


@dataclass(frozen=True, slots=True)
class Documented:
    """The part of README.md that is about the log."""

    text: str

    @property
    def examples(self) -> dict[str, Line]:
        block = re.search(r"```json\n(.*?)```", self.text, re.DOTALL)
        assert block is not None
        lines = [json.loads(line) for line in block[1].splitlines()]
        return {line["request_id"]: line for line in lines}

    @property
    def names(self) -> set[str]:
        """All that it mentions."""
        prose = re.sub(r"```.*?```", "", self.text, flags=re.DOTALL)
        return set(re.findall(r"`([^`]+)`", prose))

    @property
    def fields(self) -> set[str]:
        """Those in the first columns of its tables."""
        columns = re.findall(r"^\| (`.*?) \|", self.text, re.MULTILINE)
        return {name for column in columns for name in re.findall(r"`([^`]+)`", column)}

    def values_of(self, field: str) -> set[str]:
        (row,) = re.findall(rf"^\| `{re.escape(field)}` \| (.*) \|$", self.text, re.MULTILINE)
        return set(re.findall(r"`([^`]+)`", row))


@pytest.fixture(scope="module")
def documented(project: Project) -> Documented:
    readme = (project.root / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Read its log\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    assert section is not None
    return Documented(section[1])


def fields_of(line: Line) -> set[str]:
    """Its names; those of an attempt as `attempts[].name`."""
    own = {f"attempts[].{name}" for attempt in line.get("attempts", ()) for name in attempt}
    return own | line.keys()


@pytest.mark.promise("V1")
def test_each_line_that_is_shown_is_written(
    lines: dict[str, Line], documented: Documented, subtests: pytest.Subtests
) -> None:
    """The README's example of each kind has exactly the fields of a line of that kind, and says
    the same where nothing is measured."""
    for name, example in documented.examples.items():
        with subtests.test(name):
            assert fields_of(example) == fields_of(lines[name])
            steady = ("event", "level", "method", "route", "status", "outcome", "refusal")
            assert {n: example.get(n) for n in steady} == {n: lines[name].get(n) for n in steady}
            shown = [(a["provider"], a["outcome"]) for a in example.get("attempts", ())]
            assert shown == [(a["provider"], a["outcome"]) for a in lines[name].get("attempts", ())]


@pytest.mark.promise("V1")
def test_each_field_is_documented_and_each_documented_one_is_written(
    lines: dict[str, Line], documented: Documented
) -> None:
    """Whatever a request's line can hold stands in the README, and nothing else does."""
    written = {name for line in lines.values() for name in fields_of(line)}
    assert documented.fields == written


def test_each_of_its_own_events_is_documented(service: Service, documented: Documented) -> None:
    """Lines without a logger's name are the service's own."""
    own = [json.loads(line) for line in service.output().splitlines()]
    events = {line["event"] for line in own if "logger" not in line}
    assert events >= {"started", "request", "alert", "stopping", "stopped"}
    assert events <= documented.names


@pytest.mark.promise("V1")
def test_what_cuts_an_attempt_is_named(lines: dict[str, Line], documented: Documented) -> None:
    """Limits, the caller's leaving and the service's end are told apart, and documented."""
    cut = {
        name: [attempt["cut_by"] for attempt in line["attempts"] if "cut_by" in attempt]
        for name, line in lines.items()
        if any("cut_by" in attempt for attempt in line.get("attempts", ()))
    }
    assert cut == {
        "cut": ["first_byte", "deadline"],
        "stalled": ["idle"],
        "endless": ["stream_max"],
        "disconnected": ["caller"],
        "cut-off": ["shutdown"],
    }
    assert documented.values_of("attempts[].cut_by") >= set(get_args(Limit))


def test_a_line_says_where_its_time_went(lines: dict[str, Line]) -> None:
    """Phases and attempts add up to no more than the whole, and each attempt begins when the one
    before it has ended."""
    for line in lines.values():
        attempts = line.get("attempts", ())
        phases = sum(line.get(f"{name}_ms", 0) for name in ("context", "admission", "settlement"))
        spent = sum(attempt["waited_ms"] + attempt["duration_ms"] for attempt in attempts)
        assert phases + spent <= line["duration_ms"] + 1, line
        ended = 0.0
        for attempt in attempts:
            assert attempt["started_ms"] >= ended - 1, line
            ended = attempt["started_ms"] + attempt["waited_ms"] + attempt["duration_ms"]
    first, second = lines["cut"]["attempts"]
    assert first["duration_ms"] >= 450 and 100 <= second["duration_ms"] < 400


def test_a_line_says_why_it_was_dear(lines: dict[str, Line]) -> None:
    """The costs of the attempts, failed ones at their worst case, are the request's; what was
    estimated bounds what was billed."""
    for line in lines.values():
        if "attempts" in line:
            total = sum(attempt["cost_usd"] for attempt in line["attempts"])
            assert line["cost_usd"] == pytest.approx(total), line
            assert line["estimated_input_tokens"] >= line["input_tokens"], line
    down, again, answered = lines["fell-back"]["attempts"]
    assert down["cost_usd"] == again["cost_usd"] > 10 * answered["cost_usd"] > 0
    assert [down["error"], down["vendor_request_id"][:3]] == [
        "openai answered 500 (server_error)",
        "req",
    ]
    assert lines["thoughtful"]["reasoning_tokens"] == 4
    assert lines["thoughtful"]["cached_input_tokens"] == 3
    summary, reply = lines["summarised"]["attempts"]
    assert (summary["summary"], "summary" in reply) == (True, False)
    assert summary["duration_ms"] <= lines["summarised"]["summary_ms"]


def test_a_refusal_says_what_was_left(lines: dict[str, Line]) -> None:
    """The limit, what was left of it and what was asked of it, in its own unit."""
    figures = {
        name: tuple(lines[name].get(field) for field in ("refusal", "limit", "left", "asked"))
        for name in ("refused", "too-large")
    }
    assert figures["refused"] == ("rate_limit_exceeded", 10, 0, 1)
    *known, asked = figures["too-large"]
    assert known == ["request_too_large", 65536, None]
    assert asked and asked > 70_000


@pytest.mark.promise("V7")
def test_no_vendor_brings_the_prompt_into_a_line(service: Service, lines: dict[str, Line]) -> None:
    """What may be the vendor's own words is compared with the request."""
    line = lines["quoted"]
    assert (line["status"], line["refusal"]) == (400, "[prompt]")
    (attempt,) = line["attempts"]
    assert attempt["error"] == "openai answered 400 ([prompt])"
    assert "vendor_request_id" not in attempt
    assert PROMPT not in service.output()


@pytest.mark.promise("V1", "V2")
def test_each_request_has_one_line_and_no_other(service: Service) -> None:
    """However it ends, a crash in mid-stream included; all output is lines of JSON."""
    output = [json.loads(line) for line in service.output().splitlines()]
    requests = [line["request_id"] for line in output if line["event"] == "request"]
    assert len(requests) == len(set(requests))
    others = [line for line in output if line["event"] not in ("request", "alert")]
    assert all(line["level"] == "info" for line in others), others
