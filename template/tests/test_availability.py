"""Availability: what the caller gets when providers are slow, broken, busy or gone.

Where there is another provider it steps in, where there is none the caller hears 503 in time; each
test says which by asking what the service has.
"""

import time
from collections.abc import Sequence

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from tests.asking import CHAT, Stream, answer, ask, ask_stream, calls, question
from tests.conftest import BadDay
from tests.running import Service, eventually

AT_ONCE = {"retry-after-ms": "1"}
SHORT = 100
"""Output tokens that leave room in the caller's budget for an attempt after an unclear one."""


@pytest.fixture
def others(primary: str) -> Sequence[str]:
    """The providers that step in for the first one, in their order; there may be none."""
    from app.wiring import ADAPTERS

    return [adapter.name for adapter in ADAPTERS if adapter.name != primary]


# Time limits


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault(action="stall"), "ProviderTimeout"),
        (Fault(action="stall", after_chunks=0), "ProviderTimeout"),
        (Fault(action="reset"), "ProviderUnavailable"),
        (Fault(action="close", after_chunks=2), "ProviderUnavailable"),
        (Fault(action="end", after_chunks=2), "ProviderUnavailable"),
        (Fault(body="{"), "ProviderUnavailable"),
        (Fault(body="{}"), "ProviderUnavailable"),
        (Fault(html=True), "ProviderUnavailable"),
        (Fault(status=200, html=True), "ProviderUnavailable"),
    ],
    ids=[
        "silent",
        "silent after the headers",
        "reset",
        "closed in the body",
        "cut JSON",
        "malformed JSON",
        "empty JSON",
        "error page",
        "page instead of a reply",
    ],
)
def test_a_broken_answer_is_given_up(
    tight: Service,
    key: str,
    sandbox: Sandbox,
    primary: str,
    others: Sequence[str],
    fault: Fault,
    outcome: str,
) -> None:
    """Whatever shape the failure has, the call ends in time, by another provider or by 503."""
    sandbox.script(primary, [fault])
    started = time.monotonic()
    with tight.client(key) as client:
        response = ask(client, max_tokens=SHORT)
    assert time.monotonic() - started < 5
    line = tight.line_of(response.headers["x-request-id"])
    assert (line["attempts"][0]["provider"], line["attempts"][0]["outcome"]) == (primary, outcome)
    _assert_stepped_in(response, others)


def test_a_dripping_answer_is_bounded_by_the_deadline(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """Bytes that keep coming do not stretch a call beyond `DEADLINE_SECONDS`."""
    sandbox.script(primary, [Fault(drip_seconds=0.1)])
    started = time.monotonic()
    with tight.client(key) as client:
        response = ask(client, max_tokens=SHORT)
    assert 0.9 < time.monotonic() - started < 5
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.usefixtures("mended")
def test_a_wait_beyond_the_deadline_is_not_begun(client: httpx.Client, sandbox: Sandbox) -> None:
    """When every provider wants to be asked too late, the caller hears so at once."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(status=429, headers={"retry-after": "60"})])
    started = time.monotonic()
    response = ask(client)
    assert time.monotonic() - started < 5
    assert response.status_code == 503
    assert response.headers["retry-after"] == "60"
    assert calls(sandbox) == len(sandbox.vendors)


def test_a_stream_is_bounded(tight: Service, key: str, sandbox: Sandbox, primary: str) -> None:
    """A stream that never ends is ended by `STREAM_MAX_SECONDS`, and does not look complete."""
    sandbox.script(primary, [Reply(chunks=90, chunk_delay_seconds=0.05)])
    with tight.client(key) as client:
        stream = ask_stream(client)
    assert stream.text.startswith("word1 word2")
    _assert_broken_off(stream, "deadline_exceeded")


# Retries


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_a_passing_failure_is_retried(
    client: httpx.Client, sandbox: Sandbox, primary: str, status: int
) -> None:
    """What may be gone in a moment is asked for again at the same provider."""
    sandbox.script(primary, [Fault(status=status, headers=AT_ONCE)])
    response = ask(client)
    assert (response.status_code, response.headers["x-provider"]) == (200, primary)
    assert len(sandbox.requests(primary)) == calls(sandbox) == 2


@pytest.mark.usefixtures("mended")
def test_retries_are_counted(
    client: httpx.Client, sandbox: Sandbox, primary: str, others: Sequence[str]
) -> None:
    """A provider receives `MAX_ATTEMPTS` requests for one call and no more, the next one takes
    over: nothing below the service retries as well."""
    sandbox.script(primary, [Fault(status=500, headers=AT_ONCE)], times=None)
    response = ask(client)
    assert len(sandbox.requests(primary)) == 3
    assert calls(sandbox) == 3 + len(others[:1])
    _assert_stepped_in(response, others)


@pytest.mark.parametrize(
    ("header", "value", "at_least", "at_most"),
    [("retry-after", "0.2", 0.2, 0.5), ("retry-after-ms", "200", 0.2, 0.5)],
)
def test_the_providers_wish_is_honoured(
    client: httpx.Client,
    sandbox: Sandbox,
    primary: str,
    header: str,
    value: str,
    at_least: float,
    at_most: float,
) -> None:
    """The wait before a retry is the one that the provider asks for, not the backoff."""
    sandbox.script(primary, [Fault(status=429, headers={header: value})])
    assert ask(client).headers["x-provider"] == primary
    first, second = (request.arrived_at_seconds for request in sandbox.requests(primary))
    assert at_least <= second - first < at_most


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize(
    "error", ["quota_exhausted", "spend_limit", "invalid_api_key", "permission_denied"]
)
def test_a_refused_account_is_not_retried(
    service: Service,
    client: httpx.Client,
    sandbox: Sandbox,
    primary: str,
    others: Sequence[str],
    error: str,
) -> None:
    """Without quota or a good key a provider is left for the next at once, and people hear it."""
    sandbox.script(primary, [Fault(error=error)], times=None)  # type: ignore[arg-type]
    response = ask(client)
    assert len(sandbox.requests(primary)) == 1
    _assert_stepped_in(response, others)
    line = service.line_of(response.headers["x-request-id"])
    assert line["attempts"][0]["outcome"] == "ProviderRefusesAccount"
    assert any(alert["kind"] == f"account_refused:{primary}" for alert in service.lines("alert"))


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("error", ["invalid_request", "context_too_long", "content_policy"])
def test_the_callers_fault_is_returned(
    client: httpx.Client, sandbox: Sandbox, primary: str, error: str, stream: bool
) -> None:
    """A request that the provider blames is neither retried nor sent on: the caller hears 400."""
    fault = Fault(error=error, message="mend the prompt")  # type: ignore[arg-type]
    sandbox.script(primary, [fault])
    response = ask(client, stream=stream)
    assert response.status_code == 400
    assert "mend the prompt" in response.json()["detail"]
    assert "x-provider" not in response.headers
    assert calls(sandbox) == 1


# Fallback


@pytest.mark.usefixtures("mended")
def test_providers_step_in_by_order(client: httpx.Client, sandbox: Sandbox) -> None:
    """The order is that of `PROVIDERS`: whoever is left first answers, and is named."""
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    beginnings = [name.partition("/")[0] for name in ids if "/" in name]
    order = [beginning for beginning in beginnings if beginning in sandbox.vendors]
    assert set(order) == set(sandbox.vendors)
    for down in range(len(order)):
        sandbox.reset()
        for vendor in order[:down]:
            sandbox.script(vendor, [Fault(error="quota_exhausted")])
        assert ask(client).headers["x-provider"] == order[down]
        assert [len(sandbox.requests(vendor)) for vendor in order] == [
            1 if place <= down else 0 for place in range(len(order))
        ]


@pytest.mark.usefixtures("mended")
def test_an_outage_is_never_an_answer(client: httpx.Client, sandbox: Sandbox) -> None:
    """When all fail the caller gets a 503 that says when to come back, as JSON or for a stream."""
    for stream in (False, True):
        for vendor in sandbox.vendors:
            sandbox.script(vendor, [Fault(error="invalid_api_key")])
        response = ask(client, stream=stream)
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["error"]["code"] == "providers_unavailable"
        assert int(response.headers["retry-after"]) >= 1
        assert "x-provider" not in response.headers


def test_an_open_breaker_spares_the_provider(bad_day: BadDay) -> None:
    """A provider that failed five times in a row is not asked any more."""
    assert bad_day.while_open.status_code == 503
    assert bad_day.while_open.json()["error"]["code"] == "providers_unavailable"
    assert bad_day.asked_while_open == 0


def test_a_slow_provider_leaves_the_rest_fast(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """While a call waits for its provider, probes and other calls are answered."""
    sandbox.script(primary, [Reply(chunks=4, chunk_delay_seconds=0.3)])
    with client.stream("POST", CHAT, json=question(stream=True)) as slow:
        next(slow.iter_raw())
        assert client.get("/livez").status_code == 200
        assert ask(client).status_code == 200
        assert not sandbox.requests(primary)[0].complete


# Streams


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=529),
        Fault(action="stall", after_chunks=0),
        Fault(action="end", after_chunks=0),
        Fault(action="close", after_chunks=0),
        Fault(action="garble"),
        Fault(action="error_event", after_chunks=0, error="server_error"),
    ],
    ids=["refused", "silent", "empty", "closed", "malformed", "error event"],
)
def test_before_the_first_byte_a_fallback_is_invisible(
    tight: Service, key: str, sandbox: Sandbox, primary: str, others: Sequence[str], fault: Fault
) -> None:
    """A stream that fails before its first piece is another provider's, or a plain 503."""
    sandbox.script(primary, [fault])
    with tight.client(key) as client:
        response = client.post(CHAT, json=question(stream=True, max_tokens=SHORT))
    _assert_stepped_in(response, others)
    if others:
        assert response.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in response.text


@pytest.mark.parametrize(
    "fault",
    [
        Fault(action="end", after_chunks=3),
        Fault(action="close", after_chunks=3),
        Fault(action="reset", after_chunks=3),
        Fault(action="stall", after_chunks=3),
        Fault(action="garble", after_chunks=3),
        Fault(action="error_event", after_chunks=3, error="server_error"),
    ],
    ids=["cut", "closed", "reset", "silent", "malformed", "error event"],
)
def test_after_the_first_byte_a_failure_is_told(
    tight: Service, key: str, sandbox: Sandbox, primary: str, fault: Fault
) -> None:
    """A stream that breaks off says so in-band, never looks complete, and nobody continues it."""
    sandbox.script(primary, [fault])
    with tight.client(key) as client:
        stream = ask_stream(client, max_tokens=SHORT)
    assert stream.response.headers["x-provider"] == primary
    assert stream.text.startswith("I received")
    _assert_broken_off(stream, "providers_unavailable")
    assert calls(sandbox) == 1


def test_a_stream_is_closed_when_its_caller_leaves(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """The provider stops writing for nobody."""
    sandbox.script(primary, [Reply(chunks=200, chunk_delay_seconds=0.05)])
    with client.stream("POST", CHAT, json=question(stream=True)) as response:
        next(response.iter_lines())
    (upstream,) = sandbox.requests(primary)
    eventually(lambda: upstream.client_gone)
    assert not upstream.complete


def test_a_call_goes_on_when_its_caller_leaves(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A JSON call is paid for anyway: it ends, and a repeat of it gets the reply."""
    sandbox.script(primary, [Fault(delay_seconds=0.4, reply=Reply(text="Worth the wait."))])
    client.headers["idempotency-key"] = "impatient"
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=question(), timeout=0.1)

    def repeat() -> httpx.Response | None:
        response = ask(client)
        return response if response.status_code == 200 else None

    assert answer(eventually(repeat)) == "Worth the wait."
    assert calls(sandbox) == 1


def _assert_stepped_in(response: httpx.Response, others: Sequence[str]) -> None:
    """The next provider has answered, or, where there is none, a 503 says when to come back."""
    if others:
        assert (response.status_code, response.headers["x-provider"]) == (200, others[0])
    else:
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "providers_unavailable"
        assert int(response.headers["retry-after"]) >= 1


def _assert_broken_off(stream: Stream, code: str) -> None:
    assert stream.response.status_code == 200
    assert stream.error is not None and stream.error["code"] == code
    assert stream.finish_reason is None
    assert not stream.done
    assert "error" in stream.events[-1]
