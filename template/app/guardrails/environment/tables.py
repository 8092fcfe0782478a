"""Sets what the check has to say in columns: as wide as the terminal and in colour there, plain and
one line a row wherever else it goes.
"""

import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TextIO

LEAST_COLUMNS: Final = 20
"""The last column gets as many however narrow the terminal is."""
GAP: Final = "  "


class Colour(Enum):
    """Codes of ECMA-48, "Select Graphic Rendition"."""

    PLAIN = ""
    HEADER = "1"
    FAINT = "2"
    PROBLEM = "31"
    WARNING = "33"
    GOOD = "32"


@dataclass(frozen=True, slots=True)
class Page:
    """Where something is written. Without `width` no line is broken."""

    width: int | None = None
    in_colour: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> "Page":
        """`NO_COLOR` (https://no-color.org) and terminals that know no colour get none."""
        if not stream.isatty():
            return cls()
        coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(shutil.get_terminal_size().columns, coloured)

    def paint(self, text: str, colour: Colour) -> str:
        if not self.in_colour or colour is Colour.PLAIN or not text:
            return text
        return f"\x1b[{colour.value}m{text}\x1b[0m"

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        colours: Sequence[Colour],
    ) -> str:
        """The rows under their header. `colours` has one for the first cell of each row; the last
        cell is broken where the page is too narrow."""
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)][:-1]
        lines: list[str] = []
        for row, colour in zip((header, *rows), (Colour.HEADER, *colours), strict=True):
            lines += self._set(row, widths, colour)
        return "\n".join(lines)

    def _set(self, row: Sequence[str], widths: Sequence[int], colour: Colour) -> list[str]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        indent = GAP + GAP.join(" " * width for width in widths) + GAP
        first, *more = self._broken(row[-1], len(indent)) or [""]
        cells[0] = self.paint(cells[0], colour)
        if colour is Colour.HEADER:
            first = self.paint(first, colour)
            cells[1:] = [self.paint(cell, colour) for cell in cells[1:]]
        lines = [GAP + GAP.join([*cells, first])]
        return [line.rstrip() for line in (*lines, *(indent + rest for rest in more))]

    def _broken(self, text: str, indent: int) -> list[str]:
        if self.width is None:
            return [text]
        columns = max(LEAST_COLUMNS, self.width - indent)
        return textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False)
