"""Which line of the guardrails' promises each test shows, and on which store; a table of both.

`@pytest.mark.promise("R1")` marks a test. Its store is the one that it is run with.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.matrix.combinations import read_axes

PROPERTY = "promise"
STORES = next(axis.values for axis in read_axes() if axis.name == "storage")
NO_STORE = "any"

STORELESS = {
    "V1": "request log",
    "V2": "errors' lines",
    "V3": "request id",
    "V4": "metrics",
    "V5": "traces",
    "V6": "alerts",
    "V7": "nothing leaks",
    "E1": "checked at start",
    "E2": "placeholders",
    "E3": "addresses",
    "E4": "store and prices",
    "E5": "check and example",
    "A1": "limits of a call",
    "A2": "one deadline",
    "A3": "retries",
    "A4": "fallback",
    "A5": "circuit breaker",
    "A6": "bulkhead",
    "A7": "streams",
    "A8": "shutdown",
    "C1": "input limit",
    "C2": "counting",
    "C3": "output limit",
    "C4": "history",
    "C5": "summaries",
    "C6": "parameters",
}
"""What no store has a part in."""
RESOURCES = {
    "R1": "rate limit",
    "R2": "identity",
    "R3": "budget",
    "R4": "reservations end",
    "R5": "broken streams",
    "R6": "idempotency",
    "R7": "processes",
    "R8": "days",
    "A9": "store outage",
}
TITLES = STORELESS | RESOURCES
EXEMPT = {("A9", "memory"): "cannot fail"}
"""What has no test, and why."""


def shown_by(item: pytest.Item) -> list[tuple[str, str]]:
    """The promises that this test shows, each with the store that it is shown on."""
    lines = [line for marker in item.iter_markers("promise") for line in marker.args]
    return [(line, _store_of(item)) for line in lines]


def _store_of(item: pytest.Item) -> str:
    parameters = getattr(item, "callspec", None)
    given = parameters.params.values() if parameters is not None else ()
    named = [value for value in given if value in STORES]
    used = [name for name in getattr(item, "fixturenames", ()) if name in STORES]
    return next(iter((*named, *used)), NO_STORE)


class Table:
    """Lives in the process that prints; the reports of the others arrive there."""

    def __init__(self) -> None:
        self._passed: Counter[tuple[str, str]] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            counter = self._passed if report.passed else self._failed
            for name, value in report.user_properties:
                if name == PROPERTY:
                    line, store = str(value).split()
                    counter[line, store] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._passed and not self._failed:
            return
        terminalreporter.section("promises: tests that passed, by store")
        columns = (*STORES, NO_STORE)
        terminalreporter.write_line(" " * 24 + "".join(f"{name:>12}" for name in columns))
        for line, title in TITLES.items():
            cells = "".join(f"{self._cell(line, store):>12}" for store in columns)
            terminalreporter.write_line(f"{line}  {title:<20}{cells}")

    def _cell(self, line: str, store: str) -> str:
        failed = self._failed[line, store]
        if failed:
            return f"{failed} FAILED"
        return str(self._passed[line, store] or EXEMPT.get((line, store), "-"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [(PROPERTY, " ".join(shown)) for shown in shown_by(item)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--list-promises", action="store_true", help="with --collect-only: print who shows what"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("list_promises"):
        shown = sorted({pair for item in session.items for pair in shown_by(item)})
        print(json.dumps(shown))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(*lines): the promises that this test shows")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "promises-table")
