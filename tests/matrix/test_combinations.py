"""Each combination, from its answers to a service that serves; one test each, with its steps."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sandbox.server import Sandbox
from sandbox.stores import place
from tests.matrix.blemishes import blemishes_in
from tests.matrix.combinations import Combination
from tests.matrix.conftest import EnvironmentOf, MypyCache, Render, check_types
from tests.matrix.example_environment import faults_of_example
from tests.matrix.expected_files import expected_files, files_in
from tests.matrix.preloaded import Preloaded
from tests.matrix.progress import chosen_combinations
from tests.matrix.unused_modules import unused_modules
from tests.matrix.workplace import Workplace
from tests.rendering import PLAIN_HTTP, CommandFailed, Environment, run, service

OFFLINE = Path(__file__).with_name("offline")
PRELOADED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""The assertions of libraries, which pytest would rewrite of its plugins, are not of interest."""


class Blemished(Exception):
    """The rendered files are not as they should be; a line for each thing that is wrong."""


class Steps:
    """The steps of one combination, with their times. A check that fails shows what its tool said,
    and the others go on; without what is needed by them, nothing does."""

    def __init__(self, subtests: pytest.Subtests) -> None:
        self._subtests = subtests
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @contextmanager
    def needed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self.failed.append(name)
        try:
            yield
        except (CommandFailed, Blemished) as error:
            # The text says it all: where in here it was raised is of no interest.
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        finally:
            self.seconds[name] = time.monotonic() - started
        self.failed.remove(name)

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        with self._subtests.test(name), self.needed(name):
            yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "combination" in metafunc.fixturenames:
        metafunc.parametrize("combination", chosen_combinations(metafunc.config), ids=str)


def test_combination(
    combination: Combination,
    template: Path,
    rendered: Render,
    workplace: Workplace,
    environment_of: EnvironmentOf,
    servers: Mapping[str, str],
    vendors: Sandbox,
    mypy_cache: MypyCache,
    preloaded: Preloaded,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    subtests: pytest.Subtests,
    record_property: Callable[[str, object], None],
) -> None:
    """It renders without a trace of its making, passes every checker, starts without a network,
    and passes its own tests in an environment that holds only what it declares."""
    steps = Steps(subtests)
    started = time.monotonic()
    tests = 0
    for name, url in servers.items():
        monkeypatch.setenv(name, url)
    try:
        with steps.needed("render"):
            kept = rendered(combination)
            project = workplace.take(kept)
        with steps.check("files"):
            expected = expected_files(template / "template", combination)
            refuse(f"missing: {name}" for name in expected - files_in(project))
            refuse(f"not expected: {name}" for name in files_in(project) - expected)
        with steps.check("text"):
            refuse(blemishes_in(project, combination))
        with steps.check("modules"):
            refuse(f"nothing imports {module}" for module in unused_modules(project))
        with steps.check("example"):
            refuse(faults_of_example(project, combination))
        with steps.needed("environment"):
            environment = environment_of(project)
        with steps.check("format"):
            use(environment, project, "ruff", "format", "--diff", "--quiet", "--no-cache")
        with steps.check("lint"):
            use(environment, project, "ruff", "check", "--no-cache")
        with steps.check("types"):
            check_types(environment, project, mypy_cache(environment, project))
        with steps.check("imports"):
            refuse(empty_contracts(project))
            use(environment, project, "lint-imports", "--no-cache", "--no-logo")
        workplace.recall()
        with steps.check("boot"):
            boot_offline(environment, project, vendors)
        with steps.check("own tests"):
            which = ["tests/checklist"] if pytestconfig.getoption("quick") else []
            # In a folder of its own: pytest's shared one is swept by all that run at once.
            own = ["--basetemp", str(project.with_name("pytest"))]
            variables = {**environment.variables(), **servers}
            arguments = ["--quiet", *PRELOADED, *own, *which]
            tested = preloaded.run(environment, project, "pytest", arguments, variables)
            tests = count_passed(tested)
        workplace.remember()
    finally:
        record_property("combination", str(combination))
        record_property("seconds", time.monotonic() - started)
        record_property("steps", steps.seconds)
        record_property("failed", steps.failed)
        record_property("own_tests", tests)
        if steps.failed and "render" not in steps.failed:
            workplace.project.rename(kept)


def refuse(faults: Iterable[str]) -> None:
    """Raises `Blemished` if there is any."""
    if listed := sorted(faults):
        raise Blemished("\n".join(listed))


def use(environment: Environment, project: Path, program: str, *arguments: str) -> str:
    """What a program of the project's environment prints. Raises `CommandFailed` if it fails."""
    return run([environment.program(program), *arguments], project, environment.variables())


def empty_contracts(project: Path) -> Iterator[str]:
    """A contract that forbids nothing is kept whatever is imported."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in content["tool"]["importlinter"]["contracts"]:
        if contract.get("forbidden_modules") == []:
            yield f"forbids nothing: {contract['name']}"


def boot_offline(environment: Environment, project: Path, vendors: Sandbox) -> None:
    """It is ready, and answers, with every socket but loopback's denied; it tries no other."""
    log = project.with_name(f"{project.name}.log")
    with place() as store:
        variables = {
            **vendors.environment(),
            **store,
            "ENVIRONMENT": "development",
            "SERVICE_API_KEYS": "matrix:key-of-the-matrix",
            "PYTHONPATH": str(OFFLINE),
        }
        with service(environment, project, variables, log) as running:
            reply = httpx.post(
                f"{running.url}/v1/chat/completions",
                headers={"authorization": "Bearer key-of-the-matrix"},
                json={"messages": [{"role": "user", "content": "Are you there?"}]},
                timeout=30,
                trust_env=False,
                verify=PLAIN_HTTP,
            )
    said = running.output()
    assert reply.status_code == 200, f"{reply.text}\n{said}"
    assert reply.json()["choices"][0]["message"]["content"]
    assert "OFFLINE" in said, said
    assert "DENIED" not in said, said


def count_passed(output: str) -> int:
    """How many tests ran; none was skipped."""
    counted = re.search(r"^(\d+) passed in", output.splitlines()[-1])
    assert counted, output
    return int(counted[1])
