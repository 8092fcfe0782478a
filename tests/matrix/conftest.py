"""The template's snapshot, and what combinations share: environments of the same libraries, and the
servers of stores."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import pytest
from plumbum import local

from sandbox import stores
from sandbox.server import Sandbox
from tests.matrix.combinations import Combination
from tests.matrix.preloaded import Preloaded
from tests.matrix.progress import SHARED_FOLDER
from tests.matrix.workplace import Workplace
from tests.rendering import (
    ROOT,
    CommandFailed,
    Environment,
    make_environment,
    render,
    run,
    take_snapshot,
)

Render = Callable[[Combination], Path]
EnvironmentOf = Callable[[Path], Environment]
MypyCache = Callable[[Environment, Path], Path]

CACHE = "mypy-cache"
"""In an environment's folder: what mypy has read of its libraries."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as it is on disk now, committed or not, without git's knowledge of it."""
    return take_snapshot(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def compiled_once() -> Iterator[None]:
    """Jinja makes the same of the same text each time; Copier asks it anew for each rendering, and
    for every part of every path."""
    known: dict[tuple[object, ...], Any] = {}
    compile_anew: Any = jinja2.Environment.compile

    def compile_once(self: jinja2.Environment, *asked: Any, **more: Any) -> Any:
        if not isinstance(asked[0], str):
            return compile_anew(self, *asked, **more)
        what = (type(self), *asked, *more.items())
        if what not in known:
            known[what] = compile_anew(self, *asked, **more)
        return known[what]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", compile_once)
        yield


@pytest.fixture
def rendered(template: Path, tmp_path: Path, compiled_once: None) -> Render:
    """Renders a combination into a folder of the test's own."""

    def start(combination: Combination) -> Path:
        project = tmp_path / str(combination)
        # Copier would start git for each file, to ask of what is in no repository whether it is
        # executable there.
        with local.env(PATH=""):
            render(template, project, combination.answers)
        return project

    return start


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture(scope="session")
def environment_of(pytestconfig: pytest.Config) -> EnvironmentOf:
    """The environment of a rendered project, made by the first that needs just these libraries.

    In the quick tier it is this repository's own, which holds what any combination needs.
    """
    if pytestconfig.getoption("quick"):
        return lambda _: Environment(Path(sys.prefix))
    shared = Path(pytestconfig.stash[SHARED_FOLDER])

    def find(project: Path) -> Environment:
        folder = shared / libraries_hash(project)
        with locked(folder.with_suffix(".lock")):
            if not folder.with_suffix(".made").exists():
                make_environment(project, folder)
                folder.with_suffix(".made").touch()
        return Environment(folder)

    return find


@pytest.fixture(scope="session")
def servers() -> Iterator[Mapping[str, str]]:
    """The variables by which all services of this process have their stores on the same servers.

    They are set nowhere: the other tests want servers of their own.
    """
    with stores.servers() as variables:
        yield variables


@pytest.fixture(scope="session")
def vendors() -> Iterator[Sandbox]:
    """The stand-ins of all vendors; a service asks those that it knows."""
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> MypyCache:
    """One for each environment, and of this process alone: mypy recognises unchanged files by their
    content. It begins with what has been read of the libraries already; in the quick tier by
    `make lint`.
    """
    quick = pytestconfig.getoption("quick")
    copies: dict[Environment, Path] = {}

    def find(environment: Environment, project: Path) -> Path:
        if environment not in copies:
            copies[environment] = tmp_path_factory.mktemp("mypy-cache")
            known = ROOT / ".mypy_cache" if quick else read_libraries(environment, project)
            if known.is_dir():
                shutil.copytree(known, copies[environment], dirs_exist_ok=True)
        return copies[environment]

    return find


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    with Preloaded() as preloaded:
        yield preloaded


def read_libraries(environment: Environment, project: Path) -> Path:
    """What mypy has read of an environment's libraries, the first time that it was used there."""
    known = environment.folder / CACHE
    with locked(environment.folder.with_suffix(".lock")):
        if not known.is_dir():
            begun = known.with_suffix(".begun")
            # Most libraries are those of other environments, and recognised by their content.
            for others in islice(environment.folder.parent.glob(f"*/{CACHE}"), 1):
                shutil.copytree(others, begun)
            # What it says is of interest when each project is judged.
            with suppress(CommandFailed):
                check_types(environment, project, begun)
            begun.rename(known)
    return known


def check_types(environment: Environment, project: Path, cache: Path) -> None:
    """Raises `CommandFailed` with what mypy says."""
    command = [environment.python, "-m", "mypy", "--cache-dir", str(cache)]
    run(command, project, environment.variables())


def libraries_hash(project: Path) -> str:
    """The same for projects from which uv makes the same environment."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    about = content["project"]
    declared = [
        about.get("requires-python"),
        about.get("dependencies"),
        about.get("optional-dependencies"),
        content.get("dependency-groups"),
        content.get("tool", {}).get("uv"),
    ]
    return hashlib.sha256(json.dumps(declared).encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
