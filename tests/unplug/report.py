"""The table at the end of a run: which items turned to no in which service."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from .edits import UNPLUGGED

PROPERTY = "unplugged"


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], tuple[str, ...]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY and report.when == "call" and isinstance(value, Mapping):
                self._open[value["item"], value["service"]] = tuple(value["open"])

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._open:
            return
        services = sorted({service for _, service in self._open})
        terminalreporter.section("guardrails unplugged, one at a time")
        width = max(len(edit.item) for edit in UNPLUGGED)
        terminalreporter.write_line(" " * width + "  " + "  ".join(services))
        for edit in UNPLUGGED:
            cells = [self._cell(edit.item, service).ljust(len(service)) for service in services]
            terminalreporter.write_line(f"{edit.item:<{width}}  {'  '.join(cells)}".rstrip())
        asked = len(UNPLUGGED) * len(services)
        good = sum(self._cell(e.item, s) == "no" for e in UNPLUGGED for s in services)
        terminalreporter.write_line(
            f"{good} of {asked}: exactly that item turned to no",
            green=good == asked,
            red=good != asked,
            bold=True,
        )

    def _cell(self, item: str, service: str) -> str:
        found = self._open.get((item, service))
        if found is None:
            return "not run"
        if found == (item,):
            return "no"
        others = [name for name in found if name != item]
        return f"{'no' if item in found else 'YES'}, and no: {' '.join(others) or '-'}"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "unplug-table")
