"""The services to update: as few as have each pair of choices of two axes."""

from __future__ import annotations

from ..matrix.combinations import Combination, read_axes


def pairwise_shapes() -> tuple[Combination, ...]:
    """Of the values that can be chosen together, each set is of another size and start."""
    axes = read_axes()
    columns = [
        _selections(axis.values) if axis.multiple else [(value,) for value in axis.values]
        for axis in axes
    ]
    first, second, third = columns
    return tuple(
        Combination(axes, (one, other, third[(i + j) % len(third)]))
        for i, one in enumerate(first)
        for j, other in enumerate(second)
    )


def _selections(values: tuple[str, ...]) -> list[tuple[str, ...]]:
    """In the order of the choices, as Copier records them."""
    cycle = values * 2
    chosen = [cycle[start : 2 * start + 1] for start in range(len(values))]
    return [tuple(value for value in values if value in picked) for picked in chosen]
