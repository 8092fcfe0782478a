"""The option `--minutes`, and the soak's figures at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

FIGURES = "soak-figures"
COUNTS = "soak-counts"
COLUMNS = ("at start", "first half", "second half", "grown by", "allowed", "let go", "peak")

TellFigures = Callable[[str, Mapping[str, Mapping[str, float]]], None]
TellCounts = Callable[[str, str], None]


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._figures: list[Mapping[str, Any]] = []
        self._counts: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for name, value in report.user_properties:
                if name == FIGURES and isinstance(value, Mapping):
                    self._figures.append(value)
                if name == COUNTS and isinstance(value, Mapping):
                    self._counts.append((value["what"], value["text"]))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for run in self._figures:
            terminalreporter.section(f"soak: {run['title']}")
            terminalreporter.write_line(" " * 14 + "".join(f"{name:>13}" for name in COLUMNS))
            for figure, row in run["rows"].items():
                cells = "".join(f"{_cell(row.get(name)):>13}" for name in COLUMNS)
                terminalreporter.write_line(f"{figure:<14}{cells}")
        for what, text in self._counts:
            terminalreporter.write_line(f"{what:<14}  {text}")


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if value % 1 else f"{value:,.0f}"


@pytest.fixture(scope="session")
def minutes(pytestconfig: pytest.Config) -> float:
    """How long the soak's load lasts."""
    count: float = pytestconfig.getoption("minutes")
    return count


@pytest.fixture
def tell_figures(record_property: Callable[[str, object], None]) -> TellFigures:
    """Prints a table, a row for each figure."""

    def record(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
        record_property(FIGURES, {"title": title, "rows": rows})

    return record


@pytest.fixture
def tell_counts(record_property: Callable[[str, object], None]) -> TellCounts:
    """Adds a line below it."""

    def record(what: str, text: str) -> None:
        record_property(COUNTS, {"what": what, "text": text})

    return record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=1, help="how long tests/soak asks a service")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "soak-table")
