"""A disk that is really full: what only a file system of one's own can show."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandbox.server import Sandbox

from ..rendering import render, take_snapshot
from ..service.asking import body, calls
from ..service.serving import Project, Service, eventually

CHAT = "/v1/chat/completions"
KEY = "key-of-ada"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def project(tmp_path: Path, sandbox: Sandbox, disk: Path) -> Project:
    (tmp_path / "template").mkdir()
    render(take_snapshot(tmp_path / "template"), tmp_path / "service", {"storage": "sqlite"})
    variables = {
        **sandbox.environment(),
        "SQLITE_PATH": str(disk / "service.db"),
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": f"ada:{KEY}",
        "RATE_LIMIT_REQUESTS": "100000",
    }
    return Project(tmp_path / "service", variables, tmp_path / "service.db")


def ask(service: Service) -> int:
    return service.http(KEY).post(CHAT, json=body()).status_code


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Somebody takes what is left to the last byte, and whatever comes free."""
    over = threading.Event()
    filler = folder / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            while not over.wait(0.0005):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * 4_096)

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield
    finally:
        over.set()
        filling.join()
        filler.unlink()


def test_a_full_disk_is_an_outage(project: Project, disk: Path, sandbox: Sandbox) -> None:
    """503 in time and no call to a provider once nothing more can be written; when there is room
    again the next request is served, and the books are whole."""
    with project.serve() as service:
        assert ask(service) == 200
        with full(disk):
            # SQLite frees its log when it closes the file, and may have that room before others do.
            eventually(lambda: [ask(service) for _ in range(5)] == [503] * 5)
            asked = calls(sandbox)
            began = time.monotonic()
            told = [ask(service) for _ in range(20)]
            assert time.monotonic() - began < 20 * 5
            assert calls(sandbox) == asked + told.count(200)
            assert told.count(503) >= 15
            assert service.http().get("/livez").status_code == 200
        eventually(lambda: ask(service) == 200)
        events = service.lines("store_unreachable", "store_reachable")
        assert {line["event"] for line in events[::2]} == {"store_unreachable"}
        assert {line["event"] for line in events[1::2]} == {"store_reachable"}
        assert any("full" in line["reason"] for line in events[::2])
        eventually(lambda: service.books.open_operations == 0)
        assert service.books.balanced
        assert service.books.charged_nano_usd > 0
