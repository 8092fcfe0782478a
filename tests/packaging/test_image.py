"""The Dockerfile, carried out line by line without Docker, and the service that comes of it.

What only Docker can show is not shown here: that the base images exist, the users, the mounts.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from app.guardrails.environment.settings import Settings
from sandbox.server import Sandbox
from scaffold_cli.environment import find_uv
from tests.matrix.combinations import Combination, covering_combinations
from tests.packaging.conftest import SHARED_BY_HOSTS, Rendered
from tests.packaging.image import Image, build, context, instructions
from tests.rendering import CommandFailed, kept_port, run

pytestmark = pytest.mark.xdist_group("images")

READ_ONLY = Path(__file__).with_name("read_only")
START_SECONDS = 60.0


@contextmanager
def container(
    image: Image, variables: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """What `docker run --read-only` starts: the image's command in its folder and environment."""
    writable = os.pathsep.join([str(image.workdir / "data"), str(log.parent)])
    with log.open("wb") as output:
        process = subprocess.Popen(
            image.command("CMD"),
            cwd=image.workdir,
            env={
                **image.environment(),
                "PYTHONPATH": str(READ_ONLY),
                "WRITABLE": writable,
                **variables,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def is_healthy(image: Image, variables: Mapping[str, str]) -> bool:
    """Whether the image's own health check says so."""
    environment = {**image.environment(), **variables}
    command = image.command("HEALTHCHECK")
    done = subprocess.run(command, cwd=image.workdir, env=environment, capture_output=True)
    return done.returncode == 0


def becomes_healthy(
    image: Image, variables: Mapping[str, str], process: subprocess.Popen[bytes]
) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(image, variables):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def status_of(port: int, path: str) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.fixture(scope="session")
def images(
    services: Mapping[str, Rendered], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Rendered], Image]:
    """Makes a service's image, with all its extras, once: that of the first without a `uv.lock`, as
    it was rendered, those of the others with one."""

    @cache
    def make(name: str) -> Image:
        folder = tmp_path_factory.mktemp("image")
        project = folder / "project"
        shutil.copytree(services[name].project, project)
        if name != next(iter(services)):
            lock(project)
        declared = tomllib.loads(services[name].text("pyproject.toml"))["project"]
        extras = declared.get("optional-dependencies", {})
        return build(project, folder, {"EXTRAS": " ".join(extras)})

    return lambda service: make(str(service))


def lock(project: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    run([find_uv(), "lock", "--python", sys.executable], project, inherited)


@pytest.mark.parametrize("combination", covering_combinations(), ids=str)
def test_the_image_serves(
    combination: Combination,
    services: Mapping[str, Rendered],
    images: Callable[[Rendered], Image],
    tmp_path: Path,
) -> None:
    """Each line of the Dockerfile works; what comes of it serves from a read-only root, is found
    healthy, answers the probes of the manifests, and ends in order when it is told to."""
    service = services[str(combination)]
    image = images(service)
    log = tmp_path / "log/service.log"
    log.parent.mkdir()
    with Sandbox.in_thread() as vendors, server_of(service) as store, kept_port() as port:
        known = service.settings()
        variables = {
            **{name: value for name, value in vendors.environment().items() if name in known},
            **store,
            "ENVIRONMENT": "development",
            "PORT": str(port),
            "HTTP_PROXY": "http://127.0.0.1:9",  # nobody: the health check must not ask there
            "NO_PROXY": "127.0.0.1",
        }
        with container(image, variables, log) as process:
            proxied = {**variables, "NO_PROXY": ""}
            assert becomes_healthy(image, proxied, process), log.read_text()
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert status_of(port, service.container()[probe]["httpGet"]["path"]) == 200
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
        assert not is_healthy(image, variables)
    said = log.read_text()
    assert "READ-ONLY" in said
    assert "WROTE" not in said
    assert (image.workdir / "data/service.db").exists() == (service.storage == "sqlite")


@contextmanager
def server_of(service: Rendered) -> Iterator[dict[str, str]]:
    """What its store is, where it is a server; a file is made where it is by default."""
    if service.storage not in SHARED_BY_HOSTS:
        yield {}
        return
    store = import_module(f"sandbox.stores.{service.storage}")
    with store.run() as url:
        yield {store.VARIABLE: url}


def test_the_image_holds_the_service_alone(service: Rendered, tmp_path: Path) -> None:
    """What is secret, tests and caches are not even sent to Docker, wherever they lie; and no
    variable of the image or of its making is a secret."""
    project = tmp_path / "project"
    shutil.copytree(service.project, project)
    for name in (".env", "app/.env", ".secrets/openai_api_key", "data/service.db", ".git/config"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    (project / "uv.lock").write_text("x")
    app = {f"app/{path.relative_to(project / 'app')}" for path in (project / "app").rglob("*")}
    files = {name for name in app if (project / name).is_file() and not name.endswith(".env")}
    assert context(project) == files | {"pyproject.toml", "uv.lock"}
    dockerfile = list(instructions(project / "Dockerfile"))
    said = " ".join(step.text for step in dockerfile if step.name in ("ARG", "ENV"))
    named = set(re.findall(r"\b([A-Z][A-Z0-9_]*)=", said))
    assert "EXTRAS" in named and named & set(service.settings()) == {"HOST", "PORT"}


def test_bytecode_is_compiled(
    services: Mapping[str, Rendered], images: Callable[[Rendered], Image]
) -> None:
    """A read-only container cannot keep what it compiles, so the image has it: of the service and
    of its libraries, which are those that it runs with and no others."""
    image = images(next(iter(services.values())))
    assert list(image.workdir.glob("app/__pycache__/main.*.pyc"))
    assert list(image.workdir.glob(".venv/lib/*/site-packages/httpx/__pycache__/_client.*.pyc"))
    assert not list(image.workdir.glob(".venv/lib/*/site-packages/pytest"))


def test_a_lock_that_does_not_fit_fails_the_build(
    services: Mapping[str, Rendered], tmp_path: Path
) -> None:
    """Libraries are those of `uv.lock` where there is one, and never others in its stead; to the
    search for keys it is a file as any other, and holds none."""
    project = tmp_path / "project"
    shutil.copytree(next(iter(services.values())).project, project)
    lock(project)
    run([sys.executable, "-m", "tests.key_scan", "uv.lock"], project, {"PATH": os.environ["PATH"]})
    declared = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert '"httpx>=0.28.1"' in declared
    changed = declared.replace('"httpx>=0.28.1"', '"httpx>=0.28.1,<0.29"')
    (project / "pyproject.toml").write_text(changed, encoding="utf-8")
    with pytest.raises(CommandFailed, match="lockfile"):
        build(project, tmp_path, {})


def test_extras_reach_uv(services: Mapping[str, Rendered], tmp_path: Path) -> None:
    """`--build-arg EXTRAS` names optional libraries; one that does not exist fails the build."""
    with pytest.raises(CommandFailed, match="no-such-extra"):
        build(next(iter(services.values())).project, tmp_path, {"EXTRAS": "no-such-extra"})


def test_the_image_is_not_roots(service: Rendered) -> None:
    """Its process is of a user with a number, and gets what it writes to from nobody else."""
    dockerfile = list(instructions(service.project / "Dockerfile"))
    (user,) = [step.text for step in dockerfile if step.name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    owners = {step.flags["chown"] for step in dockerfile if "chown" in step.flags}
    assert owners == ({user} if service.storage == "sqlite" else set())


def test_signals_reach_the_service(service: Rendered) -> None:
    """No shell stands between Docker's SIGTERM and the service."""
    dockerfile = {step.name: step.text for step in instructions(service.project / "Dockerfile")}
    assert dockerfile["CMD"] == '["python", "-m", "app"]'
    assert dockerfile["STOPSIGNAL"] == "SIGTERM"
    assert "ENTRYPOINT" not in dockerfile


def test_the_image_has_the_settings_port(service: Rendered) -> None:
    """It listens where others reach it, on the port that it exposes."""
    said = service.text("Dockerfile")
    port = Settings.model_fields["port"].default
    assert f"PORT={port}" in said and f"EXPOSE {port}" in said
    assert "HOST=0.0.0.0" in said
