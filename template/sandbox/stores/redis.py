"""A Redis server that lives as long as the sandbox does, or a corner of `TEST_REDIS_URL`'s."""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import redis

VARIABLE = "REDIS_URL"
SERVER_VARIABLE = "TEST_REDIS_URL"
START_SECONDS = 10.0
STOP_SECONDS = 10.0

# The server takes the place of the shell that starts it. Who stays behind ends it when its starter
# is gone, however that came about: then the pipe to it closes without a line.
_SERVE = 'exec 3<&0; (read -r _ <&3 || kill $$) & exec "$@" 3<&- </dev/null'


class CannotStart(Exception):
    """There is no server to start, or it does not answer."""


@contextmanager
def run() -> Iterator[str]:
    """Yields what the variable is to hold."""
    given = os.environ.get(SERVER_VARIABLE)
    with _corner(given) if given else serve() as url:
        yield url


@contextmanager
def serve(*options: str, port: int | None = None, password: str | None = None) -> Iterator[str]:
    """A server of one's own, with these options of `redis-server`, that keeps nothing on disk."""
    password = password or uuid.uuid4().hex
    with TemporaryDirectory(prefix="sandbox-") as folder:
        while True:
            at = port or _free_port()
            url = f"redis://:{password}@127.0.0.1:{at}/0"
            process = _start(Path(folder), at, "--requirepass", password, *options)
            try:
                if _answers(process, url):
                    yield url
                    return
            finally:
                _stop(process)
            log = (Path(folder) / "redis.log").read_text(encoding="utf-8")
            # Somebody else may have taken the port first.
            if port is not None or "Address already in use" not in log:
                raise CannotStart(f"redis-server ended at once:\n{log}")


def _start(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("redis-server", path=f"{scripts}{os.pathsep}{os.environ.get('PATH')}")
    if program is None:
        raise CannotStart(
            "redis-server is not on the PATH; install Redis, or set TEST_REDIS_URL to a server"
        )
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "no", "--logfile", "redis.log", *options]
    return subprocess.Popen(
        ["/bin/sh", "-c", _SERVE, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is its starter's to hear.
        start_new_session=True,
    )


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Whether the server is up; that it knows the password says that it is this one."""
    deadline = time.monotonic() + START_SECONDS
    with redis.Redis.from_url(url, socket_timeout=1.0, retry=None) as client:
        while process.poll() is None:
            try:
                return bool(client.ping())
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    raise CannotStart(f"redis-server does not answer: {error}") from error
                time.sleep(0.005)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Its number may be another's from now on: who stayed behind must go without killing.
    with suppress(BrokenPipeError):
        process.stdin.write(b"\n")
        process.stdin.close()


@contextmanager
def _corner(url: str) -> Iterator[str]:
    """A namespace of one's own on a server that belongs to somebody else."""
    namespace = f"sandbox-{uuid.uuid4().hex}"
    parts = urlsplit(url)
    query = f"{parts.query}&namespace={namespace}" if parts.query else f"namespace={namespace}"
    try:
        yield parts._replace(query=query).geturl()
    finally:
        with _client(url) as client:
            for key in client.scan_iter(f"{{{namespace}/*", count=1_000):
                client.unlink(key)


def _client(url: str) -> redis.Redis | redis.RedisCluster:
    with redis.Redis.from_url(url) as client:
        is_cluster = client.info("cluster")["cluster_enabled"]
    return redis.RedisCluster.from_url(url) if is_cluster else redis.Redis.from_url(url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
