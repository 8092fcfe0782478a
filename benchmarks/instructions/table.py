"""The table of the baseline in the benchmarks' README."""

from __future__ import annotations

from pathlib import Path

from tests.rendering import ROOT

from . import baseline
from .baseline import Counts
from .kinds import FIGURES

README = ROOT / "benchmarks" / "README.md"
HEAD = f"| own / total | {' | '.join(FIGURES)} |"


def table(python: str, counts: Counts) -> str:
    rows = [
        f"| {row} | {' | '.join(f'{c.own:,} / {c.total:,}' for c in figures.values())} |"
        for row, figures in counts.items()
    ]
    rule = f"|---|{'---:|' * len(FIGURES)}"
    return "\n".join([f"Python {python}:", "", HEAD, rule, *rows])


def renew_table(readme: Path = README, file: Path = baseline.FILE) -> None:
    """Puts it where it is already, of the first version of Python that has a baseline."""
    python = baseline.pythons(file)[0]
    found = baseline.read(python, file)
    assert found is not None
    text = readme.read_text(encoding="utf-8")
    begin = text.rindex("Python ", 0, text.index(HEAD))
    end = text.index("\n\n", text.index(HEAD))
    readme.write_text(text[:begin] + table(python, found.counts) + text[end:], encoding="utf-8")
