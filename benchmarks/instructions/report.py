"""What is told of counts: a line for each service, and one for each count beyond the tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .baseline import TOLERANCE, Baseline, Counts, differences
from .kinds import FIGURES
from .measuring import Count


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    is_beyond: bool = False


def lines(counts: Counts, python: str, baseline: Baseline | None) -> Iterator[Line]:
    yield Line(f"own code / with libraries, Python {python}")
    width = max(map(len, counts))
    for row, figures in counts.items():
        yield Line(f"{row:<{width}}  {_told(figures)}")
    if baseline is None:
        yield Line(
            f"There is no baseline for Python {python}; `make instructions WRITE=1` writes one."
        )
        return
    beyond = [found for row in counts for found in differences(row, counts[row], baseline.counts)]
    for difference in beyond:
        text = f"BEYOND {TOLERANCE[difference.whose]:.0%}: {difference.told}"
        yield Line(text, is_beyond=True)
    differing = baseline.differing()
    if beyond and differing:
        yield Line(f"Libraries are others than the baseline's: {', '.join(differing)}")
    new = [
        f"{row}, {figure}"
        for row, figures in counts.items()
        for figure in figures
        if figure not in baseline.counts.get(row, {})
    ]
    if new:
        yield Line(f"Not in the baseline: {'; '.join(new)}", is_beyond=True)
    tolerated = " and ".join(f"{most:.0%} ({whose})" for whose, most in TOLERANCE.items())
    compared = 2 * (sum(map(len, counts.values())) - len(new))
    yield Line(
        f"{compared - len(beyond)} of {compared} counts are the baseline's, within {tolerated}",
        is_beyond=bool(beyond),
    )


def _told(figures: Mapping[str, Count]) -> str:
    return ", ".join(
        f"{figure} {figures[figure].own:,} / {figures[figure].total:,}"
        for figure in FIGURES
        if figure in figures
    )
