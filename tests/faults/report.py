"""The fault matrix at the end of a run: a row for each shape, a cell for each provider and kind of
reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

PROPERTY = "fault"


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._rows: list[Mapping[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY and report.when == "call" and isinstance(value, Mapping):
                self._rows.append(value)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._rows:
            return
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(
            "attempts alone/with others left, who answers, status and code with nobody left,"
            f" charge of an attempt, breaker; each within {self._rows[0]['within_seconds']:g} s"
        )
        width = max(len(row["shape"]) for row in self._rows)
        for row in self._rows:
            cells = row["cells"]
            failed = [name for name, is_good in cells.items() if not is_good]
            count = f"{len(cells) - len(failed)} of {len(cells)}"
            told = [row["whole"], *(f"{name}: {what}" for name, what in row["otherwise"].items())]
            line = f"{row['shape']:<{width}}  {count}  {'; '.join(told)}"
            terminalreporter.write_line(line, red=bool(failed))
            if failed:
                terminalreporter.write_line(f"{'':<{width}}  FAILED: {', '.join(failed)}", red=True)
        cells = [is_good for row in self._rows for is_good in row["cells"].values()]
        terminalreporter.write_line(
            f"{sum(cells)} of {len(cells)} cells as they should be",
            green=all(cells),
            red=not all(cells),
            bold=True,
        )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "fault-matrix")
