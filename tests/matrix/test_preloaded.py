"""A run by a fork of a process that has loaded the libraries is a run like any other."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests import rendering
from tests.matrix import preloaded
from tests.matrix.preloaded import Preloaded
from tests.rendering import CommandFailed, Environment
from tests.service.serving import eventually

Run = Callable[[str], str]


@contextmanager
def running(project: Path, imports: str) -> Iterator[Run]:
    """Runs a text as a module of a project that imports these; it has two arguments."""
    (project / "app").mkdir(parents=True)
    (project / "app/needs.py").write_text(f"import {imports}\n")
    environment = Environment(Path(sys.prefix))
    with Preloaded() as started:

        def start(text: str) -> str:
            (project / "program.py").write_text(text)
            variables = environment.variables() | {"SAID": "so"}
            return started.run(environment, project, "program", ["one", "two"], variables)

        yield start


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with running(tmp_path / "project", "httpx, no_such_library") as run:
        yield run


def test_it_is_run_as_a_program(run: Run) -> None:
    """With its arguments, its folder and just these variables, once for each run."""
    text = """if __name__ == "__main__":
    import os, sys
    print(*sys.argv[1:], os.environ["SAID"], sorted(os.environ)[-2:], sys.path[0] == os.getcwd())
"""
    said = "one two so ['SAID', 'VIRTUAL_ENV'] True\n"
    assert [run(text), run(text)] == [said, said]


def test_the_libraries_are_there_before_it(run: Run) -> None:
    """Those that the project's code names, where there are such."""
    loaded = "import sys; print([name in sys.modules for name in ('httpx', 'app', 'copier')])"
    assert run(loaded) == "[True, False, False]\n"


def test_a_library_that_must_be_configured_first_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is loaded, since it may have left traces elsewhere; the others are."""
    library = tmp_path / "unready"
    library.mkdir()
    (library / "__init__.py").touch()
    (library / "whole.py").write_text("raise ValueError('configure me first')")
    monkeypatch.setattr(Environment, "variables", lambda _: {"PYTHONPATH": str(tmp_path)})
    loaded = "import sys; print([name in sys.modules for name in ('unready', 'json.tool')])"
    with running(tmp_path / "project", "unready, unready.whole, no_such, json.tool") as run:
        assert run(loaded) == "[False, True]\n"


def test_what_it_starts_is_run_likewise(run: Run) -> None:
    """A program by its module has the libraries at once, and its starter's folder, variables and
    streams; others are started as ever."""
    text = """import subprocess, sys
if "-m" in sys.argv:
    print(sys.argv[1:], 'httpx' in sys.modules, sys.path[:2], sys.stdin.read(), flush=True)
    print('to stderr', file=sys.stderr)
    sys.exit(7)
def start(*arguments):
    ended = subprocess.run([sys.executable, *arguments], cwd='app', env={'PYTHONPATH': '..'},
        input='typed', capture_output=True, text=True)
    print(ended.stdout + ended.stderr, ended.returncode)
start('-m', 'program', '-m')
start('-c', 'import sys; print("httpx" in sys.modules)')
"""
    folder = "/project/app'"
    said = run(text)
    assert re.fullmatch(
        rf"\['-m'\] True \['.*{folder}, '\.\.'\] typed\nto stderr\n 7\nFalse\n 0\n", said
    )


@pytest.mark.parametrize(("how", "status"), [("terminate", -15), ("kill", -9)])
def test_what_it_starts_can_be_ended(run: Run, how: str, status: int) -> None:
    """It hears what its starter tells it, and does not outlive who stands for it."""
    text = f"""import os, subprocess, sys, time
if "-m" in sys.argv:
    print(os.getpid(), flush=True)
    time.sleep(600)
started = subprocess.Popen([sys.executable, '-m', 'program', '-m'],
    stdout=subprocess.PIPE, text=True)
pid = int(started.stdout.readline())
started.{how}()
print(pid, started.wait())
"""
    pid, ended = map(int, run(text).split())
    assert ended == status
    eventually(lambda: not psutil.pid_exists(pid))


def test_who_is_ended_before_it_has_asked_stops_nobody(run: Run) -> None:
    """Half an order is none."""
    text = """import os, socket, sys
with socket.socket(socket.AF_UNIX) as asker:
    asker.connect(os.path.join(os.path.dirname(sys.executable), "socket"))
    asker.send(b"{")
print("asked")
"""
    assert [run(text), run("print('after')")] == ["asked\n", "after\n"]


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise ValueError('why')", "os.abort()"])
def test_a_failed_run_is_seen(run: Run, end: str) -> None:
    """With what it has printed; the next one begins anew."""
    with pytest.raises(CommandFailed, match=r"before(.|\n)*ended with status (3|1|-6)$"):
        run(f"import os, sys; print('before', flush=True); {end}")
    assert run("print('after')") == "after\n"


def test_a_run_that_does_not_end_is_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all that it has started; the next one begins anew."""
    for where in (preloaded, rendering):
        monkeypatch.setattr(where, "TOOL_SECONDS", 1.0)
    with pytest.raises(CommandFailed, match=r"before(.|\n)*does not end in 1 s$"):
        run("import time; print('before', flush=True); time.sleep(60)")
    monkeypatch.undo()
    assert run("print('after')") == "after\n"
