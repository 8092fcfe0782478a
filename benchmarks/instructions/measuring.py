"""Renders services and has their requests counted, each in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from benchmarks.guardrails.rows import ROWS, Row
from tests.rendering import ROOT, Environment, render, run, set_policy

from .kinds import CHUNK, FIGURES, KINDS, LONG_STREAM, SHORT_STREAM, STREAMS

COUNTED = tuple(row for row in ROWS if row.framework and row.processes == 1 and row.keyed)
SERVERS = ("TEST_REDIS_URL", "TEST_DATABASE_URL")
"""Variables of servers that are to be used where this machine has them already."""


@dataclass(frozen=True, slots=True)
class Count:
    """Instructions of the service's own functions, and of all."""

    own: int
    total: int


@dataclass(frozen=True, slots=True)
class Executed:
    """Of one request, by function."""

    own: Counter[str]
    others: Counter[str]

    @property
    def count(self) -> Count:
        return Count(self.own.total(), self.own.total() + self.others.total())


@dataclass(frozen=True, slots=True)
class Measured:
    """All times that each kind of request was counted."""

    requests: dict[str, Sequence[Executed]]

    def median(self, kind: str) -> Executed:
        """The request with the median total."""
        each = self.requests[kind]
        middle = median_low(executed.count.total for executed in each)
        return next(executed for executed in each if executed.count.total == middle)

    def counts(self) -> dict[str, Count]:
        """By figure, of the kinds that were counted."""
        counts = {kind: self._medians(kind) for kind in self.requests}
        if LONG_STREAM in counts and SHORT_STREAM in counts:
            counts[CHUNK] = _of_a_chunk(counts[SHORT_STREAM], counts[LONG_STREAM])
        return {figure: counts[figure] for figure in FIGURES if figure in counts}

    def _medians(self, kind: str) -> Count:
        counts = [executed.count for executed in self.requests[kind]]
        return Count(
            median_low(count.own for count in counts), median_low(count.total for count in counts)
        )


def _of_a_chunk(short: Count, long: Count) -> Count:
    chunks = STREAMS[LONG_STREAM] - STREAMS[SHORT_STREAM]
    return Count(round((long.own - short.own) / chunks), round((long.total - short.total) / chunks))


def python_version() -> str:
    """What counts are compared within: the same source is other instructions in another one."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def measure(row: Row, template: Path, folder: Path) -> Measured:
    """Renders the row's service into a new `folder`, and counts its requests there."""
    make_service(row, template, folder)
    return count_requests(folder)


def make_service(row: Row, template: Path, folder: Path) -> None:
    answers = {"project_name": "benchmark", "framework": row.framework, "storage": row.storage}
    render(template, folder, {**answers, "providers": ["openai", "anthropic"]})
    # No machine is so busy that a store's answer would be given up, and other code run.
    set_policy(folder, {"STORE_TIMEOUT_SECONDS": "60.0", "STORE_OPEN_TIMEOUT_SECONDS": "60.0"})


def count_requests(project: Path, kinds: Sequence[str] = KINDS) -> Measured:
    """Of a rendered service. Raises `CommandFailed` with what it printed when a request is not
    answered as it should be."""
    environment = Environment(Path(sys.prefix))
    variables = {
        **environment.variables(),
        **{name: os.environ[name] for name in SERVERS if name in os.environ},
        "PYTHONPATH": str(ROOT),
        # The order of sets, and with it how often a loop goes round.
        "PYTHONHASHSEED": "0",
    }
    with tempfile.TemporaryDirectory(prefix="counts-") as folder:
        counts = Path(folder) / "counts.json"
        command = [environment.python, "-m", "benchmarks.instructions.service", str(counts), *kinds]
        run(command, project, variables)
        return read(json.loads(counts.read_text(encoding="utf-8")))


def read(document: Any) -> Measured:
    """What `service.py` has written."""
    return Measured({kind: list(_executed(each)) for kind, each in document.items()})


def _executed(each: Any) -> Iterator[Executed]:
    for counts in each:
        yield Executed(Counter(counts["own"]), Counter(counts["others"]))
