"""Instructions per request at the end of a run, beside the baseline's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from benchmarks.instructions import baseline, report
from benchmarks.instructions.measuring import COUNTED, Count, Measured, python_version

from ..told import ToldTable

PROPERTY = "instructions"

Tell = Callable[[str, Measured], None]


class Table(ToldTable):
    """It reports, and fails nothing."""

    told_as = PROPERTY
    title = "instructions per request"

    def write(self, terminal: pytest.TerminalReporter) -> None:
        told = {
            row["name"]: {figure: Count(**count) for figure, count in row["counts"].items()}
            for row in self.rows
        }
        counts = {row.name: told[row.name] for row in COUNTED if row.name in told}
        python = python_version()
        for line in report.lines(counts, python, baseline.read(python)):
            terminal.write_line(line.text, yellow=line.is_beyond, bold=line.is_beyond)


@pytest.fixture
def tell_instructions(record_property: Callable[[str, object], None]) -> Tell:
    """Puts a service's counts into the table."""

    def record(name: str, measured: Measured) -> None:
        counts = {figure: asdict(count) for figure, count in measured.counts().items()}
        record_property(PROPERTY, {"name": name, "counts": counts})

    return record


def pytest_configure(config: pytest.Config) -> None:
    Table.register(config)
