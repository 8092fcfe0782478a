"""The option `--rounds`, and the tables at the end of a run: what came of races and of outages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytest

RACE = "race"
OUTAGE = "outage"


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


@dataclass(frozen=True, slots=True)
class Outage:
    """How many requests met an outage, the longest wait for a refusal, and the time to recover."""

    refused: int
    slowest_seconds: float
    recovered_seconds: float


Tell = Callable[[str, str, Count], None]
TellOutage = Callable[[str, str, Outage], None]


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._races: list[Mapping[str, Any]] = []
        self._outages: list[Mapping[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for name, value in report.user_properties:
                if name == RACE and isinstance(value, Mapping):
                    self._races.append(value)
                if name == OUTAGE and isinstance(value, Mapping):
                    self._outages.append(value)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._races:
            terminalreporter.section("races")
            self._write_races(terminalreporter)
        if self._outages:
            terminalreporter.section("outages of the store")
            self._write_outages(terminalreporter)

    def _write_outages(self, terminalreporter: pytest.TerminalReporter) -> None:
        width = max(len(row["shape"]) for row in self._outages)
        for row in sorted(self._outages, key=lambda row: (row["store"], row["shape"])):
            terminalreporter.write_line(
                f"{row['store']:<8}  {row['shape']:<{width}}  {row['refused']:>3} refused, the last"
                f" after {row['slowest_seconds']:.1f} s; served again after"
                f" {row['recovered_seconds']:.1f} s"
            )

    def _write_races(self, terminalreporter: pytest.TerminalReporter) -> None:
        width = max(len(row["race"]) for row in self._races)
        for row in sorted(self._races, key=lambda row: (row["race"], row["store"])):
            spent = "" if row["spent"] is None else f", ${row['spent']:.2f} spent"
            terminalreporter.write_line(
                f"{row['race']:<{width}}  {row['store']:<8}  {row['asked']:>6,} asked,"
                f" {row['answered']:>6,} answered, {row['calls']:>6,} calls to the provider{spent}"
            )


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> int:
    """How often each race is run, or its multiple, and how many thousands of calls fail."""
    count: int = pytestconfig.getoption("rounds")
    return count


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Puts a line into the table."""

    def record(race: str, store: str, count: Count) -> None:
        record_property(RACE, {"race": race, "store": store, **asdict(count)})

    return record


@pytest.fixture
def tell_outage(record_property: Callable[[str, object], None]) -> TellOutage:
    """The same for the table of outages."""

    def record(shape: str, store: str, outage: Outage) -> None:
        record_property(OUTAGE, {"shape": shape, "store": store, **asdict(outage)})

    return record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, default=1, help="how often races are run and calls are made to fail"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "races-table")
