"""What runs before a commit, run here with the environment of this repository, and in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from scaffold_cli.environment import find_uv
from tests.packaging.conftest import Rendered

pytestmark = pytest.mark.xdist_group("packaging")

ENVIRONMENT = {
    "UV_PROJECT_ENVIRONMENT": sys.prefix,
    "UV_NO_SYNC": "1",
    "SKIP": "types",
}


@pytest.fixture
def repository(services: Mapping[str, Rendered], tmp_path: Path) -> Path:
    """A service as it is before its first commit."""
    project = tmp_path / "service"
    shutil.copytree(next(iter(services.values())).project, project)
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    return project


def git(project: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=project, check=True)


def run(command: list[str], project: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    path = os.pathsep.join([str(Path(find_uv()).parent), os.environ["PATH"]])
    home = {"PRE_COMMIT_HOME": str(project.parent / "pre-commit")}
    return subprocess.run(
        command,
        cwd=project,
        env={**inherited, **ENVIRONMENT, **home, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_fresh_service_passes_its_hooks(repository: Path) -> None:
    """All of them run, and find nothing; mypy alone is left to the matrix."""
    done = run([sys.executable, "-m", "pre_commit", "run", "--all-files"], repository)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Passed") == 4 and "warn" not in done.stdout.lower()


def test_a_key_is_not_committed(repository: Path) -> None:
    """The hook names the file and the line, and the commit is not made."""
    (repository / "app/planted.py").write_text(f'"""A."""\n\nKEY = "sk-proj-{"a1B2" * 12}"\n')
    git(repository, "add", "--all")
    done = run([sys.executable, "-m", "pre_commit", "run", "keys"], repository)
    assert done.returncode == 1
    assert "app/planted.py:3: a vendor's key" in done.stdout


def test_the_workflow_checks_the_same(service: Rendered) -> None:
    """What CI runs is what the hooks run, without mending anything, and then all tests, of which
    the checklist comes last and alone."""
    (local,) = service.yaml(".pre-commit-config.yaml")["repos"]
    hooks = {hook["entry"].replace(" --force-exclude", "") for hook in local["hooks"]}
    steps = service.yaml(".github/workflows/ci.yml")["jobs"]["check"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("uv run")]
    assert {command.replace(" --check", "") for command in commands[:-2]} == hooks
    assert commands[-2:] == [
        "uv run pytest --ignore=tests/checklist",
        "uv run pytest tests/checklist",
    ]
    assert (service.project / "tests/checklist").is_dir()
