"""The fault matrix at the end of a run: a row for each shape, a cell for each provider and kind of
reply."""

from __future__ import annotations

import pytest

from ..told import ToldTable

PROPERTY = "fault"


class Table(ToldTable):
    told_as = PROPERTY
    title = "fault matrix"

    def write(self, terminal: pytest.TerminalReporter) -> None:
        terminal.write_line(
            "attempts alone/with others left, who answers, status and code with nobody left,"
            f" charge of an attempt, breaker; each within {self.rows[0]['within_seconds']:g} s"
        )
        width = max(len(row["shape"]) for row in self.rows)
        for row in self.rows:
            cells = row["cells"]
            failed = [name for name, is_good in cells.items() if not is_good]
            count = f"{len(cells) - len(failed)} of {len(cells)}"
            told = [row["whole"], *(f"{name}: {what}" for name, what in row["otherwise"].items())]
            line = f"{row['shape']:<{width}}  {count}  {'; '.join(told)}"
            terminal.write_line(line, red=bool(failed))
            if failed:
                terminal.write_line(f"{'':<{width}}  FAILED: {', '.join(failed)}", red=True)
        cells = [is_good for row in self.rows for is_good in row["cells"].values()]
        terminal.write_line(
            f"{sum(cells)} of {len(cells)} cells as they should be",
            green=all(cells),
            red=not all(cells),
            bold=True,
        )


def pytest_configure(config: pytest.Config) -> None:
    Table.register(config)
