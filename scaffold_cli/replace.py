"""Puts all of an update in place, or nothing: a failure or a Ctrl-C puts every file back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import git
from .errors import ScaffoldError, last_line
from .merge import Merge, write_file


def apply(folder: Path, merge: Merge) -> None:
    """Put every change in place, and each conflict into git's index; or nothing, whatever happens.

    All is written beside the service's files first: what follows are renames, which no full disk
    can stop half-way, and which go back as they came. Raises `ScaffoldError`.
    """
    replaced: list[Replaced] = []
    workspace = None
    try:
        workspace = Path(tempfile.mkdtemp(prefix=".scaffold-", dir=folder))
        for name, change in merge.changes.items():
            if change.after:
                write_file(workspace / "new" / name, change.after)
        for name in merge.changes:
            _replace(folder, workspace, name, replaced)
        if merge.conflicts:
            git.mark_unmerged(folder, _stages(merge))
    except BaseException as error:
        _put_back(folder, merge, replaced)
        if isinstance(error, (OSError, subprocess.CalledProcessError)):
            reason = getattr(error, "stderr", None) or getattr(error, "strerror", None) or error
            raise ScaffoldError(
                f"the update could not be written: {last_line(reason)}; {folder} is as it was."
                " Mend that, then run this again"
            ) from error
        raise
    finally:
        if workspace is not None:
            shutil.rmtree(workspace, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Replaced:
    path: Path
    existed: bool
    kept: Path
    """Where the file lies that `path` held."""


def _replace(folder: Path, workspace: Path, name: str, replaced: list[Replaced]) -> None:
    path, new, kept = folder / name, workspace / "new" / name, workspace / "old" / name
    kept.parent.mkdir(parents=True, exist_ok=True)
    replaced.append(Replaced(path, os.path.lexists(path), kept))
    if replaced[-1].existed:
        path.rename(kept)
    if os.path.lexists(new):
        path.parent.mkdir(parents=True, exist_ok=True)
        new.rename(path)
    else:
        _remove_empty_parents(folder, path)


def _put_back(folder: Path, merge: Merge, replaced: Sequence[Replaced]) -> None:
    # A second, impatient Ctrl-C must not interrupt it.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for each in reversed(replaced):
            if os.path.lexists(each.kept):
                each.path.parent.mkdir(parents=True, exist_ok=True)
                each.kept.replace(each.path)
            elif not each.existed:
                each.path.unlink(missing_ok=True)
                _remove_empty_parents(folder, each.path)
        if merge.conflicts:
            git.unstage(folder, merge.conflicts)
    finally:
        signal.signal(signal.SIGINT, previous)


def _remove_empty_parents(folder: Path, path: Path) -> None:
    """As git does: it keeps no folder without a file."""
    for parent in path.parents:
        if parent == folder or any(parent.iterdir() if parent.exists() else ()):
            return
        if parent.exists():
            parent.rmdir()


def _stages(merge: Merge) -> dict[str, dict[int, tuple[int, bytes]]]:
    return {
        name: {number: (side.mode, side.content) for number, side in sides.items()}
        for name, sides in merge.conflicts.items()
    }
