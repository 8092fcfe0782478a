"""The sandbox's PostgreSQL: a server that goes with its owner, or a database on another one."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from sandbox.stores import postgres
from sandbox.stores.postgres import Server, temporary_server
from tests.rendering import ROOT
from tests.service.serving import eventually

START_AND_WAIT = """
import time
from sandbox.stores.postgres import temporary_server

with temporary_server() as server:
    print(server.pid, server._folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with temporary_server() as server:
        yield server


def databases(server: Server) -> set[str]:
    with psycopg.connect(server.url) as db:
        return {name for (name,) in db.execute("SELECT datname FROM pg_database")}


def test_it_starts_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has another address, a password, and is gone in the end."""
    monkeypatch.delenv("TEST_DATABASE_URL", raising=False)
    with ExitStack() as stack:
        urls = [stack.enter_context(postgres.run()) for _ in range(2)]
        for url in urls:
            with psycopg.connect(url) as db:
                assert db.execute("SELECT 1").fetchone() == (1,)
                password = db.info.password
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(url.replace(password, "another"))
        assert len(set(urls)) == 2
    for url in urls:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)


def test_a_server_that_is_given_gets_a_database(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server that is there already it makes a database, and drops it, in use or not."""
    monkeypatch.setenv("TEST_DATABASE_URL", server.url)
    before = databases(server)
    with postgres.run() as one, postgres.run() as other:
        assert len(databases(server) - before) == 2
        user = psycopg.connect(one)
        with psycopg.connect(other) as db:
            assert db.info.dbname in databases(server) - before
        user.execute("CREATE TABLE something ()")
    assert databases(server) == before
    user.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_does_not_outlive_whoever_started_it(number: signal.Signals) -> None:
    """However its owner ends, killed or not, the server ends too."""
    process = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        cwd=ROOT / "template",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout is not None
        first, folder = process.stdout.readline().decode().split()
        assert is_running(int(first))
        process.send_signal(number)
    eventually(lambda: not is_running(int(first)))
    # Whoever is killed leaves its files.
    shutil.rmtree(folder, ignore_errors=True)


def test_it_finds_its_place_where_only_root_may_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by root, the server needs no access to root's folders: neither its programs' nor the
    one for temporary files."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(postgres, "_is_reachable", lambda path: path == Path("/tmp"))
    with temporary_server() as server:
        assert databases(server) >= {"postgres"}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
