"""The table at the end of a run: what became of each kind of edit, on the way from one version of
the template to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from ..told import ToldTable
from .edits import EDITS

PROPERTY = "update"
KEPT, CONFLICT, ASIDE, LOST, ABSENT = "kept", "conflict", "aside", "LOST", "-"
"""In its file; between markers; beside where its file was; gone; no such file."""


def case(by: str, start: str, end: str, shape: object, fates: Mapping[str, str]) -> object:
    """What a test records of one update."""
    return {"by": by, "step": [start, end], "shape": str(shape), "fates": dict(fates)}


class Table(ToldTable):
    told_as = PROPERTY
    title = "updates: versions x shapes x edits"

    def write(self, terminal: pytest.TerminalReporter) -> None:
        kinds = [edit.kind for edit in EDITS]
        widths = [max(len(kind), len(CONFLICT) + 3) for kind in kinds]
        rows = sorted({(case["by"], *case["step"]) for case in self.rows}, reverse=True)
        first = max(len(_title(*row)) for row in rows)
        header = "  ".join(kind.ljust(width) for kind, width in zip(kinds, widths, strict=True))
        terminal.write_line(f"{'':<{first}}  shapes  {header}".rstrip())
        for row in rows:
            cases = [case for case in self.rows if (case["by"], *case["step"]) == row]
            cells = [_cell([case["fates"][kind] for case in cases]) for kind in kinds]
            told = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            line = f"{_title(*row):<{first}}  {len(cases):>6}  {told}".rstrip()
            terminal.write_line(line, red=LOST in line)
        fates = Counter(fate for case in self.rows for fate in case["fates"].values())
        terminal.write_line(
            f"{fates.total() - fates[ABSENT]} edits in {len(self.rows)} updates of"
            f" {len({case['shape'] for case in self.rows})} shapes: {fates[KEPT]} kept,"
            f" {fates[CONFLICT]} in a conflict, {fates[ASIDE]} kept aside,"
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
    Table.register(config)
