"""What is printed and written of a run: tables for a reader, JSON for a program."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .figures import (
    CHUNK_US,
    CPU_MS,
    FIRST_TOKEN_MS,
    MEMORY_MB,
    METRICS,
    ONE_P50_MS,
    P50_MS,
    P99_MS,
    PER_SECOND,
    STORE_CPU_MS,
    STREAMS_PER_SECOND,
    Figures,
)
from .load import JSON, ONE, STREAM
from .rows import Row
from .targets import Verdict

LIBRARIES = (
    *("uvicorn", "uvloop", "httptools", "httpx", "aiohttp", "httpx-aiohttp", "orjson", "pydantic"),
    *("fastapi", "starlette", "litestar", "quart", "django", "django-ninja", "redis", "psycopg"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run took place, without anything that names the machine itself."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load_before: float
    """How many programs wanted a core before the run began: a busy machine's figures vary."""

    @property
    def told(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.system},"
            f" Python {self.python}; load before the run {self.load_before:.1f}"
        )


def this_machine() -> Machine:
    return Machine(
        cpu=_cpu_name() or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=psutil.virtual_memory().total / 2**30,
        system=platform.system(),
        python=platform.python_version(),
        load_before=psutil.getloadavg()[0],
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Of what is installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_json(
    path: Path,
    machine: Machine,
    settings: dict[str, Any],
    figures: Figures,
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
    peers: Mapping[str, Mapping[str, str]],
) -> None:
    """`peers` are the versions of each peer among the rows, by its name."""
    document = {
        "machine": asdict(machine),
        "versions": versions(),
        "peers": peers,
        "settings": settings,
        "rows": [_row_document(figures, row) for row in rows],
        "targets": [{**asdict(verdict), "reached": verdict.hit} for verdict in verdicts],
        "rounds": [
            [
                {"row": row, "load": under, **asdict(sample)}
                for (row, under), sample in samples.items()
            ]
            for samples in figures.rounds
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _row_document(figures: Figures, row: Row) -> dict[str, Any]:
    least, greatest = figures.spread(CPU_MS, row)
    return {
        "name": row.name,
        **asdict(row),
        "compared_with": row.baseline.name,
        "medians": {name: round(figures.value(m, row), 4) for name, m in METRICS.items()},
        "cpu_ratio": round(figures.ratio(CPU_MS, row, row.baseline), 3),
        "cpu_ratio_least": round(least, 3),
        "cpu_ratio_greatest": round(greatest, 3),
        "requests_per_second_ratio": round(figures.ratio(PER_SECOND, row, row.baseline), 3),
        "chunk_cpu_ratio": round(figures.ratio(CHUNK_US, row, row.baseline), 3),
    }


def print_figures(console: Console, figures: Figures, rows: Sequence[Row]) -> None:
    """Ratios are to the unguarded service with as many processes."""
    console.print(_json_table(figures, rows))
    console.print(_latency_table(figures, rows))
    console.print(_stream_table(figures, rows))


def _json_table(figures: Figures, rows: Sequence[Row]) -> Table:
    table = _table(
        f"JSON at {JSON.connections} connections (x: of the unguarded service's)",
        *("CPU ms", "x", "least-most", "store's ms", "req/s", "x", "p50 ms", "x", "p99 ms", "x"),
        "MB",
    )
    for row in rows:
        least, greatest = figures.spread(CPU_MS, row)
        store = figures.value(STORE_CPU_MS, row)
        table.add_row(
            row.name,
            f"{figures.value(CPU_MS, row):.2f}",
            Text(f"{figures.ratio(CPU_MS, row, row.baseline):.2f}", "bold"),
            f"{least:.2f}-{greatest:.2f}",
            f"{store:.2f}" if store else "",
            f"{figures.value(PER_SECOND, row):.0f}",
            f"{figures.ratio(PER_SECOND, row, row.baseline):.2f}",
            f"{figures.value(P50_MS, row):.1f}",
            f"{figures.ratio(P50_MS, row, row.baseline):.2f}",
            f"{figures.value(P99_MS, row):.1f}",
            f"{figures.ratio(P99_MS, row, row.baseline):.2f}",
            f"{figures.value(MEMORY_MB, row):.0f}",
        )
    return table


def _latency_table(figures: Figures, rows: Sequence[Row]) -> Table:
    table = _table(
        f"JSON at {ONE.connections} connection (+: beyond the unguarded service's)", "p50 ms", "+"
    )
    for row in rows:
        table.add_row(
            row.name,
            f"{figures.value(ONE_P50_MS, row):.2f}",
            f"{figures.beyond(ONE_P50_MS, row, row.baseline):+.2f}",
        )
    return table


def _stream_table(figures: Figures, rows: Sequence[Row]) -> Table:
    table = _table(
        f"Streams of {STREAM.chunks} chunks at {STREAM.connections} connections;"
        " the first token at one",
        *("CPU us a chunk", "x", "streams/s", "x", "first token ms", "+"),
    )
    for row in rows:
        table.add_row(
            row.name,
            f"{figures.value(CHUNK_US, row):.0f}",
            Text(f"{figures.ratio(CHUNK_US, row, row.baseline):.2f}", "bold"),
            f"{figures.value(STREAMS_PER_SECOND, row):.0f}",
            f"{figures.ratio(STREAMS_PER_SECOND, row, row.baseline):.2f}",
            f"{figures.value(FIRST_TOKEN_MS, row):.2f}",
            f"{figures.beyond(FIRST_TOKEN_MS, row, row.baseline):+.2f}",
        )
    return table


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    table = _table("Targets", "at most", "seen", "")
    for verdict in verdicts:
        table.add_row(
            verdict.text,
            f"{verdict.at_most:.3g} {verdict.unit}".strip(),
            # A target of less than a tenth is told to one digit more.
            f"{verdict.seen:.{2 if verdict.at_most >= 0.1 else 3}f} {verdict.unit}".strip(),
            Text(verdict.told, "green" if verdict.hit else "bold red"),
        )
    console.print(table)
    for verdict in verdicts:
        if verdict.why:
            console.print(f"{verdict.text}: {verdict.told}. {verdict.why}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table
