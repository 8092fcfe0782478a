"""What tests have told of themselves, printed when all have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest


class ToldTable:
    """Lives in the process that prints; the reports of the others arrive there.

    A test tells a row by `record_property(told_as, {...})`.
    """

    told_as: ClassVar[str]
    title: ClassVar[str]

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []

    def write(self, terminal: pytest.TerminalReporter) -> None:
        """Prints `rows`, of which there is one at least."""
        raise NotImplementedError

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == self.told_as and report.when == "call" and isinstance(value, Mapping):
                self.rows.append(value)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.rows:
            terminalreporter.section(self.title)
            self.write(terminalreporter)

    @classmethod
    def register(cls, config: pytest.Config) -> None:
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(cls(), f"{cls.told_as}-table")
