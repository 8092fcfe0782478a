"""What leaves for Sentry, and what never does."""

from __future__ import annotations

import asyncio
import json
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sentry_sdk

from app import policy
from app.guardrails.visibility.alerts import Alert
from app.guardrails.visibility.failures import Failure
from app.guardrails.visibility.redaction import WITHHELD, Prompt, Redactor
from app.guardrails.visibility.sentry import SENT, Sentry

from ..service.receiving import SENTRY_KEY, Receiver

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PROMPT = "the quetzal sleeps at noon"
BODY = json.dumps({"messages": [{"content": PROMPT}]}).encode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.in_thread() as receiver:
        yield receiver


@asynccontextmanager
async def _open(receiver: Receiver, *secrets: str) -> AsyncIterator[Sentry]:
    sentry = Sentry(receiver.dsn, "service", "production", Redactor(secrets))
    sentry.start()
    try:
        yield sentry
    finally:
        await sentry.close()


def _inner(text: str) -> None:
    password = f"a local: {text}"
    raise KeyError(len(password))


def _outer(text: str) -> None:
    try:
        _inner(text)
    except KeyError as error:
        raise RuntimeError(f"no idea what to do with {text!r}") from error


def _failure(text: str = PROMPT, prompt: Prompt | None = None) -> Failure:
    try:
        _outer(text)
    except RuntimeError as error:
        return Failure(error, error.__traceback__, prompt, "POST /v1/things", "the-request")
    raise AssertionError


def _alert(failure: Failure | None = None, text: str = "It burns.") -> Alert:
    return Alert("fire:everywhere", text, NOON, failure)


async def _sent(receiver: Receiver, alert: Alert, *secrets: str) -> dict[str, Any]:
    async with _open(receiver, *secrets) as sentry:
        sentry.send(alert)
    (event,) = receiver.events
    return event


async def test_an_event_is_an_alert(receiver: Receiver) -> None:
    """Its text, kind and time, the environment and the version; alike ones are one issue."""
    event = await _sent(receiver, _alert())
    assert event["logentry"] == {"formatted": "It burns."}
    assert event["timestamp"].startswith("2026-01-31T12:00:00")
    assert (event["level"], event["environment"]) == ("warning", "production")
    assert event["tags"] == {"kind": "fire:everywhere"}
    assert event["fingerprint"] == ["fire:everywhere"]
    (received,) = receiver.received
    assert received.path == "/api/1/envelope/"
    assert f"sentry_key={SENTRY_KEY}" in received.headers["x-sentry-auth"]


async def test_an_exception_has_its_stack(receiver: Receiver) -> None:
    """Each of the chain with its type and where it was raised, the cause first, as Sentry has it;
    with the request, the operation, and its message without what the request said."""
    event = await _sent(receiver, _alert(_failure(prompt=Prompt(BODY))))
    cause, raised = event["exception"]["values"]
    assert (cause["type"], raised["type"]) == ("KeyError", "RuntimeError")
    assert raised["value"] == "no idea what to do with '[prompt]'"
    functions = [frame["function"] for frame in cause["stacktrace"]["frames"]]
    assert functions == ["_outer", "_inner"]
    frame = raised["stacktrace"]["frames"][-1]
    assert frame["function"] == "_outer" and frame["module"].endswith("test_sentry")
    assert frame["filename"].endswith("core/test_sentry.py") and frame["lineno"] > 0
    assert event["transaction"] == "POST /v1/things"
    assert event["tags"]["request_id"] == "the-request"
    assert event["level"] == "error"


@pytest.mark.promise("V6")
async def test_only_what_is_listed_leaves(receiver: Receiver) -> None:
    """No local variable, no line of source, no host's name, no path of this machine, no header, no
    module list: nothing of an event but what stands in the list."""
    event = await _sent(receiver, _alert(_failure(prompt=Prompt(BODY))))
    assert set(event) <= SENT
    for raised in event["exception"]["values"]:
        assert set(raised) == {"type", "module", "value", "mechanism", "stacktrace"}
        for frame in raised["stacktrace"]["frames"]:
            assert set(frame) == {"filename", "module", "function", "lineno", "in_app"}
    text = json.dumps(event)
    assert PROMPT not in text and "a local" not in text and "password" not in text
    assert socket.gethostname() not in text and "/work" not in text


async def test_no_secret_leaves(receiver: Receiver) -> None:
    """Wherever it stands: in the message, the text, the kind, the operation, the request's id."""
    prompt = Prompt(b"{}")
    failure = _failure("the key is heron-4711", prompt)
    odd = Failure(failure.error, failure.traceback, prompt, "GET /heron-4711", "heron-4711")
    event = await _sent(receiver, _alert(odd, "The key is heron-4711."), "heron-4711")
    assert "heron" not in json.dumps(event)
    assert event["exception"]["values"][1]["value"].count("[secret]") == 1


async def test_a_message_of_an_unknown_request_is_withheld(receiver: Receiver) -> None:
    """Where nobody knows whose words an exception may quote, its type and stack must do."""
    event = await _sent(receiver, _alert(_failure(prompt=None)))
    assert {raised["value"] for raised in event["exception"]["values"]} == {WITHHELD}
    assert "quetzal" not in json.dumps(event)


async def test_an_exception_without_words_is_sent(receiver: Receiver) -> None:
    """One whose message cannot be read, and one that was raised while another was handled, in a
    circle, in a group."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no voice")

    first, second = Mute(), Mute()
    first.__context__, second.__context__ = second, first
    group = ExceptionGroup("many", [first, second])
    failure = Failure(group, None, Prompt(b"{}"), "GET /")
    event = await _sent(receiver, _alert(failure))
    assert [raised["type"] for raised in event["exception"]["values"]] == [
        "Mute",
        "Mute",
        "ExceptionGroup",
    ]


async def test_two_services_in_one_process_keep_apart(receiver: Receiver) -> None:
    """Each has its own place at Sentry, and the process as a whole has none."""
    with Receiver.in_thread() as other:
        async with _open(receiver) as one, _open(other) as two:
            one.send(_alert(text="Of the one."))
            two.send(_alert(text="Of the other."))
            sentry_sdk.capture_message("of nobody")
    assert [event["logentry"]["formatted"] for event in receiver.events] == ["Of the one."]
    assert [event["logentry"]["formatted"] for event in other.events] == ["Of the other."]
    assert not sentry_sdk.is_initialized()


async def test_no_variable_adds_to_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the SDK reads from the environment by itself changes neither event nor output."""
    monkeypatch.setenv("SENTRY_DEBUG", "1")
    monkeypatch.setenv("SENTRY_SPOTLIGHT", "http://127.0.0.1:1/stream")
    monkeypatch.setenv("SENTRY_RELEASE", "of another")
    monkeypatch.setenv("SENTRY_ENVIRONMENT", "of another")
    event = await _sent(receiver, _alert())
    assert "of another" not in json.dumps(event)
    assert capfd.readouterr() == ("", "")


async def test_sending_does_not_wait(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Sentry is silent, more than its queue holds is sent off at once; the end waits for a
    moment and no longer."""
    monkeypatch.setattr(policy, "ALERT_TIMEOUT_SECONDS", 0.3)
    receiver.awake.clear()
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with _open(receiver) as sentry:
        for _ in range(policy.ALERT_QUEUE * 2):
            sentry.send(_alert())
        assert len(receiver.received) <= 1
    assert len(receiver.received) <= 1
    assert loop.time() - started < 5
    receiver.awake.set()


async def test_an_endless_recursion_keeps_its_end(receiver: Receiver) -> None:
    """A stack of a thousand calls is sent by those that tell where it ended."""

    def again(depth: int) -> None:
        again(depth + 1) if depth < 500 else _inner("")

    with pytest.raises(KeyError) as raised_here:
        again(0)
    error = raised_here.value
    assert len(traceback.extract_tb(error.__traceback__)) > 500
    failure = Failure(error, error.__traceback__, None, "GET /")
    event = await _sent(receiver, _alert(failure))
    (raised,) = event["exception"]["values"]
    frames = raised["stacktrace"]["frames"]
    assert 50 < len(frames) <= 100 and frames[-1]["function"] == "_inner"
