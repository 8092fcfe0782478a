"""A run by a fork of a process that has loaded the libraries is a run like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import rendering
from tests.matrix import preloaded
from tests.matrix.preloaded import PROGRAM, Preloaded
from tests.rendering import CommandFailed, Environment

Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs this text as a module of a project that needs httpx; prints two arguments of two."""
    project = tmp_path / "project"
    (project / "app").mkdir(parents=True)
    (project / "app/needs.py").write_text("import httpx, no_such_library\n")
    environment = Environment(Path(sys.prefix))
    with Preloaded() as started:

        def start(text: str) -> str:
            (project / "program.py").write_text(text)
            variables = environment.variables() | {"SAID": "so"}
            return started.run(environment, project, "program", ["one", "two"], variables)

        yield start


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


def test_a_library_that_must_be_configured_first_is_left_out(tmp_path: Path) -> None:
    """Nothing of it is loaded, since it may have left traces elsewhere; the others are."""
    library = tmp_path / "unready"
    library.mkdir()
    (library / "__init__.py").touch()
    (library / "whole.py").write_text("raise ValueError('configure me first')")
    (tmp_path / "program.py").write_text(
        "import sys; print(*(name in sys.modules for name in ('unready', 'json.tool')))"
    )
    output = tmp_path / "output"
    order = {
        "module": "program",
        "arguments": [],
        "folder": str(tmp_path),
        "variables": {},
        "output": str(output),
    }
    names = ["unready", "unready.whole", "no_such_library", "json.tool"]
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), *names],
        env={"PYTHONPATH": str(tmp_path)},
        input=json.dumps(order),
        text=True,
        capture_output=True,
        check=True,
    )
    assert (ended.stdout, output.read_text()) == ("0\n", "False True\n")


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
