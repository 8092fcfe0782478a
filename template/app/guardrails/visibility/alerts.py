"""Tells people when something is wrong: a log line, and a message to the webhook if there is one.

Each kind at most once in its cool-down. Nothing here can slow a request or make it fail.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import httpx

from ... import policy
from .redaction import Redactor
from .request_log import Logger


class Alerts:
    """`fire` returns at once; a task of its own speaks to the webhook (Slack's JSON format)."""

    def __init__(
        self,
        logger: Logger,
        redact: Redactor,
        webhook_url: str | None,
        service: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._redact = redact
        self._webhook_url = webhook_url
        self._service = service
        self._clock = clock
        self._last: dict[str, float] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(policy.ALERT_QUEUE)
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._webhook_url is not None:
            self._sender = asyncio.create_task(self._send_all(self._webhook_url))

    async def close(self) -> None:
        """Gives what is queued one more moment, then stops."""
        if self._sender is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(policy.ALERT_TIMEOUT_SECONDS):
                await self._queue.join()
        self._sender.cancel()
        with suppress(asyncio.CancelledError):
            await self._sender

    def fire(
        self, kind: str, text: str, cool_down_seconds: float = policy.ALERT_COOL_DOWN_SECONDS
    ) -> None:
        """Alerts unless `kind` was alerted within its cool-down. `text` holds no prompt."""
        now = self._clock()
        last = self._last.get(kind)
        if last is not None and now - last < cool_down_seconds:
            return
        self._last[kind] = now
        message = self._redact(text)
        self._logger.warning("alert", kind=kind, text=message)
        if self._sender is not None:
            with suppress(asyncio.QueueFull):
                self._queue.put_nowait(f"[{self._service}] {kind}: {message}")

    async def _send_all(self, url: str) -> None:
        async with httpx.AsyncClient(timeout=policy.ALERT_TIMEOUT_SECONDS) as client:
            while True:
                text = await self._queue.get()
                try:
                    async with asyncio.timeout(policy.ALERT_TIMEOUT_SECONDS):
                        response = await client.post(url, json={"text": text})
                    if response.is_error:
                        self._logger.warning("alert_not_sent", status=response.status_code)
                except (httpx.HTTPError, OSError) as error:
                    self._logger.warning("alert_not_sent", error_type=type(error).__name__)
                finally:
                    self._queue.task_done()
