"""A line as each combination ends, and at the end how many passed and which were the slowest.

A plugin and no `conftest.py`: under pytest-xdist the process that prints collects nothing.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.matrix.combinations import Combination, all_combinations, covering_combinations

SLOWEST = 10
SHARED_FOLDER = pytest.StashKey[str]()


class Progress:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._plugins = config.pluginmanager
        self._ids: list[str] = []
        self._ended: dict[str, Mapping[str, Any]] = {}
        self._began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        # A subtest's report comes before its test has told anything.
        if report.when != "call" or "combination" not in properties:
            return
        if not self._ended:
            self._ids = [str(combination) for combination in chosen_combinations(self._config)]
            self._began = time.monotonic() - properties["seconds"]
        self._ended[properties["combination"]] = properties
        terminal: pytest.TerminalReporter | None = self._plugins.get_plugin("terminalreporter")
        assert terminal is not None
        terminal.ensure_newline()
        terminal.write_line(
            f"{len(self._ended)} of {len(self._ids)}: {_result(properties)}{self._estimate()}"
        )

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._ended:
            return
        terminalreporter.section("combinations")
        slowest = sorted(self._ended.values(), key=lambda p: p["seconds"], reverse=True)
        for properties in slowest[:SLOWEST]:
            terminalreporter.write_line(f"{_result(properties)}: {_steps(properties)}")
        failed = [name for name, properties in self._ended.items() if properties["failed"]]
        count, total = len(self._ended) - len(failed), len(self._ids)
        tests = sum(properties["own_tests"] for properties in self._ended.values())
        line = f"{count} of {total} combinations, {tests} tests of their own"
        terminalreporter.write_line(line, green=count == total, red=count != total, bold=True)
        if failed:
            terminalreporter.write_line(f"failed: {', '.join(failed)}", red=True)
        if not_run := total - len(self._ended):
            terminalreporter.write_line(f"not run: {not_run}", red=True)

    def _estimate(self) -> str:
        left = len(self._ids) - len(self._ended)
        minutes = (time.monotonic() - self._began) / len(self._ended) * left / 60
        return f"; about {math.ceil(minutes)} min left" if left else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="of the combinations only as few as have each choice once, with their checklists",
    )


def chosen_combinations(config: pytest.Config) -> tuple[Combination, ...]:
    return covering_combinations() if config.getoption("quick") else all_combinations()


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "maxschedchunk", 1) is None:
        # pytest-xdist would hand out several tests at a time, and one of these can take a minute.
        config.option.maxschedchunk = 1
    if hasattr(config, "workerinput"):
        config.stash[SHARED_FOLDER] = config.workerinput["matrix_folder"]
        return
    folder = tempfile.TemporaryDirectory(prefix="matrix-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    config.stash[SHARED_FOLDER] = folder.name
    config.pluginmanager.register(Progress(config), "matrix-progress")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist where all of them share environments."""
    node.workerinput["matrix_folder"] = node.config.stash[SHARED_FOLDER]


def _result(properties: Mapping[str, Any]) -> str:
    failed = properties["failed"]
    outcome = f"FAILED ({', '.join(failed)})" if failed else "passed"
    return f"{properties['combination']} {outcome} in {properties['seconds']:.1f} s"


def _steps(properties: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in properties["steps"].items())
