"""One behaviour over all frameworks. The first of them is the measure of the others."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox

from ..matrix.combinations import read_axes
from ..rendering import render, take_snapshot
from ..service.serving import Project, Service
from .description import normalised
from .recording import Recording, differences, record
from .script import CHAPTERS, CHAT, JSON, RATE_LIMIT, question, script

pytestmark = pytest.mark.xdist_group("frameworks")

ROUTES = Path(__file__).with_name("routes")


def frameworks() -> tuple[str, ...]:
    return next(axis.values for axis in read_axes() if axis.name == "framework")


@dataclass(frozen=True, slots=True)
class Played:
    """What one framework's service answered to the whole script, the line of a stream that was left
    before its first chunk, how it describes itself, and all that it has written."""

    recordings: dict[str, Recording]
    left: dict[str, Any]
    description: dict[str, Any]
    output: list[str]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """What each framework's service answered, one after the other."""
    template = take_snapshot(tmp_path_factory.mktemp("template"))
    with Sandbox.in_thread() as sandbox:
        return {
            name: play(name, template, tmp_path_factory.mktemp(name), sandbox)
            for name in frameworks()
        }


def play(framework: str, template: Path, folder: Path, sandbox: Sandbox) -> Played:
    """Renders a service, gives it the owner's routes in its idiom, and asks it everything."""
    root = folder / "service"
    render(template, root, {"framework": framework})
    shutil.copyfile(ROUTES / f"{framework}.py", root / "app" / "routes.py")
    project = Project(root, variables(sandbox), folder / "service.db")
    with project.serve() as service:
        recordings = {exchange.name: record(service, sandbox, exchange) for exchange in script()}
        left = leave_before_the_first_chunk(service, sandbox)
        document = service.http().get("/openapi.json").json()
        output = service.output().splitlines()
    return Played(recordings, left, normalised(document), output)


def leave_before_the_first_chunk(service: Service, sandbox: Sandbox) -> dict[str, Any]:
    """The line of a caller who did not wait."""
    sandbox.reset()
    sandbox.script("openai", [Fault(delay_seconds=20)])
    client = service.http(f"key-of-caller-of-{CHAPTERS[0].__name__}")
    with suppress(httpx.ReadTimeout):
        headers = {"x-request-id": "left-before-the-first"}
        client.post(CHAT, content=question(stream=True), headers={**JSON, **headers}, timeout=0.3)
    return service.line_of("left-before-the-first")


def variables(sandbox: Sandbox) -> dict[str, str]:
    callers = ["limited", *(f"caller-of-{chapter.__name__}" for chapter in CHAPTERS)]
    return {
        **sandbox.environment(),
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": ",".join(f"{caller}:key-of-{caller}" for caller in callers),
        "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
        "MAX_ATTEMPTS": "2",
        "MAX_BODY_BYTES": "65536",
        "FIRST_BYTE_TIMEOUT_SECONDS": "3",
        "IDLE_TIMEOUT_SECONDS": "3",
        "DEADLINE_SECONDS": "15",
    }


def test_each_exchange_has_a_name_of_its_own() -> None:
    """No answer takes the place of another."""
    names = [exchange.name for exchange in script()]
    assert len(names) == len(set(names))


def test_each_framework_has_the_owners_routes() -> None:
    """One file for each framework that can be chosen."""
    assert {path.stem for path in ROUTES.glob("[a-z]*.py")} == set(frameworks())


def test_all_answer_as_the_script_says(
    played: dict[str, Played], subtests: pytest.Subtests
) -> None:
    """Each status is the expected one, and only what is to break off does."""
    for name, service in played.items():
        with subtests.test(name):
            expected = {exchange.name: exchange.status for exchange in script()}
            assert {n: r["status"] for n, r in service.recordings.items()} == expected
            broken = {n for n, r in service.recordings.items() if r.get("whole") is False}
            assert broken == {exchange.name for exchange in script() if exchange.breaks}


@pytest.mark.promise("V1", "V3")
def test_all_answer_and_log_alike(played: dict[str, Played], subtests: pytest.Subtests) -> None:
    """Status, headers, JSON, events, the log line and the calls to providers are the same."""
    measure, *others = played
    for name in others:
        for exchange in script():
            with subtests.test(f"{name}: {exchange.name}"):
                one, other = (played[each].recordings[exchange.name] for each in (measure, name))
                found = list(differences(one, other))
                assert not found, "\n".join([f"{measure} / {name}", *found])


@pytest.mark.promise("V1")
def test_a_stream_that_is_left_before_it_began_is_no_crash(
    played: dict[str, Played], subtests: pytest.Subtests
) -> None:
    """That its call is cancelled under it is no bug of the framework's."""
    for name, service in played.items():
        with subtests.test(name):
            assert (service.left["outcome"], service.left["status"]) == ("disconnected", 499)
            assert [attempt["cut_by"] for attempt in service.left["attempts"]] == ["caller"]


@pytest.mark.promise("V1")
def test_each_request_is_logged_once(played: dict[str, Played], subtests: pytest.Subtests) -> None:
    """Whatever becomes of it, in one form: nothing but its line tells of a request, neither the
    framework nor the server, unless it is the alert of a bug."""
    for name, service in played.items():
        with subtests.test(name):
            lines = [json.loads(line) for line in service.output]
            requests = [line["request_id"] for line in lines if line["event"] == "request"]
            assert len(requests) == len(set(requests)) >= len(service.recordings)
            others = [line for line in lines if line["event"] not in ("request", "alert")]
            assert {line["level"] for line in others} == {"info"}
            assert {line.get("logger") for line in others} == {None, "uvicorn.error"}
            assert not [line for line in others if "/things" in str(line) or "/v1/" in str(line)]


def test_all_describe_themselves_alike(
    played: dict[str, Played], subtests: pytest.Subtests
) -> None:
    """The OpenAPI documents have the same paths, methods, parameters and schemas."""
    measure, *others = played
    for name in others:
        with subtests.test(name):
            found = list(differences(played[measure].description, played[name].description))
            assert not found, "\n".join([f"{measure} / {name}", *found])
