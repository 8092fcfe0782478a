"""Runs in a project's environment whose libraries are loaded once for all of them."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.matrix.asking import ask
from tests.matrix.unused_modules import imports_of, module_name
from tests.rendering import TOOL_SECONDS, CommandFailed, Environment, run

PROGRAM = Path(__file__).with_name("preloading.py")
CAN_FORK = sys.platform == "linux"
"""Elsewhere a system library may not be used in a fork."""
OWN = ("app", "sandbox", "tests")
LATE = ("genai_prices.data", "httpcore", "uvicorn.protocols.http.httptools_impl", "uvloop")
"""What libraries load only when they are used, where it is there."""


class Preloaded:
    """One process for one environment at a time: that of the combination before is often this
    one's too."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._known: tuple[Environment, frozenset[str]] | None = None
        # A socket's path has to be short.
        self._folder = tempfile.TemporaryDirectory(prefix="preloaded-", dir="/tmp")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def run(
        self,
        environment: Environment,
        project: Path,
        module: str,
        arguments: Iterable[str],
        variables: Mapping[str, str],
    ) -> str:
        """What `python -m module` prints. Raises `CommandFailed` unless it ends with status 0."""
        command = [environment.python, "-m", module, *arguments]
        if not CAN_FORK:
            return run(command, project, variables)
        output = project.with_name("output")
        process = self._process_of(environment, project)
        with (
            socket.socket(socket.AF_UNIX) as asker,
            open(os.devnull, "rb") as nothing,
            output.open("wb") as written,
        ):
            if process is None:
                raise CommandFailed(command, "could not be started", "")
            asker.connect(str(self._listens_at))
            streams = [nothing.fileno(), written.fileno(), written.fileno()]
            ask(asker, command[2:], str(project), variables, streams)
            answered, _, _ = select.select([asker], [], [], TOOL_SECONDS)
            status = asker.recv(64).decode().strip() if answered else ""
        said = output.read_text(encoding="utf-8", errors="replace")
        if not status:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            self._end()
            what = f"does not end in {TOOL_SECONDS:g} s" if not answered else "was ended"
            raise CommandFailed(command, what, said)
        if status != "0":
            raise CommandFailed(command, f"ended with status {status}", said)
        return said

    @property
    def _listens_at(self) -> Path:
        return Path(self._folder.name, "socket")

    def _process_of(self, environment: Environment, project: Path) -> subprocess.Popen[str] | None:
        names = frozenset([*libraries_of(project), *LATE])
        if self._process is None or self._known != (environment, names):
            self._end()
            self._listens_at.unlink(missing_ok=True)
            self._process = subprocess.Popen(
                [environment.python, str(PROGRAM), self._folder.name, "pytest", *sorted(names)],
                cwd=project.parent,
                env=environment.variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._known = environment, names
            assert self._process.stdout is not None
            if not self._process.stdout.readline():
                self._end()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


def libraries_of(project: Path) -> Iterable[str]:
    """The modules of others that the project's code names, at the top of a file or later."""
    for folder in OWN:
        for path in (project / folder).rglob("*.py"):
            for name in imports_of(path, module_name(path, project)):
                if name.partition(".")[0] not in OWN:
                    yield name
