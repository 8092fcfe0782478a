"""A curve: what something costs at some sizes of its input, and how steeply that grows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

TOLERANCE = 0.1
"""An exponent may be so far above 1 before its curve counts as steeper than its input: about what a
busy machine makes of a straight line over three points."""
END = 3
"""Points at a curve's end that are looked at by themselves: what a fixed cost hides at its
beginning, shows there."""


@dataclass(frozen=True, slots=True)
class Curve:
    """`panel` is what it is drawn in, `line` tells it from others there. `per_input`: the figure is
    for each one of the input, as a chunk of so many, and the whole costs it times the input.

    `sizes` are those of the scene's that say something.
    """

    panel: str
    input: str
    unit: str
    sizes: tuple[int, ...]
    line: str = ""
    per_input: bool = False

    @property
    def name(self) -> str:
        return f"{self.panel}: {self.line}" if self.line else self.panel


Round = Mapping[tuple[str, int], float]
"""Figures by a curve's name and a size."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve with its figures: the median over the rounds at each size."""

    curve: Curve
    points: tuple[tuple[int, float], ...]
    samples: Mapping[int, tuple[float, ...]]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each figure to the first."""
        return tuple(figure / self.points[0][1] for _, figure in self.points)

    @property
    def exponent(self) -> float:
        """The whole cost grows as the input to the power of this."""
        return exponent(self._whole)

    @property
    def exponent_at_end(self) -> float:
        return exponent(self._whole[-END:])

    @property
    def is_steeper(self) -> bool:
        """Than its input, on the whole or at its end."""
        return max(self.exponent, self.exponent_at_end) > 1 + TOLERANCE

    @property
    def told(self) -> str:
        verdict = "STEEPER than its input" if self.is_steeper else "no steeper than its input"
        return (
            f"the whole grows as n^{self.exponent:.2f}, at its end as"
            f" n^{self.exponent_at_end:.2f}: {verdict}"
        )

    @property
    def _whole(self) -> list[tuple[int, float]]:
        return [
            (size, size * figure if self.curve.per_input else figure)
            for size, figure in self.points
        ]


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the straight line with the least squares through the logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum(
        (x - mean_x) ** 2 for x, _ in logs
    )


def drawn(curve: Curve, rounds: Iterable[Round]) -> Drawn:
    rounds = list(rounds)
    samples = {size: tuple(each[curve.name, size] for each in rounds) for size in curve.sizes}
    return Drawn(curve, tuple((size, median(samples[size])) for size in curve.sizes), samples)
