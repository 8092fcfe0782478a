"""The option `--rounds`, and the table at the end of a run: what came of each race."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytest

PROPERTY = "race"


@dataclass(frozen=True, slots=True)
class Count:
    """What rounds of one race add up to; `spent` is in dollars, where money was raced for."""

    asked: int = 0
    answered: int = 0
    calls: int = 0
    spent: float | None = None

    def __add__(self, other: Count) -> Count:
        spent = None if self.spent is None else self.spent + (other.spent or 0)
        return Count(
            self.asked + other.asked,
            self.answered + other.answered,
            self.calls + other.calls,
            spent,
        )


Tell = Callable[[str, str, Count], None]


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._rows: list[Mapping[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for name, value in report.user_properties:
                if name == PROPERTY and isinstance(value, Mapping):
                    self._rows.append(value)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._rows:
            return
        terminalreporter.section("races")
        width = max(len(row["race"]) for row in self._rows)
        for row in sorted(self._rows, key=lambda row: (row["race"], row["store"])):
            spent = "" if row["spent"] is None else f", ${row['spent']:.2f} spent"
            terminalreporter.write_line(
                f"{row['race']:<{width}}  {row['store']:<8}  {row['asked']:>6,} asked,"
                f" {row['answered']:>6,} answered, {row['calls']:>6,} calls to the provider{spent}"
            )


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> int:
    """How often each race is run, or its multiple."""
    count: int = pytestconfig.getoption("rounds")
    return count


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Puts a line into the table."""

    def record(race: str, store: str, count: Count) -> None:
        record_property(PROPERTY, {"race": race, "store": store, **asdict(count)})

    return record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, default=1, help="how often the races of tests/resources are run"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "races-table")
