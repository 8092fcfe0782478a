"""The folder of a new service: there as a whole, or not there at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import UsageError


class NewFolder:
    """A context in which `staging` is filled and then put at `destination`.

    Leaving it by any exception, Ctrl-C included, removes what was put there and every folder made
    on the way. An empty folder that was there before stays, empty; what somebody else put at the
    destination meanwhile is neither overwritten nor removed.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._was_there = destination.exists()
        # Beside or inside the destination: a rename cannot cross file systems.
        inside = destination if self._was_there else destination.parent
        self._workspace = inside / f".scaffold-{secrets.token_hex(8)}"
        self.staging = self._workspace / destination.name
        self._missing_parents = [path for path in destination.parents if not path.exists()]
        self._placed: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._destination.parent.mkdir(parents=True, exist_ok=True)
            self._workspace.mkdir(mode=0o700)
        except OSError as error:
            self._undo()
            raise _unusable(self._destination.parent, error) from error
        except BaseException:
            self._undo()
            raise
        return self

    def place(self) -> None:
        """Move what was staged into place, in one step where the destination did not exist.

        Raises `UsageError` when something has come to lie there since.
        """
        # Undisturbed, so that whatever was moved is also known to have been.
        with _undisturbed():
            try:
                self._move()
            except OSError as error:
                raise _unusable(self._destination, error) from error

    def _move(self) -> None:
        if not self._was_there:
            self.staging.rename(self._destination)
            self._placed = [self._destination]
            return
        if any(child != self._workspace for child in self._destination.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        for child in self.staging.iterdir():
            self._placed.append(child.rename(self._destination / child.name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A second, impatient Ctrl-C, or the shell's repeat of a hang-up, must not end the cleaning.
        with _undisturbed():
            if error is None:
                remove(self._workspace)
            else:
                self._undo()

    def _undo(self) -> None:
        for path in (self._workspace, *self._placed):
            remove(path)
        for path in self._missing_parents:
            # It may never have been made, or somebody else may use it by now.
            with suppress(OSError):
                path.rmdir()


def require_usable(destination: Path, template_root: Path) -> None:
    """Raise `UsageError` where a new service cannot go."""
    try:
        _require_usable(destination, template_root)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise _unusable(destination, error) from error


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there and as far as that is possible."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _require_usable(destination: Path, template_root: Path) -> None:
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


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: {error.strerror}; choose another folder")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leaves the signals that a person or a shell ends us by unheard for a moment."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
