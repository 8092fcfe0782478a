"""Services as forks of one process that has loaded what a start loads: each costs a tenth of one.

That process is `python -m tests.forks`: it reads orders, one a line, and answers each with the
number of the process that it has made of itself. It serves nothing.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CAN_FORK = sys.platform == "linux"
"""Elsewhere a system library may not be used in a fork."""
STEP_SECONDS = 0.01


class CannotFork(Exception):
    """What services are forked from does not start; a service that is started says why."""


class Fork:
    """A service that was forked, as `subprocess` would know it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self._pid, signal.SIGTERM)

    def poll(self) -> int | None:
        """`None` as long as it runs; how it has ended is not known."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return -1
        return None

    def wait(self, timeout: float) -> None:
        """Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service has not ended in {timeout:g} s")
            time.sleep(STEP_SECONDS)


def fork(environment: Mapping[str, str], folder: Path, log: Path, module: str) -> Fork:
    """`python -m module` in `folder` with just these variables; its output goes to `log`.

    Raises `CannotFork`.
    """
    parent = _parent()
    assert parent.stdin is not None and parent.stdout is not None
    order = {
        "environment": dict(environment),
        "folder": str(folder),
        "log": str(log),
        "module": module,
    }
    try:
        parent.stdin.write(json.dumps(order) + "\n")
        parent.stdin.flush()
    except BrokenPipeError:
        raise CannotFork from None
    number = parent.stdout.readline()
    if not number:
        raise CannotFork
    return Fork(int(number))


@cache
def _parent() -> subprocess.Popen[str]:
    """Whose forks they are; it ends with this process."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        parent.communicate()

    atexit.register(end)
    return parent


def main() -> None:
    # Whoever has ended is gone at once: nobody here waits for it.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    importlib.import_module("tests.loaded")
    # Else each fork's collector would touch, and so copy, all that they share.
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(**json.loads(line))
            return
        print(pid, flush=True)


def _become(environment: dict[str, str], folder: str, log: str, module: str) -> Any:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    streams = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT)
    for number, stream in zip((0, 1, 2), (streams[0], streams[1], streams[1]), strict=True):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module]
    with suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.stdout.flush()
    # To take apart what it shares with its parent would take a fork longer than all else.
    os._exit(0)


if __name__ == "__main__":
    main()
