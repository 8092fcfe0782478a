"""Nothing happens when a module is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..matrix.combinations import Combination, covering_combinations
from ..rendering import render, take_snapshot
from .every_setting import VARIABLES

IMPORTING = Path(__file__).with_name("importing.py")
HOSTILE = {
    **dict.fromkeys(VARIABLES, "nonsense"),
    **{f"{name}_FILE": "/nowhere" for name in VARIABLES},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take_snapshot(tmp_path_factory.mktemp("template"))


@pytest.mark.promise("E1")
@pytest.mark.parametrize("combination", covering_combinations(all_at_once=True), ids=str)
def test_importing_has_no_side_effect(
    template: Path, tmp_path: Path, combination: Combination
) -> None:
    """With every variable set to nonsense and a `.env` beside it, each module of the service is
    imported in silence: no file, no socket, no thread, no handler, no look at a setting."""
    project = tmp_path / "service"
    render(template, project, combination.answers)
    (project / ".env").write_text("PORT=nonsense\n")
    report = json.loads(_import_all(project))
    there = {path.relative_to(project) for path in (project / "app").rglob("*.py")}
    assert len(report["modules"]) == len(there) - 1 > 60  # all but the package `app` itself
    assert report["found"] == []
    assert report["before"] == report["after"]
    assert not (project / "data").exists()


def _import_all(project: Path) -> str:
    ended = subprocess.run(
        [sys.executable, str(IMPORTING), *HOSTILE],
        cwd=project,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(project),
            "PYTHONDONTWRITEBYTECODE": "1",
            **HOSTILE,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout
