"""What of a request each provider sees, over HTTP, in a service whose models differ."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai.types.chat import completion_create_params

from sandbox.model import Reply
from sandbox.server import Sandbox

from ..core.test_recorded_usage import JARGON
from ..metrics import Scrape
from .asking import WEATHER, body, calls
from .conftest import MakeProject
from .serving import Service

pytestmark = pytest.mark.xdist_group("narrow")

CHAT = "/v1/chat/completions"
OPENAI, ANTHROPIC = "openai/gpt-6-luna", "anthropic/claude-haiku-5-5"
WINDOW, LONGEST_OF_OPENAI, LONGEST = 900, 100, 500
LIMITS = {
    "OPENAI_CONTEXT_WINDOW_TOKENS": str(WINDOW),
    "OPENAI_MAX_OUTPUT_TOKENS": str(LONGEST_OF_OPENAI),
    "MAX_OUTPUT_TOKENS": str(LONGEST),
    "MAX_INPUT_TOKENS": "4000",
    "MAX_HISTORY_MESSAGES": "40",
    "RATE_LIMIT_REQUESTS": "1000",
}
PATIENCE_SECONDS = 5.0
"""Far more than a probe takes, and less than a megabyte that nobody may pass."""


@pytest.fixture(scope="module")
def _narrow(make_project: MakeProject) -> Iterator[Service]:
    with make_project("narrow").serve(**LIMITS) as service:
        yield service


@pytest.fixture
def service(_narrow: Service, sandbox: Sandbox) -> Service:
    """OpenAI's model takes and writes less than the limits for all allow."""
    return _narrow


@pytest.fixture
def http(service: Service, key: str) -> httpx.Client:
    return service.http(key)


def sent(sandbox: Sandbox, vendor: str) -> dict[str, Any]:
    """The body of the last request that the vendor has received."""
    received: dict[str, Any] = sandbox.requests(vendor)[-1].body
    return received


def refused(http: httpx.Client, **parameters: Any) -> tuple[int, int, str]:
    """The count and the limit of a 413, and what it says."""
    response = http.post(CHAT, json=body(**parameters))
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    told = re.search(r"has (\d+) tokens .* limit is (\d+) ", error["message"])
    assert told is not None
    return int(told[1]), int(told[2]), error["message"]


@pytest.mark.promise("C1")
def test_what_is_too_long_costs_nothing(
    service: Service, http: httpx.Client, sandbox: Sandbox, key: str
) -> None:
    """A body over the cap is 413 unparsed; an input over the limit is 413 with count and limit;
    neither reaches a provider, takes a place of the rate or money."""
    too_large = http.post(CHAT, content=b"{" * 1_048_577)
    assert too_large.status_code == 413
    assert too_large.json()["error"]["code"] == "request_too_large"
    count, limit, message = refused(http, content="guard rail " * 3_000, model=ANTHROPIC)
    assert (limit, count > 6_000) == (4_000, True)
    assert "(MAX_INPUT_TOKENS)" in message
    assert calls(sandbox) == 0 and service.account(key) == (0, 0)
    served = http.post(CHAT, json=body())
    assert "r=999" in served.headers["ratelimit"]


@pytest.mark.promise("C1", "C3")
def test_each_model_is_asked_within_its_own_limits(http: httpx.Client, sandbox: Sandbox) -> None:
    """The narrow one answers short questions, shortly. What is too long for it goes to the other,
    and is 413 with its own limit where no other may be asked."""
    for model, vendor, most in (
        (OPENAI, "openai", LONGEST_OF_OPENAI),
        (ANTHROPIC, "anthropic", LONGEST),
    ):
        for wanted in (None, most - 1, most + 1, 10**6):
            answered = http.post(CHAT, json=body(model=model, max_tokens=wanted))
            assert answered.headers["x-provider"] == vendor
            received = sent(sandbox, vendor)
            told = received.get("max_completion_tokens", received.get("max_tokens"))
            assert told == min(wanted or most, most)
    long = "guard rail " * 420
    asked = len(sandbox.requests("openai"))
    assert http.post(CHAT, json=body(long)).headers["x-provider"] == "anthropic"
    count, limit, message = refused(http, content=long, model=OPENAI)
    assert limit == WINDOW - LONGEST_OF_OPENAI < count < WINDOW
    assert f"the context window of openai's model, {WINDOW}, less {LONGEST_OF_OPENAI}" in message
    # A shorter answer leaves more of the window.
    assert http.post(CHAT, json=body(long, model=OPENAI, max_tokens=10)).is_success
    assert len(sandbox.requests("openai")) == asked + 1


@pytest.mark.promise("C4")
def test_each_model_has_the_history_that_it_can_take(http: httpx.Client, sandbox: Sandbox) -> None:
    """Of one conversation the narrow model sees the end, from a question on, with the system's
    messages and whole calls of tools; the other sees all of it."""
    call = {"name": "get_weather", "arguments": '{"city": "Ulm"}'}
    history: list[dict[str, Any]] = [{"role": "system", "content": "Answer in rhymes."}]
    for n in range(8):
        made = {"id": f"call{n}", "type": "function", "function": call}
        history += [
            {"role": "user", "content": f"question {n} " + "guard rail " * 40},
            {"role": "assistant", "tool_calls": [made]},
            {"role": "tool", "tool_call_id": f"call{n}", "content": "rain " * 20},
            {"role": "system", "content": f"Mind rule {n}."},
        ]
    messages = [*history, {"role": "user", "content": "And now?"}]
    for model in (OPENAI, ANTHROPIC):
        asked = {"messages": messages, "model": model, "tools": [WEATHER]}
        assert http.post(CHAT, json=asked).is_success
    kept = [
        message
        for message in sent(sandbox, "openai")["messages"]
        if "Summary of" not in str(message.get("content"))
    ]
    begin = messages.index(next(message for message in kept if message["role"] == "user"))
    assert 1 < begin < len(messages) - 1
    system = [message for message in messages[:begin] if message["role"] == "system"]
    assert kept == [*system, *messages[begin:]]
    received = json.dumps(sent(sandbox, "anthropic"))
    assert all(f"question {n}" in received for n in range(8))


@pytest.mark.promise("C2")
def test_the_estimate_is_compared_with_the_bill(
    service: Service, http: httpx.Client, sandbox: Sandbox
) -> None:
    """A conversation that OpenAI bills 124 tokens for is estimated at 124; the line tells both, the
    metric their ratio, and an estimate that was too low shows in it."""
    messages = [
        {"role": m.role, "content": m.text, **({"name": m.name} if m.name else {})}
        for m in JARGON.messages
    ]

    def scraped() -> Scrape:
        return Scrape.of(http.get("/metrics").text)

    def seen(before: Scrape, limit: str) -> float:
        name, labels = "llm_input_estimate_ratio_bucket", {"provider": "openai", "le": limit}
        return scraped()(name, **labels) - before(name, **labels)

    for billed, below_one in ((124, 0), (248, 1)):
        before = scraped()
        sandbox.script("openai", [Reply(input_tokens=billed)])
        response = http.post(CHAT, json={"messages": messages, "model": OPENAI})
        line = service.line_of(response.headers["x-request-id"])
        assert (line["estimated_input_tokens"], line["input_tokens"]) == (124, billed)
        assert (seen(before, "0.99"), seen(before, "1.0")) == (below_one, 1)


@pytest.mark.promise("C2")
def test_a_picture_is_counted_and_not_fetched(
    service: Service, http: httpx.Client, sandbox: Sandbox
) -> None:
    """Its address is passed on, and nobody here follows it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/picture.png"
        picture = {"type": "image_url", "image_url": {"url": url}}
        asked = [{"role": "user", "content": [{"type": "text", "text": "What?"}, picture]}]
        count, *_ = refused(http, messages=asked, model=OPENAI)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert count > 3_000


@pytest.mark.promise("C2")
@pytest.mark.parametrize(
    "filling",
    [" ", "\t\n", "x", "0", "{}", "👩\u200d👩\u200d👧", "很", "नि", "\x00", "<|endoftext|>"],
    ids=ascii,
)
def test_a_pathological_megabyte_stalls_nobody(
    service: Service, http: httpx.Client, sandbox: Sandbox, filling: str
) -> None:
    """While it is counted, probes are answered; it is refused, and costs nothing."""
    content = filling * (1_000_000 // len(json.dumps(filling, ensure_ascii=False).encode()))
    document = json.dumps({"messages": [{"role": "user", "content": content}]}, ensure_ascii=False)
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(http.post, CHAT, content=document.encode())
        slowest, probes, probe = 0.0, 0, service.http()
        while not counting.done() or not probes:
            started = time.monotonic()
            assert probe.get("/livez").status_code == 200
            slowest = max(slowest, time.monotonic() - started)
            probes += 1
    assert counting.result().json()["error"]["code"] == "context_length_exceeded"
    assert slowest < PATIENCE_SECONDS
    assert calls(sandbox) == 0


HONOURED = {
    "max_completion_tokens": 7,
    "max_tokens": 7,
    "messages": [{"role": "user", "content": "Hello 7"}],
    "model": OPENAI,
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "seed": 7,
    "stop": ["7"],
    "temperature": 0.7,
    "tool_choice": "none",
    "tools": [WEATHER],
    "top_p": 0.7,
}
HERE = {"stream_options": {"include_usage": True}}
"""What the service itself honours."""
ODD = {"frequency_penalty": 0.7, "n": 2, "presence_penalty": 0.7, "logprobs": True, "store": True}
"""Of parameters whose usual value is taken."""


@pytest.mark.promise("C6")
@pytest.mark.parametrize(
    "name", sorted(completion_create_params.CompletionCreateParamsBase.__annotations__)
)
def test_no_parameter_is_dropped_in_silence(
    http: httpx.Client, sandbox: Sandbox, name: str
) -> None:
    """Each parameter that OpenAI's SDK can send reaches the provider with its value, or is refused
    by its name before anybody is asked."""
    value = {**HONOURED, **HERE, **ODD}.get(name, "marked")
    more: dict[str, Any] = {}
    if name in ("tool_choice", "parallel_tool_calls"):
        more["tools"] = [WEATHER]
    if name == "response_format":
        more["messages"] = [{"role": "user", "content": "Answer in JSON."}]
    if name in HERE:
        more["stream"] = True
    response = http.post(CHAT, json={**body(model=OPENAI), **more, name: value})
    if name in HONOURED:
        assert response.status_code == 200, response.text
        received = sent(sandbox, "openai")
        as_sent = {"max_tokens": "max_completion_tokens"}.get(name, name)
        wanted = OPENAI.partition("/")[2] if name == "model" else value
        assert received[as_sent] == wanted
    elif name in HERE:
        assert response.status_code == 200 and '"usage"' in response.text
    else:
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == name and name in error["message"]
        assert "marked" not in response.text
        assert calls(sandbox) == 0
