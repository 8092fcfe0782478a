"""One place for all the combinations of a process, one after another. A file that Python has
compiled before is not compiled again: it has the same path, and as its time a number made of its
content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

COMPILED = "__pycache__"


class Workplace:
    """`project` is where each service is, in its turn."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "service"
        self._compiled = folder / "compiled"

    def take(self, rendered: Path) -> Path:
        """Moves a service here, and says where it is."""
        shutil.rmtree(self.project, ignore_errors=True)
        rendered.rename(self.project)
        for file in self.project.rglob("*.py"):
            moment = _moment_of(file.read_bytes())
            os.utime(file, (moment, moment))
        return self.project

    def recall(self) -> None:
        """Brings back what was compiled; that of files which are not here nobody reads."""
        for folder in _compiled_in(self._compiled):
            destination = self.project / folder.relative_to(self._compiled)
            if destination.parent.is_dir() and not destination.exists():
                shutil.copytree(folder, destination)

    def remember(self) -> None:
        """Keeps what has been compiled."""
        for folder in _compiled_in(self.project):
            destination = self._compiled / folder.relative_to(self.project)
            shutil.copytree(folder, destination, dirs_exist_ok=True)


def _compiled_in(folder: Path) -> Iterator[Path]:
    return folder.rglob(COMPILED)


def _moment_of(content: bytes) -> int:
    """In seconds; compiled files keep 32 bits of it."""
    return int.from_bytes(hashlib.sha256(content).digest()[:4]) >> 1
