"""Counts the bytecode instructions that Python executes, by function.

What C code does inside of one instruction is not seen. Where nothing depends on time or on another
process the count is the same in each run, on any machine with the same Python and libraries.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Final, Protocol

Function = tuple[str, str]
"""Module and qualified name. By its module one made at run time, such as a dataclass's `__init__`,
is that of the code that has it made."""


COUNTS_THREADS: Final = sys.version_info[:2] != (3, 12)
"""CPython 3.12.1 crashes where two threads are traced."""


class Trace(Protocol):
    def __call__(self, frame: FrameType, event: str, argument: Any, /) -> Trace | None: ...


class InstructionCounter:
    """Of the thread that starts it, and, but for Python 3.12, of all that begin while it is
    `listening`.

    Functions of the modules in `ignored` do not count.
    """

    def __init__(self, ignored: Collection[str]) -> None:
        self._ignored = ignored
        # By thread, so that no two add to the same number at once; by identity, since equal code
        # may be that of two functions.
        self._tallies: dict[tuple[int, int], Tally] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = threading.gettrace()
        # Python 3.12 looks whether any frame wants it only when a trace function is set.
        sys._getframe().f_trace_opcodes = True
        if COUNTS_THREADS:
            threading.settrace(self._enter)
        try:
            yield
        finally:
            threading.settrace(before)

    def start(self) -> None:
        """From zero. Functions that run already count once they are resumed."""
        for tally in list(self._tallies.values()):
            tally.count = 0
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def stop(self) -> None:
        sys.settrace(self._before)

    @property
    def total(self) -> int:
        return sum(tally.count for tally in list(self._tallies.values()))

    def by_function(self) -> dict[Function, int]:
        counts: dict[Function, int] = {}
        for tally in list(self._tallies.values()):
            if tally.count:
                counts[tally.function] = counts.get(tally.function, 0) + tally.count
        return counts

    def _enter(self, frame: FrameType, event: str, argument: Any, /) -> Trace | None:
        """Called whenever a function begins, and a coroutine goes on."""
        code = frame.f_code
        key = threading.get_ident(), id(code)
        tally = self._tallies.get(key)
        if tally is None:
            module = frame.f_globals.get("__name__", "")
            if module in self._ignored:
                return None
            tally = self._tallies[key] = Tally(code, (module, code.co_qualname))
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return tally.trace


class Tally:
    """Of one function in one thread."""

    def __init__(self, code: CodeType, function: Function) -> None:
        self.code = code  # kept, so that its identity is no other's
        self.function = function
        self.count = 0
        self.trace: Trace = self._trace  # bound once

    def _trace(self, frame: FrameType, event: str, argument: Any, /) -> Trace:
        if event == "opcode":
            self.count += 1
        return self.trace
