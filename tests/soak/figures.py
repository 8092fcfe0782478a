"""What a service holds on to, measured from outside and by `inside/sitecustomize.py`."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from ..service.serving import WITHOUT_TLS, Service, eventually
from .crowd import CALLERS

SAMPLE_SECONDS = 0.5
WARM_UP = 2
"""Rounds after which pools, caches and lazily loaded modules have what they need."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What the system knows of the process."""

    memory_mib: float
    open_files: int
    connections: int
    """TCP, to callers and to providers."""
    threads: int


@dataclass(frozen=True, slots=True)
class Figures(Outside):
    """The same and what only the process itself knows. All of it at rest: no request runs."""

    tasks: int
    blocks: int
    """Of memory, as the interpreter counts them."""


ALLOWED = Figures(
    # What the system's allocator does not give back varies by some.
    memory_mib=16,
    # A pool keeps as many connections as its busiest moment took, and that may come late: one more
    # for each caller.
    open_files=CALLERS,
    connections=CALLERS,
    # asyncio's own pool starts its threads one by one, up to that many.
    threads=(os.cpu_count() or 1) + 4,
    # Those at rest are the same at all times.
    tasks=0,
    # A connection is about a hundred, and so many more may be idle; caches fill up. Whatever were
    # kept of each request would be ten thousand in a minute, at least.
    blocks=6_000,
)
"""By how much a figure may grow from the first half of the rounds to the second, after the warm-up.
"""


def outside(process: psutil.Process) -> Outside:
    with process.oneshot():
        return Outside(
            memory_mib=process.memory_info().rss / 2**20,
            open_files=process.num_fds(),
            connections=len(_connections(process)),
            threads=process.num_threads(),
        )


def _connections(process: psutil.Process) -> list[Any]:
    """Whatever is more than a port that is listened on."""
    found = process.net_connections(kind="tcp")
    return [connection for connection in found if connection.status != psutil.CONN_LISTEN]


@dataclass(slots=True)
class Gauge:
    """Measures one service; `answers` is the file that its inside writes to."""

    service: Service
    answers: Path
    peak: Outside = field(init=False)
    _process: psutil.Process = field(init=False)

    def __post_init__(self) -> None:
        self._process = psutil.Process(self.service.process.pid)
        self.peak = outside(self._process)

    def at_rest(self) -> Figures:
        """All of its figures, once no call runs and no caller is connected."""
        eventually(lambda: requests_in_flight(self.service) == 1, 60)  # the one that asks
        eventually(lambda: self.service.books.open_operations == 0, 60)
        eventually(lambda: not self._callers_connected())
        inside = self._ask_inside()
        seen = outside(self._process)
        return Figures(**{each.name: getattr(seen, each.name) for each in fields(seen)}, **inside)

    def let_go(self) -> Figures:
        """The same when the pools have closed what was idle for long, and no connection is left."""
        eventually(lambda: outside(self._process).connections == 0, 60)
        return self.at_rest()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps the highest figures of what happens in the block."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(SAMPLE_SECONDS):
            self.peak = _highest((self.peak, outside(self._process)))

    def _callers_connected(self) -> bool:
        port = urlsplit(self.service.url).port
        return any(c.laddr.port == port for c in _connections(self._process))

    def _ask_inside(self) -> dict[str, int]:
        self.answers.unlink(missing_ok=True)
        self.service.signal(signal.SIGUSR1)
        eventually(self.answers.exists)
        answer: dict[str, int] = json.loads(self.answers.read_text(encoding="utf-8"))
        return answer


def requests_in_flight(service: Service) -> float:
    # No connection of it may stay, for connections are counted here.
    metrics = httpx.get(f"{service.url}/metrics", **WITHOUT_TLS).text
    (line,) = (x for x in metrics.splitlines() if x.startswith("http_requests_in_flight "))
    return float(line.split()[1])


def halves(rests: Sequence[Figures]) -> tuple[Figures, Figures]:
    """Medians of the rounds after the warm-up, of the first half and of the second: one round that
    is unlike the others changes neither."""
    warm = rests[WARM_UP:]
    middle = len(warm) // 2
    return _medians(warm[:middle]), _medians(warm[middle:])


def growth(first: Figures, second: Figures) -> dict[str, float]:
    return {
        each.name: getattr(second, each.name) - getattr(first, each.name) for each in fields(first)
    }


def too_much(grown: dict[str, float]) -> dict[str, float]:
    """What of it is more than allowed."""
    return {name: amount for name, amount in grown.items() if amount > getattr(ALLOWED, name)}


def _medians(figures: Iterable[Figures]) -> Figures:
    columns = list(figures)
    return Figures(
        **{each.name: median(getattr(f, each.name) for f in columns) for each in fields(Figures)}
    )


def _highest(seen: Sequence[Outside]) -> Outside:
    return Outside(
        **{each.name: max(getattr(s, each.name) for s in seen) for each in fields(Outside)}
    )
