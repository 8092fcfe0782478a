"""The axes and their combinations, as `copier.yml` has them. No value of an axis is named here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

import yaml

from scaffold_cli.questionnaire import Answer
from tests.rendering import ROOT

PROJECT_NAME = "matrix-service"


@dataclass(frozen=True, slots=True)
class Axis:
    """A question whose answer chooses files. `titles` is how people write each of its values."""

    name: str
    titles: Mapping[str, str]
    multiple: bool

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self.titles)

    def selections(self) -> Iterator[tuple[str, ...]]:
        """Each way of answering: one value, or any non-empty subset, the small ones first."""
        sizes = range(1, len(self.values) + 1) if self.multiple else (1,)
        for size in sizes:
            yield from combinations(self.values, size)


@dataclass(frozen=True, slots=True, repr=False)
class Combination:
    """One selection on each axis. Its text is the id of its test."""

    axes: tuple[Axis, ...]
    selections: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return "-".join("+".join(values) for values in self.selections)

    __repr__ = __str__

    @property
    def answers(self) -> dict[str, Answer]:
        answers: dict[str, Answer] = {"project_name": PROJECT_NAME}
        for axis, values in zip(self.axes, self.selections, strict=True):
            answers[axis.name] = list(values) if axis.multiple else values[0]
        return answers

    @property
    def chosen(self) -> frozenset[str]:
        return frozenset(value for values in self.selections for value in values)

    @property
    def not_chosen(self) -> frozenset[str]:
        return frozenset(value for axis in self.axes for value in axis.values) - self.chosen

    def title(self, value: str) -> str:
        return next(axis.titles[value] for axis in self.axes if value in axis.titles)


def read_axes() -> tuple[Axis, ...]:
    """The questions with choices of their own; those computed from other answers are none."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    return tuple(
        Axis(
            name,
            {value: label.partition(":")[0] for label, value in question["choices"].items()},
            question.get("multiselect") is True,
        )
        for name, question in config.items()
        if not name.startswith("_") and isinstance(question.get("choices"), dict)
    )


def all_combinations() -> tuple[Combination, ...]:
    """The first axis changes fastest: neighbours, which run at the same time, need different
    libraries, and no one waits for another to install them."""
    axes = read_axes()
    selections = product(*(tuple(axis.selections()) for axis in reversed(axes)))
    return tuple(Combination(axes, chosen[::-1]) for chosen in selections)


def covering_combinations(*, all_at_once: bool = False) -> tuple[Combination, ...]:
    """As few as have each value of each axis: where several can be chosen, one at a time or all."""
    axes = read_axes()
    columns = [
        [axis.values] if axis.multiple and all_at_once else [(value,) for value in axis.values]
        for axis in axes
    ]
    return tuple(
        Combination(axes, tuple(column[row % len(column)] for column in columns))
        for row in range(max(map(len, columns)))
    )


def default_combination() -> Combination:
    """The one that the defaults of `copier.yml` describe."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    axes = read_axes()
    defaults = (config[axis.name]["default"] for axis in axes)
    return Combination(axes, tuple((d,) if isinstance(d, str) else tuple(d) for d in defaults))
