"""What the guarded service is to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from .figures import CPU_MS, MEMORY_MB, ONE_P50_MS, Figures, Metric
from .rows import FASTAPI, LITELLM, NAMES, Row

CPU_RATIOS = {"memory": 0.60, "sqlite": 0.75, "redis": 0.75, "postgres": 0.80}
"""CPU per request, of the unguarded service's; on FastAPI."""
TO_FASTAPI = {"litestar": 1.2, "quart": 1.2, "django": 2.0}
"""CPU per request, of that on FastAPI; on memory."""
ADDED_MS = {"memory": 1.0, "redis": 2.0}
"""Beyond the unguarded service's median at one connection; on FastAPI."""
MEMORY = 180.0
"""MB a process."""
TO_LITELLM = ((CPU_MS, "CPU per request", 1 / 15), (MEMORY_MB, "memory a process", 1 / 2))
"""Of that of LiteLLM's proxy; on FastAPI and memory."""
LITELLM_THEN = 9.6
"""Its CPU per request, of the unguarded service's, when these targets were set."""


@dataclass(frozen=True, slots=True)
class Target:
    """`seen` reads the figure, which is to be `at_most` so much."""

    text: str
    unit: str
    at_most: float
    rows: Sequence[Row]
    seen: Callable[[Figures], float]
    each: Callable[[Figures], Sequence[float]]
    """The same of each round."""
    reason: Callable[[Figures], str] | None = None
    """What else there is to say of a miss."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a target."""

    text: str
    unit: str
    at_most: float
    seen: float
    why: str = ""
    """Of one that is missed: what the figures say of it."""

    @property
    def hit(self) -> bool:
        return self.seen <= self.at_most

    @property
    def told(self) -> str:
        if self.hit:
            return "reached"
        return f"missed by {self.seen / self.at_most - 1:.0%}"


def targets(rows: Sequence[Row]) -> Iterator[Target]:
    """Those that these rows say something about."""
    for target in _all(rows):
        if set(target.rows) <= set(rows):
            yield target


def judge(figures: Figures, rows: Sequence[Row]) -> list[Verdict]:
    return [_judge(figures, target) for target in targets(rows)]


def _judge(figures: Figures, target: Target) -> Verdict:
    seen = target.seen(figures)
    why = "" if seen <= target.at_most else " ".join(_reasons(figures, target))
    return Verdict(target.text, target.unit, target.at_most, seen, why)


def _reasons(figures: Figures, target: Target) -> Iterator[str]:
    each = target.each(figures)
    if min(each) <= target.at_most:
        yield (
            f"Some of the rounds reached it ({min(each):.3g} to {max(each):.3g}):"
            " the machine may have been busy."
        )
    if target.reason is not None:
        yield target.reason(figures)
    yield "Where the time and the memory go: benchmarks/README.md."


def _litellm_now(figures: Figures) -> str:
    now = figures.ratio(CPU_MS, LITELLM, LITELLM.baseline)
    return (
        f"The target was set when {LITELLM.name} cost {LITELLM_THEN} times what the unguarded"
        f" service does; here it costs {now:.1f} times as much."
    )


def _all(rows: Sequence[Row]) -> Iterator[Target]:
    for storage, most in CPU_RATIOS.items():
        row = Row("fastapi", storage)
        text = f"{row.name}: CPU per request, of the unguarded service's"
        yield _ratio(text, most, row, row.baseline)
    for framework, most in TO_FASTAPI.items():
        row = Row(framework, "memory")
        text = f"{row.name}: CPU per request, of {NAMES['fastapi']}'s"
        yield _ratio(text, most, row, FASTAPI)
    for storage, most in ADDED_MS.items():
        row = Row("fastapi", storage)
        text = f"{row.name}: p50 at one connection, beyond the unguarded service's"
        yield Target(
            text,
            "ms",
            most,
            (row, row.baseline),
            partial(Figures.beyond, metric=ONE_P50_MS, row=row, other=row.baseline),
            partial(Figures.differences, metric=ONE_P50_MS, row=row, other=row.baseline),
        )
    for row in rows:
        if row.framework and row.keyed:
            yield Target(
                f"{row.name}: memory a process",
                "MB",
                MEMORY,
                (row,),
                partial(Figures.value, metric=MEMORY_MB, row=row),
                partial(Figures.each, metric=MEMORY_MB, row=row),
            )
    for metric, what, most in TO_LITELLM:
        text = f"{FASTAPI.name}: {what}, of {LITELLM.name}'s"
        reason = _litellm_now if metric is CPU_MS else None
        yield replace(_ratio(text, most, FASTAPI, LITELLM, metric), reason=reason)


def _ratio(text: str, most: float, row: Row, to: Row, metric: Metric = CPU_MS) -> Target:
    return Target(
        text,
        "",
        most,
        (row, to),
        partial(Figures.ratio, metric=metric, row=row, to=to),
        partial(Figures.ratios, metric=metric, row=row, to=to),
    )
