"""What can happen to a PostgreSQL server under a service that is running."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

from ..service.serving import Service

VARIABLE = "DATABASE_URL"


@contextmanager
def hung(service: Service) -> Iterator[None]:
    """All of the server's processes stand still; its port goes on accepting."""
    with psycopg.connect(service.environment[VARIABLE], autocommit=True) as db:
        query = "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::integer"
        ((first,),) = db.execute(query).fetchall()
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=True
    ).stdout
    pids = [first, *map(int, children.split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def closed(service: Service) -> Iterator[None]:
    """The database throws everybody out and lets nobody in."""
    with psycopg.connect(_beside(service), autocommit=True) as db:
        db.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'"
        )
        try:
            yield
        finally:
            db.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")


@contextmanager
def read_only(service: Service) -> Iterator[None]:
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


def _beside(service: Service) -> str:
    """Another database of the same server."""
    return urlsplit(service.environment[VARIABLE])._replace(path="/template1").geturl()


OUTAGES = {"hung": hung, "closed": closed, "read-only": read_only}
