"""What can happen to a SQLite file under a service that is running."""

import ctypes
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..service.serving import Service

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE = 1

HOLD_THE_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def prepare() -> None:
    """Runs in the service's process before it begins: root keeps no leave to write what is
    read-only, as no service should have it."""
    with suppress(OSError, AttributeError):  # no Linux: then it is no root either
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@contextmanager
def locked(service: Service, _: ExitStack) -> Iterator[None]:
    """Another process holds the file's lock."""
    command = [sys.executable, "-c", HOLD_THE_LOCK, service.environment["SQLITE_PATH"]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(10)


@contextmanager
def read_only(service: Service, stack: ExitStack) -> Iterator[None]:
    """The file is opened anew after a while of being locked, and may only be read by then."""
    path = Path(service.environment["SQLITE_PATH"])
    files = [path, *path.parent.glob(f"{path.name}-*")]
    with locked(service, stack):
        _ask_for_nothing(service)
        for file in files:
            file.chmod(0o444)
        path.parent.chmod(0o555)
    try:
        yield
    finally:
        path.parent.chmod(0o755)
        for file in files:
            with suppress(FileNotFoundError):
                file.chmod(0o644)


@contextmanager
def full(service: Service, _: ExitStack) -> Iterator[None]:
    """No file may grow any more."""
    process = service.process.pid
    soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))


def _ask_for_nothing(service: Service) -> None:
    """A request that meets the lock, so that the service lets go of its connection."""
    refused = service.http("key-of-caller399").post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Anybody?"}]}
    )
    assert refused.status_code == 503, refused.text


OUTAGES = {"locked": locked, "read-only": read_only, "full disk": full}
