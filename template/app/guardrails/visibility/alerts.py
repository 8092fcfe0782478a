"""Tells people when something is wrong: a log line, and a message to each channel that is set up.

Each kind at most once in its cool-down, in each process. Nothing here can slow a request or make it
fail.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import httpx

from ... import policy
from .failures import Failure
from .redaction import Redactor
from .request_log import Logger


@dataclass(frozen=True, slots=True)
class Alert:
    """`kind` says what happened, and to what: `breaker_open:<provider>`. `text` says it to a
    person, and what to do about it; it holds neither secret nor prompt."""

    kind: str
    text: str
    at: datetime
    failure: Failure | None = None


class Channel(Protocol):
    """A way to people that leads out of the process."""

    name: str

    def start(self) -> None: ...

    def send(self, alert: Alert) -> None:
        """Returns at once; what does not get through is told in the log."""

    async def close(self) -> None:
        """Gives what is under way one more moment."""


@dataclass(slots=True)
class Told:
    """When a kind was last told, and how often it has happened since."""

    at: datetime
    quiet_until: float
    since: int = 0


class Alerts:
    """`now` is the clock on the wall, which people read, `clock` the one that cool-downs go by."""

    def __init__(
        self,
        logger: Logger,
        redact: Redactor,
        channels: Sequence[Channel],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._logger = logger
        self._redact = redact
        self._channels = channels
        self._clock = clock
        self._now = now
        self._told: dict[str, Told] = {}

    def start(self) -> None:
        for channel in self._channels:
            channel.start()

    async def close(self) -> None:
        """Returns within `ALERT_TIMEOUT_SECONDS`, or a little more."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def fire(
        self,
        kind: str,
        text: str,
        *,
        cool_down_seconds: float = policy.ALERT_COOL_DOWN_SECONDS,
        period: str = "",
        failure: Failure | None = None,
    ) -> None:
        """Alerts unless `kind` was alerted within its cool-down, in the same `period` if there are
        such, as days. `text` holds no prompt."""
        key = f"{kind} {period}"
        told = self._told.get(key)
        if told is not None and self._clock() < told.quiet_until:
            told.since += 1
            return
        if told is not None and told.since:
            text += f" It happened {told.since} more times since {told.at:%Y-%m-%d %H:%M:%S} UTC."
        alert = Alert(kind, self._redact(text), self._now(), failure)
        self._remember(key, Told(alert.at, self._clock() + cool_down_seconds))
        self._logger.warning("alert", kind=kind, text=alert.text)
        for channel in self._channels:
            try:
                channel.send(alert)
            except Exception as error:
                self._logger.warning(
                    "alert_not_sent", channel=channel.name, error_type=type(error).__name__
                )

    def _remember(self, key: str, told: Told) -> None:
        self._told[key] = told
        if len(self._told) > policy.ALERT_KINDS:
            now = self._clock()
            self._told = {k: t for k, t in self._told.items() if now < t.quiet_until}


class Webhook:
    """Posts alerts to one address, in Slack's JSON format, one after another.

    What the receiver has provably not taken is sent again after `ALERT_RETRY_SECONDS`. A redirect
    is not followed: the address is a secret of this receiver's alone.
    """

    name = "webhook"

    def __init__(
        self,
        url: str,
        service: str,
        logger: Logger,
        *,
        on_not_sent: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._service = service
        self._logger = logger
        self._on_not_sent = on_not_sent
        self._sleep = sleep
        self._queue: asyncio.Queue[str] = asyncio.Queue(policy.ALERT_QUEUE)
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._sender = asyncio.create_task(self._send_all())

    def send(self, alert: Alert) -> None:
        message = f"[{self._service}] {alert.kind}: {alert.text} ({alert.at:%H:%M:%S} UTC)"
        try:
            self._queue.put_nowait(_escaped(message))
        except asyncio.QueueFull:
            self._complain("the queue is full")

    async def close(self) -> None:
        if self._sender is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(policy.ALERT_TIMEOUT_SECONDS):
                await self._queue.join()
        self._sender.cancel()
        await asyncio.wait([self._sender])
        if not self._queue.empty():
            self._complain("the service ends", count=self._queue.qsize())

    async def _send_all(self) -> None:
        async with httpx.AsyncClient(timeout=policy.ALERT_TIMEOUT_SECONDS) as client:
            while True:
                text = await self._queue.get()
                try:
                    await self._send(client, text)
                finally:
                    self._queue.task_done()

    async def _send(self, client: httpx.AsyncClient, text: str) -> None:
        for wait_seconds in (*policy.ALERT_RETRY_SECONDS, None):
            try:
                async with asyncio.timeout(policy.ALERT_TIMEOUT_SECONDS):
                    response = await client.post(self._url, json={"text": text})
            except Exception as error:
                reason, is_refused = type(error).__name__, isinstance(error, httpx.ConnectError)
            else:
                if response.is_success:
                    return
                reason = f"status {response.status_code}"
                is_refused = response.status_code == 429 or response.is_server_error
            if wait_seconds is None or not is_refused:
                self._complain(reason)
                return
            await self._sleep(wait_seconds)

    def _complain(self, reason: str, count: int = 1) -> None:
        self._logger.warning("alert_not_sent", channel=self.name, reason=reason, count=count)
        for _ in range(count):
            self._on_not_sent()


def _escaped(text: str) -> str:
    """What Slack would take for a link or for a call to everybody (`<!channel>`) is text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
