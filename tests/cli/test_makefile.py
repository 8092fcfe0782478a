"""The Makefile on a bare machine: what it finds, and what it says when something is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .conftest import ROOT

TOO_OLD = 'case "$*" in --version) echo Python 3.9.2;; *) exit 1;; esac'
BARE = 'case "$*" in "-c "*) exit 0;; *) exit 1;; esac'


def make(folder: Path, *targets: str, path: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    return subprocess.run(
        ["make", *targets],
        cwd=folder,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_lists_the_targets(tmp_path: Path, path_without: Callable[[str], str]) -> None:
    """`make` does nothing but say what it could do."""
    result = make(tmp_path, path=path_without("uv"))
    assert result.returncode == 0
    for target in ("demo", "test", "check", "lint", "format"):
        assert f"make {target} " in result.stdout
    assert not (tmp_path / ".uv").exists()


def test_an_old_python_is_named(
    tmp_path: Path, path_without: Callable[[str], str], program: Callable[[str, str], Path]
) -> None:
    """Without uv and a Python that is new enough, the one found is named with what to do."""
    stand_in = program("python3", TOO_OLD)
    for minor in (11, 12, 13, 14):
        program(f"python3.{minor}", TOO_OLD)
    result = make(tmp_path, "environment", path=f"{stand_in.parent}:{path_without('uv')}")
    assert result.returncode == 2
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "3.9.2" in result.stderr


def test_a_python_without_venv_and_pip_is_named(
    tmp_path: Path, path_without: Callable[[str], str], program: Callable[[str, str], Path]
) -> None:
    """Where uv cannot be installed, the package that is missing is named; nothing stays behind."""
    stand_in = program("python3", BARE)
    result = make(tmp_path, "environment", path=f"{stand_in.parent}:{path_without('uv')}")
    assert result.returncode == 2
    assert "python3-venv" in result.stderr
    assert not (tmp_path / ".uv").exists()
