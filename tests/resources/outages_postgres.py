"""What can happen to a PostgreSQL server under a service that is running."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import psutil
import psycopg

from sandbox.stores.postgres import SETTINGS, Server, temporary_server

from ..processes import family_of, kill_all, standing_still
from ..service.serving import Service

VARIABLE = "DATABASE_URL"

_servers: dict[str, Server] = {}
_pairs: dict[str, tuple[Server, "Standby"]] = {}


@contextmanager
def place() -> Iterator[dict[str, str]]:
    """A server of which more is known than its address."""
    with temporary_server() as server:
        _servers[server.url] = server
        yield {VARIABLE: server.url}


class Standby(Server):
    """Follows another server, and can be read, until it is promoted."""

    def __init__(self, folder: Path, master: Server) -> None:
        self._master = master
        super().__init__(folder)
        self._password = master._password

    def _create(self) -> None:
        self._data.mkdir(mode=0o700)
        if "user" in self._identity:
            os.chown(self._data, self._identity["user"], self._identity["group"])
        subprocess.run(
            [
                self._programs / "pg_basebackup",
                *("--pgdata", self._data, "--dbname", self._master.url),
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            **self._surroundings(),
        )

    def promote(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute("SELECT pg_promote()")


@contextmanager
def place_with_standby() -> Iterator[dict[str, str]]:
    """Two servers, of which the URL names both, and asks for the one that takes writes."""
    with (
        patch.dict(SETTINGS, {"wal_level": "replica", "max_wal_senders": "4"}),
        temporary_server() as master,
        tempfile.TemporaryDirectory() as name,
    ):
        standby = Standby(Path(name), master)
        standby.start()
        one, other = urlsplit(master.url), urlsplit(standby.url)
        hosts = f"{one.netloc},{other.hostname}:{other.port}"
        url = f"postgresql://{hosts}/postgres?target_session_attrs=read-write"
        _pairs[url] = master, standby
        try:
            yield {VARIABLE: url}
        finally:
            standby.stop()


@contextmanager
def failed_over(service: Service, _: ExitStack) -> Iterator[None]:
    """The server is killed and stays so; its standby takes over after a while."""
    master, standby = _pairs[service.environment[VARIABLE]]
    _kill(master)
    try:
        yield
    finally:
        standby.promote()


@contextmanager
def dead(service: Service, _: ExitStack) -> Iterator[None]:
    """The server is killed with all its processes, and started again on what it had written."""
    server = _servers[service.environment[VARIABLE]]
    _kill(server)
    try:
        yield
    finally:
        server.start()


@contextmanager
def hung(service: Service, _: ExitStack) -> Iterator[None]:
    """All of the server's processes stand still; its port goes on accepting."""
    with standing_still(_processes(_servers[service.environment[VARIABLE]])):
        yield


@contextmanager
def closed(service: Service, _: ExitStack) -> Iterator[None]:
    """The database throws everybody out and lets nobody in."""
    with psycopg.connect(_beside(service), autocommit=True) as db:
        db.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        _throw_out(db)
        try:
            yield
        finally:
            db.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")


@contextmanager
def out_of_connections(service: Service, stack: ExitStack) -> Iterator[None]:
    """All connections are lost, and others have taken their places."""
    with ExitStack() as others:
        watching = others.enter_context(psycopg.connect(_beside(service), autocommit=True))
        for _ in range(3):
            # The service may be quicker than the rest of them.
            _throw_out(watching)
            with suppress(psycopg.OperationalError):
                while True:
                    others.enter_context(psycopg.connect(_beside(service)))
        yield


@contextmanager
def slow(service: Service, _: ExitStack) -> Iterator[None]:
    """Somebody else holds a lock on all that a step needs, for longer than anybody waits."""
    with psycopg.connect(service.environment[VARIABLE]) as db:
        db.execute('LOCK TABLE "resources".rate_count, "resources".budget IN ACCESS EXCLUSIVE MODE')
        yield


@contextmanager
def read_only(service: Service, _: ExitStack) -> Iterator[None]:
    """The server takes no more writes, as one that another has been promoted over."""
    with psycopg.connect(_beside(service), autocommit=True) as db:
        db.execute("SET default_transaction_read_only = off")
        db.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        db.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            db.execute("ALTER SYSTEM RESET default_transaction_read_only")
            db.execute("SELECT pg_reload_conf()")


def lose_all(service: Service) -> None:
    """As when a backup from before the service was restored."""
    with psycopg.connect(service.environment[VARIABLE], autocommit=True) as db:
        db.execute('DROP SCHEMA "resources" CASCADE')


def _kill(server: Server) -> None:
    kill_all(_processes(server))
    server.stop()


def _throw_out(db: psycopg.Connection) -> None:
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'")


def _beside(service: Service) -> str:
    """Another database of the same server."""
    return urlsplit(service.environment[VARIABLE])._replace(path="/template1").geturl()


def _processes(server: Server) -> list[psutil.Process]:
    assert server.pid is not None
    return family_of(server.pid)


OUTAGES = {
    "dead": dead,
    "hung": hung,
    "closed": closed,
    "out of connections": out_of_connections,
    "slow": slow,
    "read-only": read_only,
    "failed over": failed_over,
}
PLACES = {failed_over: place_with_standby}
"""Where an outage needs more than one server."""
LOSSES = {"schema": lose_all}
