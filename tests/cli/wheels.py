"""A repository like this one, the wheels of its versions, and people who have installed these."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scaffold_cli.environment import find_uv

from ..rendering import copy_files, take_snapshot
from .conftest import git
from .test_update import release

PACKAGE = (
    ".gitignore",
    "scaffold_cli",
    "tools/build_hook.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a `scaffold`, a home of their own, git, and no checkout."""

    command: str
    home: Path

    def scaffold(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        self.home.mkdir(exist_ok=True)
        kept = ("PATH", "LANG", "TMPDIR")
        return subprocess.run(
            [self.command, *map(str, arguments)],
            cwd=self.home,
            env={
                **{name: os.environ[name] for name in kept if name in os.environ},
                "HOME": str(self.home),
                "GIT_CONFIG_NOSYSTEM": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def make_repository(root: Path) -> Path:
    """What a wheel is made of, committed as the first version."""
    take_snapshot(root)
    copy_files(root, *PACKAGE)
    git(root.parent, "init", "--quiet", "--initial-branch=main", str(root))
    release_package(root, "1.0.0", {})
    return root


def release_package(root: Path, version: str, files: dict[str, str | bytes | None]) -> None:
    """Change files, tag the commit, and name the package by it."""
    pyproject = root / "pyproject.toml"
    line = 'version = "{}"\n'
    before = next(x for x in pyproject.read_text().splitlines(True) if x.startswith("version = "))
    text = pyproject.read_text().replace(before, line.format(version))
    release(root, version, {"pyproject.toml": text, **files})


def build_wheel(root: Path, folder: Path) -> Path:
    """The wheel of the repository as it is; nothing is asked of an index."""
    result = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target=wheel", f"--directory={folder}"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    [wheel] = folder.iterdir()
    return wheel


def install(wheel: Path, folder: Path) -> str:
    """The wheel, and all that it declares, in an environment that holds nothing else."""
    uv = find_uv()
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        ["pip", "install", "--quiet", "--python", str(folder), str(wheel)],
    ):
        subprocess.run([uv, *arguments], env=variables, cwd=wheel.parent, check=True)
    return str(folder / "bin/scaffold")
