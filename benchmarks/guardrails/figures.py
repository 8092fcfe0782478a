"""From what was measured to figures: medians over the rounds, and ratios and differences within
each round, so that whatever drifts from one round to the next meets both sides alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from . import load
from .load import Load
from .rows import Row


@dataclass(frozen=True, slots=True)
class Sample:
    """One row under one load in one round. CPU is that of the service's processes alone;
    `store_cpu_seconds` is that of its store's server, if it has one."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    store_cpu_seconds: float
    memory_mb: float
    first_token_ms: float = 0.0


Round = Mapping[tuple[str, str], Sample]
"""By the names of row and load."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure, the load that it is taken from, and how."""

    load: Load
    of: Callable[[Sample], float]


CPU_MS = Metric(load.JSON, lambda s: 1000 * s.cpu_seconds / s.requests)
STORE_CPU_MS = Metric(load.JSON, lambda s: 1000 * s.store_cpu_seconds / s.requests)
PER_SECOND = Metric(load.JSON, lambda s: s.requests / s.seconds)
P50_MS = Metric(load.JSON, lambda s: s.p50_ms)
P99_MS = Metric(load.JSON, lambda s: s.p99_ms)
MEMORY_MB = Metric(load.JSON, lambda s: s.memory_mb)
ONE_P50_MS = Metric(load.ONE, lambda s: s.p50_ms)
ONE_P99_MS = Metric(load.ONE, lambda s: s.p99_ms)
CHUNK_US = Metric(load.STREAM, lambda s: 1e6 * s.cpu_seconds / s.requests / load.STREAM.chunks)
STREAMS_PER_SECOND = Metric(load.STREAM, lambda s: s.requests / s.seconds)
FIRST_TOKEN_MS = Metric(load.STREAM, lambda s: s.first_token_ms)

METRICS: Mapping[str, Metric] = {
    "cpu_ms_per_request": CPU_MS,
    "store_cpu_ms_per_request": STORE_CPU_MS,
    "requests_per_second": PER_SECOND,
    "p50_ms": P50_MS,
    "p99_ms": P99_MS,
    "memory_mb_per_process": MEMORY_MB,
    "one_connection_p50_ms": ONE_P50_MS,
    "one_connection_p99_ms": ONE_P99_MS,
    "cpu_us_per_chunk": CHUNK_US,
    "streams_per_second": STREAMS_PER_SECOND,
    "first_token_ms": FIRST_TOKEN_MS,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run."""

    rounds: Sequence[Round]

    def has(self, row: Row) -> bool:
        """Whether the row was measured."""
        return all((row.name, load.JSON.name) in samples for samples in self.rounds)

    def value(self, metric: Metric, row: Row) -> float:
        return median(self.each(metric, row))

    def ratio(self, metric: Metric, row: Row, to: Row) -> float:
        """How many times as much as another row's."""
        return median(self.ratios(metric, row, to))

    def ratios(self, metric: Metric, row: Row, to: Row) -> list[float]:
        """The same of each round."""
        pairs = zip(self.each(metric, row), self.each(metric, to), strict=True)
        return [mine / other for mine, other in pairs]

    def beyond(self, metric: Metric, row: Row, other: Row) -> float:
        """By how much it exceeds another row's."""
        return median(self.differences(metric, row, other))

    def differences(self, metric: Metric, row: Row, other: Row) -> list[float]:
        """The same of each round."""
        pairs = zip(self.each(metric, row), self.each(metric, other), strict=True)
        return [mine - its for mine, its in pairs]

    def spread(self, metric: Metric, row: Row) -> tuple[float, float]:
        """The least and the greatest of the rounds, as ratios to the unguarded service."""
        ratios = self.ratios(metric, row, row.baseline)
        return min(ratios), max(ratios)

    def each(self, metric: Metric, row: Row) -> list[float]:
        return [metric.of(samples[row.name, metric.load.name]) for samples in self.rounds]
