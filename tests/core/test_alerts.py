"""When people are told, and what of it gets through to them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from app import policy
from app.guardrails.visibility.alerts import Alert, Alerts, Webhook
from app.guardrails.visibility.redaction import Redactor

from ..service.receiving import Receiver
from .assembly import Waits
from .waiting import until

pytestmark = pytest.mark.anyio

COOL_DOWN = timedelta(seconds=policy.ALERT_COOL_DOWN_SECONDS)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass(slots=True)
class Clock:
    """Both clocks: they go on only when told to."""

    now: datetime = NOON

    def monotonic(self) -> float:
        return self.now.timestamp()

    def wall(self) -> datetime:
        return self.now


@dataclass(slots=True)
class Ears:
    """A channel that gets everything through at once, or fails."""

    heard: list[Alert] = field(default_factory=list)
    fault: Exception | None = None
    name: str = "ears"

    def start(self) -> None:
        pass

    def send(self, alert: Alert) -> None:
        if self.fault is not None:
            raise self.fault
        self.heard.append(alert)

    async def close(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def alerts(clock: Clock, ears: Ears) -> Alerts:
    return _alerts(clock, ears)


def _alerts(clock: Clock, *channels: Ears) -> Alerts:
    redact = Redactor(["the-secret"])
    return Alerts(structlog.get_logger(), redact, channels, clock=clock.monotonic, now=clock.wall)


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.mark.promise("V6")
def test_a_kind_is_told_once_in_its_cool_down(alerts: Alerts, clock: Clock, ears: Ears) -> None:
    """Until it is over nothing more is said of that kind, in the log either; of others it is."""
    with capture_logs() as lines:
        alerts.fire("fire", "It burns.")
        clock.now += COOL_DOWN - timedelta(seconds=1)
        alerts.fire("fire", "It burns.")
        alerts.fire("flood", "It rises.")
        assert [alert.kind for alert in ears.heard] == ["fire", "flood"]
        clock.now += timedelta(seconds=1)
        alerts.fire("fire", "It burns.")
    assert [alert.kind for alert in ears.heard] == ["fire", "flood", "fire"]
    assert [line["kind"] for line in lines] == ["fire", "flood", "fire"]


def test_what_was_not_told_is_counted(alerts: Alerts, clock: Clock, ears: Ears) -> None:
    """The next message says how often it has happened since when."""
    for _ in range(8):
        alerts.fire("fire", "It burns.")
    clock.now += COOL_DOWN
    alerts.fire("fire", "It burns.")
    clock.now += COOL_DOWN
    alerts.fire("fire", "It burns.")
    first, second, third = (alert.text for alert in ears.heard)
    assert first == third == "It burns."
    assert second == "It burns. It happened 7 more times since 2026-01-31 12:00:00 UTC."


def test_a_period_has_a_cool_down_of_its_own(alerts: Alerts, clock: Clock, ears: Ears) -> None:
    """What may be told once a day is told again at once when another day has begun."""
    for day in ("2026-01-31", "2026-01-31", "2026-02-01"):
        alerts.fire("flood", f"On {day}.", cool_down_seconds=policy.DAY_SECONDS, period=day)
    assert [alert.text for alert in ears.heard] == ["On 2026-01-31.", "On 2026-02-01."]
    clock.now += timedelta(days=1)
    alerts.fire("flood", "Later.", cool_down_seconds=policy.DAY_SECONDS, period="2026-02-01")
    assert len(ears.heard) == 3


def test_cool_downs_that_are_over_are_forgotten(alerts: Alerts, clock: Clock) -> None:
    """Kinds that never come again do not fill the memory."""
    for number in range(policy.ALERT_KINDS):
        alerts.fire(f"kind {number}", "Once.")
    clock.now += COOL_DOWN
    alerts.fire("one more", "Once.")
    assert len(alerts._told) == 1


def test_no_secret_is_told(alerts: Alerts, ears: Ears, logged: list[EventDict]) -> None:
    """Whatever the text says."""
    alerts.fire("fire", "The key is the-secret.")
    assert ears.heard[0].text == "The key is [secret]."
    assert "the-secret" not in str(logged)


def test_a_channel_that_fails_fails_alone(clock: Clock, logged: list[EventDict]) -> None:
    """Whoever has fired goes on, the other channels are told, and the log says which was not."""
    broken, ears = Ears(fault=RuntimeError("no air, the-secret")), Ears()
    _alerts(clock, broken, ears).fire("fire", "It burns.")
    assert [alert.kind for alert in ears.heard] == ["fire"]
    (line,) = (line for line in logged if line["event"] == "alert_not_sent")
    assert (line["channel"], line["error_type"]) == ("ears", "RuntimeError")
    assert "the-secret" not in str(logged)


# The webhook


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.in_thread() as receiver:
        yield receiver


@asynccontextmanager
async def _open(url: str, waits: Waits) -> AsyncIterator[Webhook]:
    webhook = Webhook(url, "service", structlog.get_logger(), sleep=waits)
    webhook.start()
    try:
        yield webhook
    finally:
        await webhook.close()


def _alert(text: str = "It burns.", kind: str = "fire") -> Alert:
    return Alert(kind, text, NOON)


async def test_a_message_names_service_kind_and_time(receiver: Receiver) -> None:
    """One line, in Slack's JSON, with what Slack would take for markup as text."""
    async with _open(receiver.url, Waits()) as webhook:
        webhook.send(_alert("It burns <!channel> & more."))
    assert receiver.messages == [
        "[service] fire: It burns &lt;!channel&gt; &amp; more. (12:00:00 UTC)"
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_was_not_taken_is_sent_again(
    receiver: Receiver, logged: list[EventDict], status: int
) -> None:
    """After growing waits, and then never again."""
    receiver.statuses = [status] * 2
    waits = Waits()
    async with _open(receiver.url, waits) as webhook:
        webhook.send(_alert())
        await until(lambda: len(receiver.received) == 3)
    assert waits == list(policy.ALERT_RETRY_SECONDS[:2])
    assert len(receiver.received) == 3
    assert not logged


async def test_a_dead_receiver_is_tried_a_few_times(logged: list[EventDict]) -> None:
    """Then the log says so, and the next alert has its turn; nothing says the address."""
    with Receiver.in_thread() as receiver:
        url = receiver.url
    waits = Waits()
    async with _open(url, waits) as webhook:
        webhook.send(_alert())
        webhook.send(_alert())
        await until(lambda: len(logged) == 2)
    assert waits == list(policy.ALERT_RETRY_SECONDS) * 2
    for line in logged:
        assert (line["event"], line["reason"]) == ("alert_not_sent", "ConnectError")
    assert "the-key-of-the-webhook" not in str(logged) and "127.0.0.1" not in str(logged)


@pytest.mark.parametrize("status", [302, 307, 400, 404, 410])
async def test_a_refusal_is_final(receiver: Receiver, logged: list[EventDict], status: int) -> None:
    """What sending again would not mend is told by its status; a redirect leads nowhere."""
    with Receiver.in_thread() as elsewhere:
        receiver.statuses, receiver.headers = [status], {"location": elsewhere.url}
        async with _open(receiver.url, Waits()) as webhook:
            webhook.send(_alert())
            webhook.send(_alert("It burns on."))
            await until(lambda: len(receiver.received) == 2)
    assert not elsewhere.received
    (line,) = logged
    assert (line["event"], line["reason"]) == ("alert_not_sent", f"status {status}")


async def test_a_hung_receiver_is_not_told_twice(
    receiver: Receiver, logged: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have taken what it did not answer to, and the next alert has its turn."""
    monkeypatch.setattr(policy, "ALERT_TIMEOUT_SECONDS", 0.2)
    receiver.awake.clear()
    async with _open(receiver.url, Waits()) as webhook:
        webhook.send(_alert())
        await until(lambda: logged)
        receiver.awake.set()
        webhook.send(_alert("It burns on."))
        await until(lambda: len(receiver.received) == 2)
    (line,) = logged
    assert line["reason"] in ("ReadTimeout", "TimeoutError")


async def test_a_full_queue_is_told(receiver: Receiver, logged: list[EventDict]) -> None:
    """What finds no room is only in the log, and whoever sends it does not wait."""
    webhook = Webhook(receiver.url, "service", structlog.get_logger())
    for _ in range(policy.ALERT_QUEUE + 1):
        webhook.send(_alert())
    (line,) = logged
    assert line["reason"] == "the queue is full"


async def test_the_end_waits_for_a_moment(
    receiver: Receiver, logged: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is queued is sent before the service ends, and what cannot be is counted."""
    async with _open(receiver.url, Waits()) as webhook:
        for _ in range(5):
            webhook.send(_alert())
    assert len(receiver.received) == 5
    monkeypatch.setattr(policy, "ALERT_TIMEOUT_SECONDS", 0.2)
    receiver.awake.clear()
    started = asyncio.get_running_loop().time()
    async with _open(receiver.url, Waits()) as webhook:
        for _ in range(5):
            webhook.send(_alert())
    assert asyncio.get_running_loop().time() - started < 5
    assert logged[-1]["reason"] == "the service ends" and logged[-1]["count"] >= 3
