"""What a program and those that it has started take, and on which cores they may run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, those that have ended included."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def largest_mb(pid: int) -> float:
    """Resident memory of the largest process, in MB; what it shares with others counts in full."""
    return max(process.memory_info().rss for process in tree(pid)) / 1e6


def tree(pid: int) -> list[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def cores() -> list[int]:
    """Empty where a process cannot be bound to some."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def cores_to_serve(processes: int) -> list[int]:
    """For so many processes that serve; empty, for any, where none would be left for the load."""
    return cores()[:processes] if len(cores()) > processes else []


def cores_for_load() -> list[int]:
    """Those that single processes which serve leave free."""
    return cores()[1:]


@contextmanager
def bound_to(chosen: Sequence[int]) -> Iterator[None]:
    """Programs started in this block run on these cores; on any, if there are none."""
    before = cores()
    if chosen:
        os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        if chosen:
            os.sched_setaffinity(0, before)
