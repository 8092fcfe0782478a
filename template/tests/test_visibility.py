"""Visibility: what a request leaves in the log and the metrics, who is alerted, and what never
shows up anywhere."""

import json
import math
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from tests.asking import CHAT, ask, ask_stream, pinned, question
from tests.conftest import METRICS_TOKEN, BadDay, Webhook
from tests.crashing import CRASH
from tests.running import Service, eventually

PROMPT = "the-canary-sings-at-midnight"


# The line of a request


def test_a_call_leaves_one_line(service: Service, client: httpx.Client, primary: str) -> None:
    """It says who asked what when, who answered after which attempts, and what that cost."""
    response = ask(client)
    line = service.line_of(response.headers["x-request-id"])
    assert datetime.fromisoformat(line["time"]).tzinfo is not None
    assert (line["level"], line["event"]) == ("info", "request")
    assert (line["method"], line["route"], line["status"]) == ("POST", CHAT, 200)
    assert line["duration_ms"] > 0
    assert line["caller"].startswith("caller")
    assert line["outcome"] == "ok"
    assert (line["provider"], line["replayed"]) == (primary, False)
    assert f"{primary}/{line['model']}" == pinned(client, primary)
    (attempt,) = line["attempts"]
    assert (attempt["provider"], attempt["outcome"]) == (primary, "ok")
    assert 0 < attempt["duration_ms"] <= line["duration_ms"]
    usage = response.json()["usage"]
    assert line["input_tokens"] == usage["prompt_tokens"] > 0
    assert line["output_tokens"] == usage["completion_tokens"] > 0
    assert line["cost_usd"] > 0
    assert "first_token_ms" not in line


def test_a_stream_leaves_its_time_to_first_token(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """The line of a stream is written at its end and says how long the first token took."""
    reply = Reply(text="a b c", chunks=3, chunk_delay_seconds=0.1)
    sandbox.script(primary, [Fault(delay_seconds=0.1, reply=reply)])
    stream = ask_stream(client)
    line = service.line_of(stream.response.headers["x-request-id"])
    assert 100 < line["first_token_ms"] < line["duration_ms"] - 100
    assert line["output_tokens"] > 0 and line["cost_usd"] > 0


def test_a_replay_leaves_its_line(service: Service, client: httpx.Client, primary: str) -> None:
    """A replay is marked as one: no attempts, no tokens, no cost."""
    client.headers["idempotency-key"] = "seen-before"
    ask(client)
    line = service.line_of(ask(client).headers["x-request-id"])
    assert line["replayed"] is True
    assert line["provider"] == primary
    assert (line["attempts"], line["output_tokens"], line["cost_usd"]) == ([], 0, 0)


def test_refusals_leave_the_routes_template(service: Service, client: httpx.Client) -> None:
    """What is refused before routing has the line of the route that it would have taken."""
    with service.client(None) as stranger:
        refused = {
            "invalid_api_key": ask(stranger),
            "request_too_large": client.post(CHAT, content=b" " * 2**21),
            "context_length_exceeded": ask(client, "many words " * 6000),
            "invalid_json": client.post(CHAT, content=b"{"),
        }
    for code, response in refused.items():
        line = service.line_of(response.headers["x-request-id"])
        assert line["status"] == response.status_code >= 400
        assert (line["route"], line["outcome"], line["refusal"]) == (CHAT, "refused", code)
        assert (line["level"], line["duration_ms"] > 0) == ("info", True)


def test_an_unknown_path_is_not_logged(service: Service, client: httpx.Client) -> None:
    """A path is the caller's text: the line says only that no route matched."""
    response = client.get("/somewhere-else?key=value-of-somebody")
    line = service.line_of(response.headers["x-request-id"])
    assert (line["status"], line["route"]) == (404, "unmatched")
    assert "somewhere-else" not in service.output()
    assert "value-of-somebody" not in service.output()


def test_a_caller_who_leaves_a_stream_leaves_a_line(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """It says that the caller went, and what had been spent by then."""
    sandbox.script(primary, [Reply(chunks=100, chunk_delay_seconds=0.05)])
    with client.stream("POST", CHAT, json=question(stream=True)) as response:
        next(response.iter_lines())
    line = service.line_of(response.headers["x-request-id"])
    assert (line["outcome"], line["provider"]) == ("disconnected", primary)
    assert line["cost_usd"] > 0


def test_a_caller_who_leaves_a_call_leaves_a_line(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """The call runs to its end, and its line says both what it cost and that nobody waited."""
    sandbox.script(primary, [Fault(delay_seconds=0.5)])
    client.headers["x-request-id"] = "left-a-call"
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=question(), timeout=0.2)
    line = service.line_of("left-a-call")
    assert line["outcome"] == "disconnected"
    assert line["output_tokens"] > 0 and line["cost_usd"] > 0


def test_a_caller_who_leaves_while_sending_leaves_a_line(service: Service, key: str) -> None:
    """A body that never arrives whole ends with a line, status 499."""
    address = urlsplit(service.url)
    assert address.hostname and address.port
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {key}\r\n"
        "X-Request-Id: left-while-sending\r\nContent-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode())
        time.sleep(0.1)
    line = service.line_of("left-while-sending")
    assert (line["status"], line["outcome"], line["route"]) == (499, "disconnected", CHAT)


# Errors


@pytest.mark.usefixtures("mended")
def test_an_errors_line_has_its_stack(
    service: Service, client: httpx.Client, sandbox: Sandbox
) -> None:
    """A 503 is one line at level error, with type, message and stack of what went wrong."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="quota_exhausted")])
    response = ask(client)
    line = service.line_of(response.headers["x-request-id"])
    assert (line["level"], line["status"], line["outcome"]) == ("error", 503, "failed")
    assert line["error_type"] == "ProvidersUnavailable"
    assert line["error_message"] == response.json()["detail"]
    assert "Traceback" in line["stack"] and "ProvidersUnavailable" in line["stack"]
    assert [attempt["provider"] for attempt in line["attempts"]] == list(
        dict.fromkeys(attempt["provider"] for attempt in line["attempts"])
    )
    assert {attempt["provider"] for attempt in line["attempts"]} == set(sandbox.vendors)


@pytest.mark.usefixtures("mended")
def test_a_broken_streams_line_has_its_stack(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A stream that breaks off after its 200 leaves a line at level error all the same."""
    sandbox.script(primary, [Fault(action="end", after_chunks=3)])
    line = service.line_of(ask_stream(client).response.headers["x-request-id"])
    assert (line["level"], line["status"], line["outcome"]) == ("error", 200, "failed")
    assert line["error_type"] == "ProvidersUnavailable"
    assert "Traceback" in line["stack"]


@pytest.mark.usefixtures("mended")
def test_attempts_stand_under_one_line(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A call that is retried is one line, not one for each try."""
    sandbox.script(primary, [Fault(status=500, headers={"retry-after-ms": "1"})] * 2)
    request_id = ask(client).headers["x-request-id"]
    line = service.line_of(request_id)
    assert [attempt["status"] for attempt in line["attempts"]] == [500, 500, None]
    assert line["attempts"][-1]["outcome"] == "ok"
    assert service.output().count(request_id) == 1


def test_a_crash_is_answered_and_logged(tight: Service, key: str) -> None:
    """A bug is a 500 that tells the caller nothing, and a line with its type and stack."""
    with tight.client(key) as client:
        response = ask(client, f"Please {CRASH}.")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal_error"
        assert "Bug" not in response.text and "no idea" not in response.text
        assert ask(client).status_code == 200
    line = tight.line_of(response.headers["x-request-id"])
    assert (line["level"], line["status"], line["outcome"]) == ("error", 500, "crashed")
    assert line["error_type"] == "Bug"
    assert "no idea what to do" in line["error_message"]
    assert "crashing.py" in line["stack"]


def test_a_crash_in_a_stream_is_told_and_logged(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """A bug in the middle of a stream ends it with an error event, and its line has the stack."""
    sandbox.script(primary, [Reply(text=f"It begins and {CRASH} ends.")])
    with tight.client(key) as client:
        stream = ask_stream(client)
    assert stream.text.startswith("It begins")
    assert stream.error is not None and stream.error["code"] == "internal_error"
    assert not stream.done
    line = tight.line_of(stream.response.headers["x-request-id"])
    assert (line["level"], line["outcome"]) == ("error", "crashed")
    assert line["error_type"] == "Bug"
    assert "crashing.py" in line["stack"]


# Metrics


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _samples(service: Service) -> Samples:
    with service.client(None) as client:
        return _parse(client.get("/metrics").text)


def _parse(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all samples of that name and with these labels among theirs."""
    wanted = labels.items()
    found = [value for (known, own), value in samples.items() if known == name and wanted <= own]
    return math.fsum(found)


def test_a_call_moves_the_metrics(service: Service, client: httpx.Client, primary: str) -> None:
    """Requests, durations, attempts, tokens and cost are counted for each call."""
    model = pinned(client, primary).removeprefix(f"{primary}/")
    before = _samples(service)
    response = ask(client)
    usage = response.json()["usage"]
    cost = service.line_of(response.headers["x-request-id"])["cost_usd"]

    def grown(name: str, **labels: str) -> float:
        return _value(_samples(service), name, **labels) - _value(before, name, **labels)

    done = {"method": "POST", "route": CHAT, "status": "200"}
    eventually(lambda: grown("http_requests_total", **done) == 1)
    assert grown("http_request_duration_seconds_count", route=CHAT) == 1
    assert grown("llm_provider_attempts_total", provider=primary, outcome="ok") == 1
    by_model = {"provider": primary, "model": model}
    for direction, tokens in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        assert grown("llm_tokens_total", direction=direction, **by_model) == usage[tokens]
    assert grown("llm_cost_usd_total", **by_model) == pytest.approx(cost)
    assert _value(before, "llm_daily_budget_used_ratio") < _value(
        _samples(service), "llm_daily_budget_used_ratio"
    )


def test_a_stream_moves_the_time_to_first_token(
    service: Service, client: httpx.Client, primary: str
) -> None:
    """Each stream is one observation in its provider's histogram."""
    name = "llm_time_to_first_token_seconds_count"
    before = _value(_samples(service), name, provider=primary)
    ask_stream(client)
    eventually(lambda: _value(_samples(service), name, provider=primary) == before + 1)


def test_refusals_and_replays_are_counted(service: Service, client: httpx.Client) -> None:
    """A refusal is counted under its reason, a replay as such, and neither as an attempt."""
    ask(client)
    before = _samples(service)
    client.headers["idempotency-key"] = "counted-once"
    ask(client)
    ask(client)
    ask(client, "many words " * 6000)

    def grown(name: str, **labels: str) -> float:
        return _value(_samples(service), name, **labels) - _value(before, name, **labels)

    eventually(lambda: grown("llm_refusals_total", reason="context_length_exceeded") == 1)
    assert grown("llm_idempotent_replays_total") == 1
    assert grown("llm_provider_attempts_total") == 1


def test_running_requests_are_gauged(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """While a call runs it is in flight, and afterwards it is not."""
    sandbox.script(primary, [Fault(delay_seconds=0.5)])
    idle = _value(_samples(service), "http_requests_in_flight")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, client)
        eventually(lambda: _value(_samples(service), "http_requests_in_flight") == idle + 1)
        assert call.result().status_code == 200
    eventually(lambda: _value(_samples(service), "http_requests_in_flight") == idle)


def test_an_open_breaker_and_a_used_budget_are_gauged(bad_day: BadDay, primary: str) -> None:
    """Prometheus sees that a provider is not asked, and how much of the budget is used."""
    samples = _parse(bad_day.metrics)
    assert _value(samples, "llm_circuit_breaker_open", provider=primary) == 1
    assert _value(samples, "llm_daily_budget_used_ratio") == pytest.approx(0.85, abs=0.001)
    skipped = _value(
        samples, "llm_provider_attempts_total", provider=primary, outcome="breaker_open"
    )
    assert skipped == 1


def test_no_callers_text_becomes_a_label(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """Neither callers nor vendors can add time series: their words are no labels."""
    client.headers["x-request-id"] = "label-of-a-caller"
    client.headers["idempotency-key"] = "label-of-a-caller"
    sandbox.script(primary, [Reply(text="Yes.", model="label-of-a-vendor")])
    assert ask(client).json()["model"] == "label-of-a-vendor"
    ask(client, model="label-of-a-caller")
    client.get("/label-of-a-caller")
    client.request("LABEL-OF-A-CALLER", CHAT)
    client.post(CHAT, json={**question(), "label-of-a-caller": 1})
    with service.client("label-of-a-caller") as stranger:
        last = stranger.get("/label-of-a-caller")
    service.line_of(last.headers["x-request-id"])
    text = client.get("/metrics").text.lower()
    assert "label-of-a" not in text
    assert 'route="unmatched"' in text


# Alerts


def test_a_crash_is_alerted(tight: Service, key: str, hook: Webhook) -> None:
    """The webhook hears of an unhandled error: its type and where to look for it."""
    with tight.client(key) as client:
        request_id = ask(client, f"Please {CRASH}.").headers["x-request-id"]
    assert request_id
    message = eventually(lambda: next((m for m in hook.messages if "Bug" in m), None))
    assert "unhandled_error" in message and CHAT in message


def test_an_opening_breaker_is_alerted_once(bad_day: BadDay, primary: str) -> None:
    """The webhook hears which provider is not asked any more."""
    (message,) = [text for text in bad_day.messages if "breaker_open" in text]
    assert primary in message


def test_a_budgets_end_is_alerted_in_time(bad_day: BadDay) -> None:
    """The webhook hears when 80 % are spent and when the rest is too little, each once."""
    (warning,) = [text for text in bad_day.messages if "budget_80" in text]
    (end,) = [text for text in bad_day.messages if "budget_100" in text]
    assert "85%" in warning
    assert bad_day.messages.index(warning) < bad_day.messages.index(end)


def test_an_alert_is_sent_once_in_its_cool_down(bad_day: BadDay) -> None:
    """Six failed calls and two refused ones are no more than one message of each kind."""
    kinds = [text.split("] ")[1].split(": ")[0] for text in bad_day.messages]
    assert "providers_down" in kinds
    assert len(kinds) == len(set(kinds))


def test_a_dead_webhook_holds_nobody_up(
    tight: Service, key: str, sandbox: Sandbox, primary: str, hook: Webhook
) -> None:
    """While the webhook does not answer, calls fail and succeed as fast as ever."""
    hook.awake.clear()
    try:
        with tight.client(key) as client:
            sandbox.script(primary, [Fault(error="invalid_api_key")])
            started = time.monotonic()
            assert ask(client, model=pinned(client, primary)).status_code == 503
            assert ask(client).status_code == 200
            assert time.monotonic() - started < 2
        assert not any("account_refused" in text for text in hook.messages)
    finally:
        hook.awake.set()
    eventually(lambda: any("account_refused" in text for text in hook.messages))


# What never shows up


@dataclass(frozen=True, slots=True)
class Way:
    """One way for a request to end. `fault` makes the provider's answer, which quotes its key."""

    send: Callable[[httpx.Client], httpx.Response]
    fault: Callable[[str], Fault] | None = None


def _call(client: httpx.Client) -> httpx.Response:
    return ask(client, PROMPT)


def _stream(client: httpx.Client) -> httpx.Response:
    return ask(client, PROMPT, stream=True)


ECHO = Reply(text=f"one two {PROMPT} three four five six seven")
STRANGER = {"authorization": f"Bearer {PROMPT}"}
WAYS = {
    "answer": Way(_call),
    "stream": Way(_stream),
    "crash": Way(lambda client: ask(client, f"{CRASH} {PROMPT}")),
    "crash in a stream": Way(lambda client: ask(client, f"{PROMPT} {CRASH}", stream=True)),
    "unknown key": Way(lambda client: client.get("/v1/models", headers=STRANGER)),
    "unknown path": Way(lambda client: client.get(f"/{PROMPT}", params={PROMPT: PROMPT})),
    "no JSON": Way(lambda client: client.post(CHAT, content=f'{{"{PROMPT}')),
    "wrong value": Way(lambda client: ask(client, PROMPT, temperature=PROMPT)),
    "unknown parameter": Way(lambda client: client.post(CHAT, json={PROMPT: PROMPT})),
    "unknown model": Way(lambda client: ask(client, PROMPT, model=PROMPT)),
    "too long": Way(lambda client: ask(client, f"{PROMPT} " * 3000)),
    "rejected request": Way(
        _call, lambda key: Fault(error="content_policy", message=f"flagged: {PROMPT} {key}")
    ),
    "rejected key": Way(
        _call, lambda key: Fault(error="invalid_api_key", message=f"no such key: {key} {PROMPT}")
    ),
    "server error": Way(_call, lambda key: Fault(status=500, message=f"{PROMPT} {key}")),
    "error page": Way(
        _call, lambda key: Fault(status=502, body=f"<p>{PROMPT} {key}", content_type="text/html")
    ),
    "no reply": Way(_call, lambda key: Fault(body=json.dumps({PROMPT: key}))),
    "cut reply": Way(_call, lambda key: Fault(action="end", after_chunks=6, reply=ECHO)),
    "cut stream": Way(_stream, lambda key: Fault(action="end", after_chunks=4, reply=ECHO)),
    "malformed event": Way(_stream, lambda key: Fault(action="garble", after_chunks=2, reply=ECHO)),
    "error in a stream": Way(
        _stream,
        lambda key: Fault(
            action="error_event", after_chunks=3, error="server_error", message=f"{PROMPT} {key}"
        ),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_prompt_and_no_key_shows_up(
    tight: Service,
    sandbox: Sandbox,
    environment: Mapping[str, str],
    primary: str,
    key: str,
    hook: Webhook,
    way: str,
) -> None:
    """However a request ends, neither log nor metrics nor alerts hold its prompt or any key."""
    keys = [value for name, value in environment.items() if name.endswith("_API_KEY")]
    fault = WAYS[way].fault
    if fault is not None:
        sandbox.script(primary, [fault(environment.get(f"{primary.upper()}_API_KEY", "no key"))])
    with tight.client(key) as client:
        response = WAYS[way].send(client)
    with tight.client(METRICS_TOKEN) as prometheus:
        metrics = prometheus.get("/metrics").text
    line = tight.line_of(response.headers["x-request-id"])
    assert line["status"] == response.status_code
    written = "\n".join((tight.output(), metrics, *hook.messages))
    for canary in (PROMPT, key, *keys, hook.url):
        assert canary not in written
