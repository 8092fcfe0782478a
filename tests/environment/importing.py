"""Imports every module of the package `app` and prints, as JSON, what that did beside.

Run in a process of its own; its arguments are the variables that nobody may read.
"""

import json
import logging
import os
import pkgutil
import signal
import sys
import threading
import wsgiref.handlers  # it copies the whole environment, and prometheus-client imports it
from typing import Any

import urllib3  # it tries whether there is IPv6, and the extra `otel` imports it

__all__ = ["urllib3", "wsgiref"]

LOUD = {"subprocess.Popen", "os.system", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
FOUND: list[str] = []
FORBIDDEN = set(sys.argv[1:])
HERE = os.getcwd()
KINDS = ("SIGINT", "SIGTERM", "SIGHUP")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith("socket.") or event in LOUD:
        FOUND.append(f"{event} {arguments[:2]}")
    if event == "open":
        path, mode, flags = arguments
        is_written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        is_ours = str(path).startswith(HERE) and not str(path).endswith((".py", ".pyc"))
        if is_written or is_ours:
            FOUND.append(f"open {path} {mode}")


class Watched(type(os.environ)):  # type: ignore[misc]
    """The environment, with an eye on the forbidden variables."""

    def __getitem__(self, name: str) -> str:
        if name.upper() in FORBIDDEN:
            FOUND.append(f"read {name}")
        value: str = super().__getitem__(name)
        return value


def state() -> list[Any]:
    """What a module could change in the process."""
    root = logging.getLogger()
    return [
        threading.active_count(),
        [str(signal.getsignal(getattr(signal, kind))) for kind in KINDS],
        root.level,
        [str(handler) for handler in root.handlers],
        sorted(os.environ),
    ]


def import_all() -> list[str]:
    import app

    names = [module.name for module in pkgutil.walk_packages(app.__path__, "app.")]
    for name in names:
        __import__(name)
    return names


before = state()
os.environ.__class__ = Watched
sys.addaudithook(watch)
names = import_all()
os.environ.__class__ = Watched.__mro__[1]
after = state()
print(json.dumps({"modules": names, "found": FOUND, "before": before, "after": after}))
