"""What SIGTERM and SIGINT do, and when.

The first one makes readiness fail at once, while new requests are still served until whoever
balances the load has noticed. Then the server closes its port and waits for what is under way; what
is left after the grace period is cut off. A second one ends the process at once.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NoReturn

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """`on_begun` is called after the signal, `cut_off` when the grace period is over."""

    def __init__(
        self,
        *,
        delay_seconds: float,
        grace_seconds: float,
        on_begun: Callable[[], None],
        cut_off: Callable[[], None],
    ) -> None:
        self.begun = False
        self._delay_seconds = delay_seconds
        self._grace_seconds = grace_seconds
        self._on_begun = on_begun
        self._cut_off = cut_off
        self._grace_ends_at: float | None = None
        self._server: Any = None

    def listen(self) -> None:
        """Takes the signals over from the server, which hears of the first one after the delay.

        To be called in the loop that serves. Only the main thread can hear signals.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._server = signal.getsignal(signal.SIGTERM)
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if multiprocessing.parent_process() is not None:
            # A terminal and systemd signal the workers too, and their parent does so in any case:
            # only it can tell a second signal from an echo of the first.
            if number == signal.SIGINT or self.begun:
                return
        elif self.begun:
            end_at_once(number)
        self.begun = True
        asyncio.get_running_loop().call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._on_begun()
        asyncio.get_running_loop().call_later(self._delay_seconds, self._close_port)

    def _close_port(self) -> None:
        loop = asyncio.get_running_loop()
        self._grace_ends_at = loop.time() + self._grace_seconds
        loop.call_at(self._grace_ends_at, self._cut_off)
        if callable(self._server):
            self._server(signal.SIGTERM, None)

    @property
    def grace_left_seconds(self) -> float:
        """All of it where no signal has come: then the server has stopped by itself."""
        if self._grace_ends_at is None:
            return self._grace_seconds
        return max(0.0, self._grace_ends_at - asyncio.get_running_loop().time())


def end_at_once(number: int) -> NoReturn:
    """With the status that a shell gives to a process that died of the signal.

    Raising it instead would not do: the first process of a container is spared what it has no
    handler for.
    """
    os._exit(128 + number)
