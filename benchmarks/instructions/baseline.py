"""The counts that are committed, and how far others lie from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.guardrails import report
from benchmarks.guardrails.report import versions
from tests.rendering import ROOT

from .measuring import Count

FILE = ROOT / "benchmarks" / "instructions.json"
OWN = "own code"
TOTAL = "total"
TOLERANCE = {OWN: 0.02, TOTAL: 0.05}
"""Of the baseline's count, in either direction. Totals move with the libraries' versions."""
LIBRARIES = (*report.LIBRARIES, "prometheus-client", "structlog", "tenacity")

Counts = Mapping[str, Mapping[str, Count]]
"""By the names of row and figure."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Of one minor version of Python."""

    counts: Counts
    versions: Mapping[str, str]
    """Of the libraries that were counted."""

    def differing(self) -> list[str]:
        """Libraries that are others here than they were then: they may be why totals are."""
        return [
            f"{name} {version}, was {self.versions.get(name, 'not there')}"
            for name, version in versions(LIBRARIES).items()
            if version != self.versions.get(name)
        ]


@dataclass(frozen=True, slots=True)
class Difference:
    """A count beyond the tolerance."""

    row: str
    figure: str
    whose: str
    count: int
    expected: int

    @property
    def told(self) -> str:
        more = self.count / self.expected - 1
        return (
            f"{self.row}, {self.figure}: {self.whose} {self.count:,}, baseline {self.expected:,}"
            f" ({more:+.1%})"
        )


def differences(row: str, counts: Mapping[str, Count], baseline: Counts) -> Iterator[Difference]:
    """Those beyond the tolerance, of figures that the baseline has."""
    for figure, expected in baseline.get(row, {}).items():
        if figure not in counts:
            continue
        for whose, now, then in (
            (OWN, counts[figure].own, expected.own),
            (TOTAL, counts[figure].total, expected.total),
        ):
            if abs(now - then) > TOLERANCE[whose] * then:
                yield Difference(row, figure, whose, now, then)


def read(python: str, file: Path = FILE) -> Baseline | None:
    """`None` where there is none for this version of Python."""
    entry = _document(file).get(python)
    if entry is None:
        return None
    counts = {
        row: {figure: Count(**count) for figure, count in figures.items()}
        for row, figures in entry["counts"].items()
    }
    return Baseline(counts, entry["versions"])


def pythons(file: Path = FILE) -> list[str]:
    """The versions of Python that there is a baseline for."""
    return list(_document(file))


def write(python: str, counts: Counts, file: Path = FILE) -> None:
    """Replaces those of this version of Python, and leaves the others."""
    document = _document(file)
    written = {
        row: {figure: asdict(count) for figure, count in figures.items()}
        for row, figures in counts.items()
    }
    document[python] = {"versions": versions(LIBRARIES), "counts": written}
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _document(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if file.exists():
        document = json.loads(file.read_text(encoding="utf-8"))
    return document
