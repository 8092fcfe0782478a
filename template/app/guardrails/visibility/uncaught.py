"""Exceptions that nobody caught, of tasks, threads and destructors: a line and an alert each, where
Python would print them past the log, secrets and all. Their messages are withheld: they may quote a
request, and nobody knows which.
"""

import asyncio
import sys
import threading
from typing import Any

from .alerts import Alerts
from .failures import Failure
from .request_log import Logger


class Uncaught:
    """From `listen` on it does what the loop, `threading` and `sys` would do with them, to the end
    of the process: what is left of a service's tasks goes last."""

    def __init__(self, logger: Logger, alerts: Alerts) -> None:
        self._logger = logger
        self._alerts = alerts
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self) -> None:
        """To be called in the loop that serves."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._of_loop)
        threading.excepthook = self._of_thread
        sys.unraisablehook = self._of_destructor

    def _of_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The message comes from asyncio, the rest may show anything.
        self._tell("loop", str(context.get("message")), context.get("exception"))

    def _of_thread(self, raised: threading.ExceptHookArgs) -> None:
        if raised.exc_type is not SystemExit:
            self._tell_later("thread", "Exception in a thread", raised.exc_value)

    def _of_destructor(self, raised: Any) -> None:
        self._tell_later("destructor", "Exception ignored", raised.exc_value)

    def _tell_later(self, source: str, what: str, error: BaseException | None) -> None:
        # Whoever is interrupted here, in whichever thread, may be writing to the log.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, source, what, error)
        else:
            self._tell(source, what, error)

    def _tell(self, source: str, what: str, error: BaseException | None) -> None:
        if error is None:
            self._logger.error("uncaught", source=source, reason=what)
            return
        failure = Failure(error, error.__traceback__, None, place=f"a {source}")
        self._logger.error(
            "uncaught",
            source=source,
            reason=what,
            error_type=failure.name,
            stack=failure.stack(),
        )
        self._alerts.fire(
            f"uncaught_error:{failure.name}@{failure.site}",
            f"{failure.name} in a {source} that nobody waits for, raised in {failure.site}. No"
            " caller was told. The line `uncaught` in the log has its stack.",
            failure=failure,
        )
