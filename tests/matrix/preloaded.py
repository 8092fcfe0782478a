"""Runs in a project's environment whose libraries are loaded once for all of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.matrix.unused_modules import imports_of, module_name
from tests.rendering import TOOL_SECONDS, CommandFailed, Environment, run

PROGRAM = Path(__file__).with_name("preloading.py")
CAN_FORK = sys.platform == "linux"
"""Elsewhere a system library may not be used in a fork."""
OWN = ("app", "sandbox", "tests")


class Preloaded:
    """One process for one environment at a time: that of the combination before is often this
    one's too."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._known: tuple[Environment, frozenset[str]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None

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
        process = self._process_of(environment, project)
        output = project.with_name("output")
        output.unlink(missing_ok=True)
        order = {
            "module": module,
            "arguments": command[3:],
            "folder": str(project),
            "variables": dict(variables),
            "output": str(output),
        }
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        answered, _, _ = select.select([process.stdout], [], [], TOOL_SECONDS)
        status = process.stdout.readline().strip() if answered else ""
        said = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        if not status:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            self.__exit__()
            what = f"does not end in {TOOL_SECONDS:g} s" if not answered else "could not be started"
            raise CommandFailed(command, what, said)
        if status != "0":
            raise CommandFailed(command, f"ended with status {status}", said)
        return said

    def _process_of(self, environment: Environment, project: Path) -> subprocess.Popen[str]:
        names = frozenset(libraries_of(project))
        if self._process is None or self._known != (environment, names):
            self.__exit__()
            self._process = subprocess.Popen(
                [environment.python, str(PROGRAM), "pytest", *sorted(names)],
                cwd=project.parent,
                env=environment.variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._known = environment, names
        return self._process


def libraries_of(project: Path) -> Iterable[str]:
    """The modules of others that the project's code names, at the top of a file or later."""
    for folder in OWN:
        for path in (project / folder).rglob("*.py"):
            for name in imports_of(path, module_name(path, project)):
                if name.partition(".")[0] not in OWN:
                    yield name
