"""Processes of others, found, stopped and let go on; without a program such as `ps`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil


def family_of(pid: int) -> list[psutil.Process]:
    """The process, which leads, and those that it has started."""
    first = psutil.Process(pid)
    return [first, *first.children()]


def is_running(process: psutil.Process) -> bool:
    # In a container nobody may be there to bury the dead.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def standing_still(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """None of them does anything, and ports that they listen on go on accepting."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def commands() -> list[str]:
    """The command lines of all processes that may be looked at."""
    return list(filter(None, map(command_of, psutil.process_iter())))


def command_of(process: psutil.Process) -> str:
    """Its command line: empty once it has ended, though nobody may have buried it yet."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
