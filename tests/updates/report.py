"""The table at the end of a run: what became of each kind of edit, on the way from one version of
the template to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from .edits import EDITS

PROPERTY = "update"
KEPT, CONFLICT, ASKED, LOST, ABSENT = "kept", "conflict", "asked", "LOST", "-"
"""In its file; between markers; the update stopped and named it; gone; no such file."""


def case(by: str, start: str, end: str, shape: object, fates: Mapping[str, str]) -> object:
    """What a test records of one update."""
    return {"by": by, "step": [start, end], "shape": str(shape), "fates": dict(fates)}


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._cases: list[Mapping[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY and report.when == "call" and isinstance(value, Mapping):
                self._cases.append(value)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._cases:
            return
        terminalreporter.section("updates: versions x shapes x edits")
        kinds = [edit.kind for edit in EDITS]
        widths = [max(len(kind), len(CONFLICT) + 3) for kind in kinds]
        rows = sorted({(case["by"], *case["step"]) for case in self._cases}, reverse=True)
        first = max(len(_title(*row)) for row in rows)
        header = "  ".join(kind.ljust(width) for kind, width in zip(kinds, widths, strict=True))
        terminalreporter.write_line(f"{'':<{first}}  shapes  {header}".rstrip())
        for row in rows:
            cases = [case for case in self._cases if (case["by"], *case["step"]) == row]
            cells = [_cell([case["fates"][kind] for case in cases]) for kind in kinds]
            told = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            line = f"{_title(*row):<{first}}  {len(cases):>6}  {told}".rstrip()
            terminalreporter.write_line(line, red=LOST in line)
        fates = Counter(fate for case in self._cases for fate in case["fates"].values())
        terminalreporter.write_line(
            f"{fates.total() - fates[ABSENT]} edits in {len(self._cases)} updates of"
            f" {len({case['shape'] for case in self._cases})} shapes: {fates[KEPT]} kept,"
            f" {fates[CONFLICT]} in a conflict, {fates[ASKED]} asked about,"
            f" edits lost: {fates[LOST]}",
            green=not fates[LOST],
            red=fates[LOST] > 0,
            bold=True,
        )


def _title(by: str, start: str, end: str) -> str:
    return f"{by} {start} -> {end}"


def _cell(fates: list[str]) -> str:
    counted = Counter(fates)
    return ", ".join(
        fate if count == 1 or fate == ABSENT else f"{count} {fate}"
        for fate, count in counted.items()
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "updates-table")
