"""Rounds of a run that nobody has to wait for."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.guardrails.figures import Figures, Round, Sample
from benchmarks.guardrails.load import LOADS
from benchmarks.guardrails.rows import Row

UNGUARDED, GUARDED = Row(), Row("fastapi", "memory")
TWO, GUARDED_TWO = Row(processes=2), Row("fastapi", "redis", processes=2)
OVER_AIOHTTP = Row(transport="aiohttp")
LITELLM, PORTKEY = Row(peer="litellm"), Row(peer="portkey")


def sample(cpu_ms: float, *, p50_ms: float = 1.0, memory_mb: float = 100.0) -> Sample:
    """Of a thousand requests in two seconds, each of so much CPU."""
    return Sample(
        requests=1000,
        seconds=2.0,
        p50_ms=p50_ms,
        p99_ms=2 * p50_ms,
        cpu_seconds=cpu_ms,
        store_cpu_seconds=0.0,
        memory_mb=memory_mb,
        first_token_ms=3 * p50_ms,
    )


def run(*rounds: dict[Row, Sample]) -> Figures:
    """The same figures under each load."""
    return Figures([_round(samples) for samples in rounds])


def _round(samples: dict[Row, Sample]) -> Round:
    return {(row.name, load.name): each for row, each in samples.items() for load in LOADS}


def cpu_run(*rounds: Sequence[float]) -> Figures:
    """Of the unguarded and the guarded service, CPU in ms a request."""
    return run(*({UNGUARDED: sample(one), GUARDED: sample(other)} for one, other in rounds))
