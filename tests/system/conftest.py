"""A terminal as a person has it, in a tmux server of its own, and the CLI's tiny template."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

# The same template and surroundings as in the tests of the CLI.
from ..cli.conftest import SCAFFOLD
from ..cli.conftest import dependent_template as dependent_template
from ..cli.conftest import template as template
from ..cli.conftest import temporary as temporary
from ..cli.conftest import variables as variables
from ..cli.conftest import workplace as workplace
from ..core.stores.conftest import processes as processes

PATIENCE_SECONDS = 30.0

Open = Callable[..., "Screen"]


class Screen:
    """A shell in a terminal, seen and typed at as a person would."""

    def __init__(self, tmux: Callable[..., str]) -> None:
        self._tmux = tmux

    def enter(self, line: str) -> None:
        """Type a line and end it."""
        self.write(line)
        self.press("Enter")

    def write(self, text: str) -> None:
        """Type without Enter."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: `Enter`, `Down`, `Space`, `C-c`."""
        self._tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        """What is on the screen, line by line, as it is broken there."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines()]

    def escapes(self) -> str:
        """What is on the screen, with the sequences that style it."""
        return self._tmux("capture-pane", "-p", "-e")

    def wait_for(self, *texts: str) -> None:
        """Return once all of `texts` are on the screen together; long lines count as one."""
        seen = ""

        def visible() -> bool:
            nonlocal seen
            seen = self._tmux("capture-pane", "-p", "-J")
            return all(text in seen for text in texts)

        until(visible, lambda: f"{texts} are not all on the screen:\n{seen}")

    def wait_for_line(self, line: str) -> None:
        """Return once a line reads exactly so."""
        until(lambda: line in self.lines(), lambda: f"no line {line!r} in:\n{self.lines()}")

    def wait_for_prompt(self) -> None:
        """Return once the shell listens again; what is typed before may go to the command."""
        until(
            lambda: [line for line in self.lines() if line][-1:] == ["$"],
            lambda: f"the command has not ended: {self.lines()}",
        )

    def close(self) -> None:
        """Close the terminal, as a click on its window does: what runs in it is hung up."""
        self._tmux("kill-session")


def until(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(complaint())
        time.sleep(0.05)


def required(program: str, package: str | None = None) -> str:
    """The path of a program that `.ci/run` installs. Its absence is a failure, never a skip."""
    # Debian keeps what only runs in the background where not everybody looks.
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        pytest.fail(f"{program} is not on the PATH: apt-get install {package or program}")
    return path


@pytest.fixture
def terminal(workplace: Path, variables: Mapping[str, str]) -> Iterator[Open]:
    """Opens terminals of 80 columns, with a shell in which `scaffold` is on the PATH."""
    tmux = required("tmux")
    # A socket's path may have no more than about a hundred characters; pytest's folders do.
    folder = Path(tempfile.mkdtemp(prefix="tmux-"))
    sessions: list[str] = []

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
        return subprocess.run(
            [tmux, "-u", "-S", str(folder / "socket"), "-f", os.devnull, *arguments],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def open_terminal(shell: str = "sh", columns: int = 80, **more: str) -> Screen:
        session = f"s{len(sessions)}"
        environment = {
            **variables,
            "PATH": f"{Path(SCAFFOLD).parent}{os.pathsep}{variables['PATH']}",
            "PS1": "$ ",
            **more,
        }
        del environment["PROMPT_TOOLKIT_NO_CPR"]  # this terminal tells where its cursor is
        size = ("-x", str(columns), "-y", "40")
        # By `env -i`: the second session would otherwise have the first one's environment.
        clean = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        run("new-session", "-d", "-s", session, *size, *clean, "TERM=screen", *shell.split())
        sessions.append(session)

        def act(command: str, *arguments: str) -> str:
            return run(command, "-t", session, *arguments)

        screen = Screen(act)
        screen.wait_for("$ ")
        return screen

    yield open_terminal
    if sessions:
        run("start-server", ";", "kill-server")
    shutil.rmtree(folder)


class SilentIndex:
    """A package index that accepts connections and never says a word."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/simple"

    def wait_for_a_caller(self) -> socket.socket:
        """The connection of somebody who now waits for an answer."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_SECONDS)
        return connection


@pytest.fixture
def silent_index() -> Iterator[SilentIndex]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        yield SilentIndex(listener)
