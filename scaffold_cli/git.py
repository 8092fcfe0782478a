"""The few questions to git, and the first commit of a new service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .errors import UsageError

LOCAL_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
)


def forget_calling_repository() -> None:
    """Drop what a git hook or alias exports: we, and Copier, are about other repositories."""
    for name in LOCAL_VARIABLES:
        os.environ.pop(name, None)


def require_git() -> None:
    if shutil.which("git") is None:
        raise UsageError(
            "git is not on the PATH; install it (https://git-scm.com) and run this again"
        )


def enclosing_repository(folder: Path) -> Path | None:
    """The root of the repository that holds `folder`, or of its nearest ancestor that exists."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    root = _output(existing, "rev-parse", "--show-toplevel")
    return Path(root) if root else None


def describe(repository: Path) -> str | None:
    """The name of HEAD that `git rev-parse` resolves again; nothing before the first commit."""
    return _output(repository, "describe", "--tags", "--always")


def is_dirty(repository: Path) -> bool:
    return bool(_output(repository, "status", "--porcelain"))


def commit_all(folder: Path, message: str) -> None:
    """Make `folder` a repository with one commit on `main`. Raises `CalledProcessError`."""
    # Not `init -b`: git before 2.28 lacks it, and ignores a setting that it does not know.
    _git(folder, "-c", "init.defaultBranch=main", "init", "--quiet").check_returncode()
    _git(folder, "add", "--all").check_returncode()
    _git(
        folder, *_fallback_identity(folder), "commit", "--quiet", "--message", message
    ).check_returncode()


def _fallback_identity(folder: Path) -> list[str]:
    if _output(folder, "var", "GIT_AUTHOR_IDENT") and _output(folder, "var", "GIT_COMMITTER_IDENT"):
        return []
    return ["-c", "user.name=scaffold", "-c", "user.email=scaffold@localhost"]


def _output(folder: Path, *arguments: str) -> str | None:
    result = _git(folder, *arguments)
    return result.stdout.strip() if result.returncode == 0 else None


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
