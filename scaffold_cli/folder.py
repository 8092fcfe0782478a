"""The folder of a new service: there as a whole, or not there at all."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import UsageError


class NewFolder:
    """A context in which `staging` is filled and then put at `destination`.

    Leaving it by any exception, Ctrl-C included, removes what was put there and every folder made
    on the way. An empty folder that was there before stays, empty.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._missing_parents = [path for path in destination.parents if not path.exists()]
        self._placed: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._destination.parent.mkdir(parents=True, exist_ok=True)
            # Beside or inside the destination: a rename cannot cross file systems.
            inside = self._destination if self._destination.exists() else self._destination.parent
            self._workspace = Path(tempfile.mkdtemp(prefix=".scaffold-", dir=inside))
        except OSError as error:
            self._remove_parents()
            raise UsageError(
                f"{self._destination.parent}: {error.strerror}; choose another folder"
            ) from error
        self.staging = self._workspace / self._destination.name
        return self

    def place(self) -> None:
        """Move what was staged into place, in one step where the destination did not exist."""
        if not self._destination.exists():
            self.staging.rename(self._destination)
            self._placed = [self._destination]
            return
        for child in self.staging.iterdir():
            self._placed.append(child.rename(self._destination / child.name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A second, impatient Ctrl-C must not interrupt the cleaning.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            shutil.rmtree(self._workspace, ignore_errors=True)
            if error is not None:
                for path in self._placed:
                    _remove(path)
                self._remove_parents()
        finally:
            signal.signal(signal.SIGINT, previous)

    def _remove_parents(self) -> None:
        for path in self._missing_parents:
            try:
                path.rmdir()
            except OSError:
                return


def require_usable(destination: Path, template_root: Path) -> None:
    """Raise `UsageError` where a new service cannot go."""
    existing = next(path for path in (destination, *destination.parents) if path.exists())
    if destination.is_relative_to(template_root):
        raise UsageError(
            f"{destination} lies inside the template {template_root}: choose a folder outside"
        )
    if not existing.is_dir():
        raise UsageError(f"{existing} is a file: choose another folder")
    if existing == destination and any(destination.iterdir()):
        raise UsageError(f"{destination} is not empty: choose another folder, or empty it first")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(
            f"{existing} is not writable: choose another folder, or change its permissions"
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
