"""Renders services from this repository's working tree, makes their environments and runs them.

The matrix and the demonstration share it. It judges nothing: what fails is raised with its output.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from scaffold_cli.environment import find_uv
from scaffold_cli.questionnaire import Answer

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PLAIN_HTTP = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that need no certificates: to load them takes longer than to answer."""
TOOL_SECONDS = 600.0


class CommandFailed(Exception):
    """A program did not end, or begin, as it should. The text holds all that it printed."""

    def __init__(self, command: list[str], what: str, output: str) -> None:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        super().__init__(f"$ {shown}\n{output.rstrip()}\n{what}")


# Rendering


def take_snapshot(folder: Path) -> Path:
    """Copies the template as it is on disk.

    Rendered from here a service has no version to update from, as the working tree has none.
    """
    return copy_files(folder, "copier.yml", "template", "versions.yml", "changed-answers.yml")


def copy_files(folder: Path, *names: str) -> Path:
    """Copies files and folders of this repository as they are on disk: with what is not committed,
    without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *names],
        cwd=ROOT,
        # A git hook names its own repository in variables.
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def render(template: Path, project: Path, answers: Mapping[str, Answer]) -> None:
    """Renders with these answers and the default for each other, whatever the user's own are."""
    # Imported here: half a second that those who only ask for `ROOT` do not need.
    import copier

    copier.run_copy(
        str(template),
        project,
        data=dict(answers),
        defaults=True,
        quiet=True,
        settings=copier.Settings(),
    )


def set_policy(project: Path, values: Mapping[str, str]) -> None:
    """Changes constants of a rendered service's `app/policy.py`, as its owner may."""
    policy = project / "app" / "policy.py"
    text = policy.read_text(encoding="utf-8")
    for name, value in values.items():
        text, edits = re.subn(rf"(?m)^({name}: Final) = .*$", rf"\1 = {value}", text)
        assert edits == 1
    policy.write_text(text, encoding="utf-8")


# Environments


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that holds what one rendered project declares, and nothing else."""

    folder: Path

    @property
    def python(self) -> str:
        return self.program("python")

    def program(self, name: str) -> str:
        return str(self.folder / ("Scripts" if os.name == "nt" else "bin") / name)

    def variables(self) -> dict[str, str]:
        """Those of a person who has activated it, and nothing of this process's own."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")
        variables = {name: os.environ[name] for name in kept if name in os.environ}
        path = os.pathsep.join([str(Path(self.python).parent), variables.get("PATH", "")])
        return {**variables, "PATH": path, "VIRTUAL_ENV": str(self.folder)}


def make_environment(project: Path, folder: Path) -> Environment:
    """`uv sync` of the project into `folder`. Raises `CommandFailed` with what uv said."""
    ignored = {"VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
    variables = {name: value for name, value in os.environ.items() if name not in ignored}
    run(
        # Compiled once: else the first of many starts would do it, at twice the time.
        [find_uv(), "sync", "--quiet", "--compile-bytecode", "--python", sys.executable],
        project,
        {**variables, "UV_PROJECT_ENVIRONMENT": str(folder)},
    )
    return Environment(folder)


def run(command: list[str], folder: Path, variables: Mapping[str, str]) -> str:
    """What the command prints. Raises `CommandFailed` unless it ends with status 0."""
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        raise CommandFailed(command, f"does not end in {TOOL_SECONDS:g} s", output) from None
    output = result.stdout.decode(errors="replace")
    if result.returncode != 0:
        raise CommandFailed(command, f"ended with status {result.returncode}", output)
    return output


# Running


@dataclass(frozen=True, slots=True)
class StandIns:
    """The sandbox's stand-ins in a process of their own, which leads the store's server if any.

    `variables` point a service at them and at what its store needs.
    """

    url: str
    vendors: tuple[str, ...]
    variables: Mapping[str, str]
    pid: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is up; `log` is the file that its output goes to."""

    url: str
    log: Path
    pid: int

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


# Ends with its standard input, so that it does not outlive whoever started it.
_STAND_INS = """
import json, sys

from sandbox.server import Sandbox
from sandbox.stores import place

with Sandbox.in_thread() as stand_ins, place() as store:
    variables = {**stand_ins.environment(), **store}
    print(json.dumps([stand_ins.url, stand_ins.vendors, variables]), flush=True)
    sys.stdin.read()
"""


@contextmanager
def stand_ins(environment: Environment, project: Path) -> Iterator[StandIns]:
    """The project's own sandbox, up until the block ends."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [environment.python, "-c", _STAND_INS],
            cwd=project,
            env=environment.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                said = errors.read().decode(errors="replace")
                raise CommandFailed(["the sandbox's server"], "ended at once", said)
            url, vendors, variables = json.loads(line)
            yield StandIns(url, tuple(vendors), variables, process.pid)
        finally:
            _end(process)


@contextmanager
def service(
    environment: Environment, project: Path, variables: Mapping[str, str], log: Path
) -> Iterator[Service]:
    """`python -m app` under these variables, ready to serve until the block ends."""
    command = [environment.python, "-m", "app"]
    with serving(command, project, {**environment.variables(), **variables}, log) as started:
        yield started


@contextmanager
def serving(
    command: list[str],
    folder: Path,
    variables: Mapping[str, str],
    log: Path,
    *,
    ready: str = "/readyz",
) -> Iterator[Service]:
    """Whatever serves HTTP on `PORT`: up until the block ends, and ready once the path `ready`
    answers 200."""
    with kept_port() as port, log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PORT": str(port), **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is ours to hear; we end the service when we are done with it.
            start_new_session=True,
        )
        started = Service(f"http://127.0.0.1:{port}", log, process.pid)
        try:
            _wait_until_ready(f"{started.url}{ready}", started, process, command)
            yield started
        finally:
            _end(process)


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody else is given until the block ends: another's service there would answer
    as if it were ours."""
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        port: int = keeper.getsockname()[1]
        if sys.platform == "linux":
            # Set after the port was chosen: whoever asks for this very port gets it.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            keeper.close()
        yield port


def _wait_until_ready(
    url: str, started: Service, process: subprocess.Popen[bytes], command: list[str]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False, verify=PLAIN_HTTP) as client:
        while True:
            if process.poll() is not None:
                what = f"ended with status {process.returncode} instead of serving"
                raise CommandFailed(command, what, started.output())
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                what = f"is not ready after {START_SECONDS:g} s"
                raise CommandFailed(command, what, started.output())
            time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks, waits, and in the end insists: nothing that was started here stays."""
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
