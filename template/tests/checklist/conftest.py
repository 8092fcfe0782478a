"""What the checklist's tests have in common, and the table that their results add up to.

A run in which they take part ends with that table. The file that `CHECKLIST_REPORT` names receives
it as JSON, where an item that was not run is open.
"""

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

Evidence = Callable[[str], None]

GUIDE = {
    "1. Visibility": ("Are all API requests logged?", "Do you get alerts on errors?"),
    "2. Env Vars": ("Is there env var validation?", "Are API keys NOT in code?"),
    "3. Availability": (
        "Do all external calls have timeouts?",
        "Is retry logic using exponential backoff?",
        "Is there a fallback path?",
    ),
    "4. Cost": (
        "Is Rate Limiting applied?",
        "Is there a daily cost cap?",
        "Is there idempotency handling?",
    ),
    "5. Tokens": ("Is there input token limit?", "Is there history management logic?"),
}
OPEN_ITEMS_OF_THE_UNREADY = 3
NOT_RUN = "not run"
MAX_FAILURE = 300


@pytest.fixture
def evidence(record_property: Callable[[str, object], None]) -> Evidence:
    """Records one sentence that says what was seen."""

    def record(sentence: str) -> None:
        record_property("evidence", sentence)

    return record


@dataclass(slots=True)
class Item:
    """One line of the checklist. It is open for as long as it has a `reason`."""

    step: str
    question: str
    test: str = ""
    evidence: str = ""
    reason: str = NOT_RUN

    def take(self, report: pytest.TestReport, told: Mapping[str, str]) -> None:
        """One phase of a test; once failed, the item stays open."""
        self.test = report.nodeid.rpartition("::")[2]
        if not report.passed:
            self.reason = _reason(report, told["claim"])
        elif report.when == "call" and self.reason == NOT_RUN:
            self.evidence, self.reason = told.get("evidence", ""), ""

    def as_json(self) -> dict[str, object]:
        known = {"step": self.step, "item": self.question, "test": self.test}
        if self.reason:
            return {**known, "passed": False, "reason": self.reason}
        return {**known, "passed": True, "evidence": self.evidence}


class Checklist:
    """The guide's items, and any that the owner adds, with what their tests have shown."""

    def __init__(self) -> None:
        self._items = {
            question: Item(step, question) for step, asked in GUIDE.items() for question in asked
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = {name: str(value) for name, value in report.user_properties}
        if "item" in told:
            item = Item(told["step"], told["item"])
            self._items.setdefault(item.question, item).take(report, told)

    def pytest_sessionfinish(self) -> None:
        path = os.environ.get("CHECKLIST_REPORT")
        if path and self._run:
            Path(path).write_text(json.dumps(self._as_json(), indent=2) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._run:
            return
        terminalreporter.section("checklist")
        for step, items in groupby(self._run, lambda item: item.step):
            terminalreporter.write_line(step, bold=True)
            for item in items:
                _print(item, terminalreporter)
        not_run = len(self._items) - len(self._run)
        verdict = f"{not_run} not run" if not_run else self._verdict()
        line = f"{self._passed} of {len(self._items)}: {verdict}"
        complete = self._passed == len(self._items)
        terminalreporter.write_line(line, bold=True, green=complete, red=not complete)

    @property
    def _run(self) -> list[Item]:
        return [item for item in self._items.values() if item.test]

    @property
    def _passed(self) -> int:
        return sum(not item.reason for item in self._items.values())

    def _verdict(self) -> str:
        still_open = len(self._items) - self._passed
        if still_open >= OPEN_ITEMS_OF_THE_UNREADY:
            return f"not ready for production, {still_open} open"
        return f"nearly ready, {still_open} open" if still_open else "ready for production"

    def _as_json(self) -> dict[str, object]:
        return {
            "passed": self._passed,
            "total": len(self._items),
            "verdict": self._verdict(),
            "items": [item.as_json() for item in self._items.values()],
        }


def pytest_configure(config: pytest.Config) -> None:
    # A worker of pytest-xdist runs a part of the tests; its reports arrive at the one that prints.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Checklist(), "checklist")


def pytest_itemcollected(item: pytest.Item) -> None:
    marker = item.get_closest_marker("item")
    if marker is not None and isinstance(item, pytest.Function):
        step, question = marker.args
        claim = " ".join((item.obj.__doc__ or item.name).split()).removesuffix(".")
        item.user_properties += [("step", step), ("item", question), ("claim", claim)]


def _print(item: Item, terminal: pytest.TerminalReporter) -> None:
    mark, colour = ("no ", "red") if item.reason else ("yes", "green")
    terminal.write_line(f"  {mark}  {item.question}", **{colour: True})
    width = max(40, shutil.get_terminal_size().columns)
    indent = " " * 7
    text = item.reason or item.evidence
    terminal.write_line(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent))


def _reason(report: pytest.TestReport, claim: str) -> str:
    """What is not so, and the failure, in one line."""
    subject = {"setup": "its test could not begin", "teardown": "its test did not end well"}
    said = " ".join(_failure(report.longrepr).split())
    shown = said if len(said) <= MAX_FAILURE else f"{said[:MAX_FAILURE]} ..."
    return f"{subject.get(report.when or '', claim)}: {shown}"


def _failure(longrepr: object) -> str:
    """A message without what pytest and Python tell of the code around it."""
    if isinstance(longrepr, tuple):
        return str(longrepr[2])  # of a test that was skipped
    crash = getattr(longrepr, "reprcrash", None)
    text = str(longrepr if crash is None else crash.message).removeprefix("AssertionError: ")
    if text.startswith("assert "):
        return text.partition("\n")[0]
    message = text.partition("\nassert ")[0]
    before, _, traceback = message.partition("Traceback (most recent call last):")
    return " ".join([before, *traceback.strip().splitlines()[-1:]])
