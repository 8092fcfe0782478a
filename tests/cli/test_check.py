"""`scaffold check` on a rendered service: whole, with guardrails taken out by hand, interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pexpect
import pytest

from tests.processes import commands
from tests.rendering import make_environment, render, take_snapshot

from .conftest import SCAFFOLD, Scaffold, Terminal
from .test_refusals import assert_refused

pytestmark = pytest.mark.xdist_group("cli check")

RETRY = (
    "app/guardrails/availability/retry.py",
    "return await retrying(first_or_next)",
    "return await first_or_next()",
)
FALLBACK = ("app/chat.py", "return able", "return able[:1]")
IGNORED = (".gitignore", "\n.env\n", "\n")
SYNTAX = ("app/chat.py", "class GuardedChat:", "class GuardedChat")
RUN_SECONDS = 300.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service of this working tree, with its environment."""
    project = tmp_path_factory.mktemp("services") / "my-service"
    render(
        take_snapshot(tmp_path_factory.mktemp("template")),
        project,
        {"framework": "fastapi", "storage": "sqlite", "providers": ["openai", "anthropic"]},
    )
    make_environment(project, project / ".venv")
    return project


@contextmanager
def edited(service: Path, name: str, old: str, new: str) -> Iterator[None]:
    """The service with one place of one file changed by hand."""
    path = service / name
    text = path.read_text()
    assert text.count(old) == 1, f"{name} no longer has {old!r}"
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_text(text)


@pytest.fixture
def checked(variables: Mapping[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command without a terminal, in the environment of somebody else's project."""

    def check(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        elsewhere = str(Path(variables["HOME"]) / "elsewhere")
        return subprocess.run(
            [SCAFFOLD, "check", *flags],
            cwd=folder,
            env={**variables, "VIRTUAL_ENV": elsewhere, "UV_PROJECT_ENVIRONMENT": elsewhere},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )

    return check


def processes_of(service: Path) -> list[str]:
    return [command for command in commands() if str(service / ".venv") in command]


def ended(child: pexpect.spawn[str]) -> int | None:
    child.expect(pexpect.EOF)
    child.wait()
    status: int | None = child.exitstatus
    return status


def test_a_fresh_service_has_every_item(terminal: Terminal, service: Path) -> None:
    """On a terminal time is seen to pass; then each item is a yes, with its evidence."""
    child = terminal("check", str(service))
    child.expect("Running the checklist of my-service")
    child.expect("0:00:0[1-9]")
    child.expect_exact("429 after 20 of 20, Retry-After", timeout=RUN_SECONDS)
    child.expect("12 of 12: ready for production")
    assert ended(child) == 0
    assert processes_of(service) == []


def test_a_guardrail_that_was_taken_out_is_named(
    checked: Callable[..., subprocess.CompletedProcess[str]],
    service: Path,
    variables: Mapping[str, str],
) -> None:
    """Without its retry exactly that item is open, and the reason says what was seen instead."""
    with edited(service, *RETRY):
        result = checked(service, "--json")
    assert result.returncode == 1, result.stderr
    document = json.loads(result.stdout)
    (item,) = [item for item in document["items"] if not item["passed"]]
    assert item["item"] == "Is retry logic using exponential backoff?"
    assert item["step"] == "3. Availability"
    assert item["reason"].startswith("A provider that fails is asked again")
    assert item["reason"].endswith(": openai failed twice and was asked 1 of 3 times")
    assert all(item["evidence"] for item in document["items"] if item["passed"])
    assert (document["passed"], document["total"], len(document["items"])) == (11, 12, 12)
    assert document["service"] == "my-service"
    assert document["verdict"] == "nearly ready, 1 open"
    assert not (Path(variables["HOME"]) / "elsewhere").exists()


def test_three_open_items_are_not_ready(
    checked: Callable[..., subprocess.CompletedProcess[str]], service: Path
) -> None:
    """The verdict is the guide's, and the exit status tells it to a script."""
    with ExitStack() as stack:
        for edit in (RETRY, FALLBACK, IGNORED):
            stack.enter_context(edited(service, *edit))
        result = checked(service)
    assert result.returncode == 3, result.stderr
    assert "9 of 12: not ready for production, 3 open" in result.stdout
    for seen in ("openai was down, and nobody stepped in", ".gitignore does not list .env"):
        assert seen in " ".join(result.stdout.split())
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(("by", "status"), [("Ctrl-C", 130), ("SIGTERM", 143)])
def test_an_interruption_leaves_nothing_running(
    terminal: Terminal, service: Path, temporary: Path, by: str, status: int
) -> None:
    """The tests, and the services that they have started, end before the command does."""
    child = terminal("check", str(service))
    deadline = time.monotonic() + 60
    while not any(line.endswith("-m app") for line in processes_of(service)):
        assert time.monotonic() < deadline and child.isalive(), child.before
        child.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=0.1)
    if by == "Ctrl-C":
        child.sendintr()
        child.expect("cancelled: what was started has ended")
    else:
        child.kill(15)
    assert ended(child) == status
    assert processes_of(service) == []
    assert not list(temporary.glob("scaffold-*"))


def pytest_in(service: Path, *arguments: str) -> str:
    """What the service's own pytest prints."""
    result = subprocess.run(
        [str(service / ".venv/bin/python"), "-m", "pytest", "--quiet", *arguments],
        cwd=service,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    return " ".join(result.stdout.split())


def test_the_services_own_run_ends_with_the_table(service: Path) -> None:
    """Plain pytest prints the items that took part, and how many did not."""
    output = pytest_in(service, "-k", "test_the_input_is_limited")
    assert "yes Is there input token limit? 413: The input has" in output
    assert "1 of 12: 11 not run" in output


def test_a_service_that_does_not_start_says_why(service: Path) -> None:
    """What an item could not be tested for is a no, in one line and not as a traceback."""
    with edited(service, *SYNTAX):
        output = pytest_in(service, "tests/checklist", "-k", "test_the_input_is_limited")
    table = output.partition("= checklist =")[2]
    assert "its test could not begin: the service ended: SyntaxError" in table
    assert "Traceback" not in table


class TestRefusals:
    @pytest.fixture
    def folder(self, workplace: Path) -> Path:
        """What looks like a service, for a uv that does not look."""
        folder = workplace / "x y"
        (folder / "tests/checklist").mkdir(parents=True)
        (folder / ".copier-answers.yml").write_text("project_name: x\n")
        return folder

    @pytest.mark.parametrize("flags", [[], ["--json"]])
    def test_a_folder_without_a_service(self, scaffold: Scaffold, flags: list[str]) -> None:
        """The current folder is refused with what it lacks."""
        result = scaffold("check", *flags)
        assert_refused(result, ".copier-answers.yml", "tests/checklist", "`scaffold new`")
        assert result.stdout == ""

    def test_a_path_that_is_no_folder(self, scaffold: Scaffold, workplace: Path) -> None:
        """A missing folder and a file are told apart."""
        (workplace / "file").touch()
        assert_refused(scaffold("check", "absent"), "absent", "does not exist", "give the folder")
        assert_refused(scaffold("check", "file"), "file", "is a file", "give the folder")

    @pytest.mark.parametrize("content", ["", "- x\n", "{", "project: x\n"])
    def test_a_record_without_a_name(self, scaffold: Scaffold, folder: Path, content: str) -> None:
        """A record that is not as Copier wrote it is refused."""
        (folder / ".copier-answers.yml").write_text(content)
        assert_refused(scaffold("check", folder), ".copier-answers.yml", "restore")

    def test_a_missing_uv(
        self, scaffold: Scaffold, folder: Path, path_without: Callable[[str], str]
    ) -> None:
        """Without uv nothing is run, and the message says where to get it."""
        result = scaffold("check", folder, PATH=path_without("uv"), UV="")
        assert_refused(result, "uv is not on the PATH", "https://")
        assert "--no-install" not in result.stderr

    def test_a_broken_environment_is_no_verdict(
        self, scaffold: Scaffold, folder: Path, program: Callable[[str, str], Path]
    ) -> None:
        """Where the tests cannot run, the last that was printed is shown, with what to try."""
        uv = program("uv", "seq 100; echo 'error: no network' >&2; exit 2")
        result = scaffold("check", folder, "--json", UV=str(uv))
        assert result.returncode == 4
        assert result.stdout == ""
        assert "\n  100\n  error: no network\n" in result.stderr
        assert "\n  80\n" not in result.stderr
        assert f"cd '{folder}' && uv run pytest tests/checklist" in result.stderr

    def test_a_report_that_cannot_be_read(
        self, scaffold: Scaffold, folder: Path, program: Callable[[str, str], Path]
    ) -> None:
        """A checklist that somebody has changed beyond recognition is named."""
        uv = program("uv", 'echo "{}" > "$CHECKLIST_REPORT"')
        result = scaffold("check", folder, UV=str(uv))
        assert_refused(result, "tests/checklist", "restore", status=4)
