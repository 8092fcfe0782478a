"""Put on a process's path, this makes all folders read-only for it but those in `WRITABLE`.

As in a container with a read-only root: what writes elsewhere fails, and the log says where.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITABLE = [
    os.path.realpath(path) for path in [*os.environ["WRITABLE"].split(os.pathsep), "/dev", "/proc"]
]


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        if flags & WRITING or (isinstance(mode, str) and set(mode) & set("wax+")):
            check(path)
    elif event == "sqlite3.connect" or event in CHANGES:
        check(arguments[0])


def check(path: str | bytes | int | os.PathLike[str]) -> None:
    if isinstance(path, int) or (name := os.fsdecode(path)) == ":memory:":
        return
    if not any(os.path.realpath(name).startswith(folder) for folder in WRITABLE):
        os.write(2, f"WROTE {name}\n".encode())
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)


sys.addaudithook(watch)
os.write(2, b"READ-ONLY\n")
