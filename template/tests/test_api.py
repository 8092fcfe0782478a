"""The HTTP interface: OpenAI's wire format, errors as problem documents, and who may call."""

import itertools
import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply, ToolCall
from sandbox.server import Sandbox
from tests.asking import (
    CHAT,
    answer,
    ask,
    ask_stream,
    calls,
    pinned,
    question,
    read_stream,
)
from tests.conftest import KEYS_OF_ONE, METRICS_TOKEN
from tests.running import Service

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


# Completions


def test_a_completion_has_openais_form(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A JSON answer is a `chat.completion` with one choice and the tokens that were billed."""
    sandbox.script(primary, [Reply(text="Yes, indeed.", input_tokens=12, output_tokens=3)])
    response = ask(client)
    body = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-provider"] == primary
    assert body["object"] == "chat.completion" and body["id"] and body["model"]
    assert abs(body["created"] - time.time()) < 60
    (choice,) = body["choices"]
    assert choice["index"] == 0 and choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": "Yes, indeed.", "refusal": None}
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 3)
    assert usage["total_tokens"] == 15


def test_a_stream_has_openais_form(client: httpx.Client, sandbox: Sandbox, primary: str) -> None:
    """A stream is chunks with one id that add up to the answer, and ends with `[DONE]`."""
    sandbox.script(primary, [Reply(text="One two three.")])
    stream = ask_stream(client)
    assert stream.response.status_code == 200
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stream.response.headers["x-provider"] == primary
    assert {event["object"] for event in stream.events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in stream.events}) == 1
    assert stream.deltas[0]["role"] == "assistant"
    assert stream.text == "One two three."
    assert stream.finish_reason == "stop"
    assert stream.done
    assert not any("usage" in event for event in stream.events)


def test_a_stream_tells_its_usage_when_asked(client: httpx.Client) -> None:
    """With `include_usage` a last chunk without choices has the usage, all others have null."""
    whole = ask(client).json()["usage"]
    *others, last = ask_stream(client, stream_options={"include_usage": True}).events
    assert last["choices"] == [] and last["usage"] == whole
    assert others and all(event["usage"] is None for event in others)


def test_a_stream_is_not_held_back(client: httpx.Client, sandbox: Sandbox, primary: str) -> None:
    """Chunks go out as they come, and the headers tell proxies not to collect them."""
    sandbox.script(primary, [Reply(text="a b c d", chunks=4, chunk_delay_seconds=0.15)])
    arrived: list[float] = []
    with client.stream("POST", CHAT, json=question(stream=True)) as response:
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-cache"
        for line in response.iter_lines():
            if '"content"' in line:
                arrived.append(time.monotonic())
    assert arrived[-1] - arrived[0] > 0.3


def test_the_model_calls_tools(client: httpx.Client, primary: str) -> None:
    """A tool call comes back in OpenAI's form, and its result may follow in the next turn."""
    body = question("How is the weather in Paris?", tools=[WEATHER])
    choice = client.post(CHAT, json=body).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function" and call["id"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "How is the weather in Paris?"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"}
    body["messages"] += [choice["message"], result]
    assert answer(client.post(CHAT, json=body)) == "The tool answered: 18 degrees"


def test_a_tool_call_may_be_answered_at_another_provider(
    client: httpx.Client, sandbox: Sandbox, new_key: Callable[[], str]
) -> None:
    """Whoever has called a tool, each provider takes the call and its result, under an id as short
    as the strictest of them wants it."""
    models = [pinned(client, vendor) for vendor in sandbox.vendors]
    for caller, answerer in itertools.product(models, repeat=2):
        # With four providers there are more requests than one caller may make.
        client.headers["authorization"] = f"Bearer {new_key()}"
        body = question("How is the weather in Paris?", tools=[WEATHER], model=caller)
        message = client.post(CHAT, json=body).json()["choices"][0]["message"]
        (call,) = message["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"}
        body = {**body, "messages": [*body["messages"], message, result], "model": answerer}
        assert answer(client.post(CHAT, json=body)) == "The tool answered: 18 degrees"
        received = json.dumps(sandbox.requests(answerer.partition("/")[0])[-1].body)
        ids = re.findall(r'"(?:id|call_id|tool_call_id|tool_use_id)": "([^"]*)"', received)
        assert len(ids) == 2 and len(set(ids)) == 1
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", ids[0])


def test_the_model_calls_tools_in_a_stream(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """The pieces of streamed tool calls add up to the calls, whose ids and names come first."""
    wanted = [ToolCall("get_weather", {"city": "Oslo"}), ToolCall("get_weather", {"city": "Rome"})]
    sandbox.script(primary, [Reply(tool_calls=tuple(wanted))])
    stream = ask_stream(client, "Compare Oslo and Rome.", tools=[WEATHER])
    pieces = [piece for delta in stream.deltas for piece in delta.get("tool_calls", ())]
    for index, call in enumerate(wanted):
        first, *rest = [piece for piece in pieces if piece["index"] == index]
        assert first["id"] and first["type"] == "function"
        assert first["function"]["name"] == call.name
        assert not any("id" in piece or "name" in piece["function"] for piece in rest)
        arguments = "".join(piece["function"]["arguments"] for piece in (first, *rest))
        assert json.loads(arguments) == call.arguments
    assert stream.finish_reason == "tool_calls" and stream.done


@pytest.mark.parametrize("first_in_stream", [False, True], ids=["json-first", "stream-first"])
def test_a_reply_is_replayed_in_the_form_asked_for(
    client: httpx.Client, sandbox: Sandbox, primary: str, first_in_stream: bool
) -> None:
    """Under one `Idempotency-Key` the stored reply answers as JSON and as a stream alike."""
    sandbox.script(primary, [Reply(text="Paid once.", tool_calls=(ToolCall("get_weather"),))])
    client.headers["idempotency-key"] = "one-payment"
    body = question(tools=[WEATHER])
    first = client.post(CHAT, json={**body, "stream": first_in_stream})
    assert first.status_code == 200 and "idempotent-replayed" not in first.headers
    whole = client.post(CHAT, json=body)
    stream = read_stream(client.post(CHAT, json={**body, "stream": True}))
    for repeat in (whole, stream.response):
        assert repeat.headers["idempotent-replayed"] == "true"
        assert repeat.headers["x-provider"] == primary
    choice = whole.json()["choices"][0]
    assert choice["message"]["content"] == stream.text == "Paid once."
    assert choice["finish_reason"] == stream.finish_reason == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert [piece for delta in stream.deltas for piece in delta.get("tool_calls", ())] == [
        {"index": 0, **call}
    ]
    assert stream.done
    assert calls(sandbox) == 1


# Models


def test_every_listed_model_answers(client: httpx.Client) -> None:
    """Each id of `/v1/models` is accepted as `model`, and `auto` is one of them."""
    listing = client.get("/v1/models").json()
    assert listing["object"] == "list"
    assert all(model["object"] == "model" for model in listing["data"])
    names = [model["id"] for model in listing["data"]]
    assert names[0] == "auto" and len(names) >= 3
    assert [ask(client, model=name).status_code for name in names] == [200] * len(names)


def test_a_models_name_chooses_who_is_asked_first(client: httpx.Client, sandbox: Sandbox) -> None:
    """A configured model's name, with or without its provider, begins with that provider."""
    for vendor in sandbox.vendors:
        name = pinned(client, vendor)
        for model in (name, name.removeprefix(f"{vendor}/")):
            assert ask(client, model=model).headers["x-provider"] == vendor


def test_an_unknown_model_is_not_found(client: httpx.Client, sandbox: Sandbox) -> None:
    """A name that is not configured is 404 with OpenAI's code; nobody is asked."""
    for stream in (False, True):
        refused = ask(client, model="gpt-of-tomorrow", stream=stream)
        assert refused.status_code == 404
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "auto" in error["message"]
    assert calls(sandbox) == 0


@pytest.mark.usefixtures("mended")
def test_a_pinned_provider_has_no_substitute(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """`<provider>/<model>` is answered by that provider or by nobody."""
    sandbox.script(primary, [Fault(error="quota_exhausted")])
    assert ask(client, model=pinned(client, primary)).status_code == 503
    assert calls(sandbox) == 1


@pytest.mark.usefixtures("mended")
def test_a_models_bare_name_has_substitutes(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A model named without its provider is replaced by the other providers' when it fails."""
    sandbox.script(primary, [Fault(error="quota_exhausted")])
    response = ask(client, model=pinned(client, primary).removeprefix(f"{primary}/"))
    others = [vendor for vendor in sandbox.vendors if vendor != primary]
    assert response.status_code == (200 if others else 503)
    assert response.headers.get("x-provider", "nobody") in (others or ["nobody"])


# Parameters


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 2}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"seed": 1.5}, "seed"),
        ({"stream": "maybe"}, "stream"),
        ({"stream_options": {"include_all": True}}, "stream_options.include_all"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"store": True}, "store"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused_by_name(
    client: httpx.Client, sandbox: Sandbox, parameters: dict[str, Any], name: str
) -> None:
    """A value that cannot be honoured is 400, names its parameter, and reaches nobody."""
    refused = client.post(CHAT, json={**question(), **parameters})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["type"]) == (name, "invalid_request_error")
    assert name in error["message"]
    assert calls(sandbox) == 0


@pytest.mark.parametrize("name", ["logit_bias", "top_logprobs", "user", "no_such_parameter"])
def test_an_unknown_parameter_is_refused_by_name(
    client: httpx.Client, sandbox: Sandbox, name: str
) -> None:
    """No parameter is dropped in silence: one that is not supported is 400 with its name."""
    refused = client.post(CHAT, json={**question(), name: 1})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    assert calls(sandbox) == 0


def test_values_that_change_nothing_are_taken(client: httpx.Client) -> None:
    """What SDKs send by default is no obstacle, nor is null for any optional parameter."""
    harmless = {
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logprobs": False,
        "store": False,
        "stream": None,
        "response_format": {"type": "text"},
    }
    assert client.post(CHAT, json={**question(), **harmless}).status_code == 200
    optional = ("temperature", "top_p", "stop", "seed", "tools", "tool_choice", "max_tokens")
    nulls = dict.fromkeys(optional)
    assert client.post(CHAT, json={**question(), **nulls}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.375),
        ("top_p", 0.625),
        ("stop", ["STOP-HERE"]),
        ("seed", 424_242),
        ("max_tokens", 123),
        ("max_completion_tokens", 321),
    ],
)
def test_a_parameter_is_honoured_or_refused(
    client: httpx.Client, sandbox: Sandbox, name: str, value: Any
) -> None:
    """Each provider receives the value, or the caller hears that it cannot be honoured."""
    for vendor in sandbox.vendors:
        response = ask(client, model=pinned(client, vendor), **{name: value})
        if response.status_code == 200:
            received = json.dumps(sandbox.requests(vendor)[-1].body)
            assert json.dumps(value).strip("[]") in received
        else:
            assert response.status_code == 400
            assert response.json()["error"]["param"] == name
            assert sandbox.requests(vendor) == []


def test_a_json_schema_is_honoured_or_refused(client: httpx.Client, sandbox: Sandbox) -> None:
    """Each provider answers in the schema asked for, or the caller hears that it cannot."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    for vendor in sandbox.vendors:
        response = ask(client, "Oslo", model=pinned(client, vendor), response_format=wanted)
        if response.status_code == 200:
            assert set(json.loads(answer(response))) == {"city", "people"}
        else:
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "response_format"


# Errors


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"no json",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut", "text", "no-utf-8", "lone-surrogate", "nested"],
)
def test_a_body_that_is_no_json_is_refused(
    client: httpx.Client, sandbox: Sandbox, body: bytes
) -> None:
    """Whatever is wrong with the bytes, the caller hears 400 and the code `invalid_json`."""
    refused = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_json"
    assert calls(sandbox) == 0


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"'])
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, body: bytes) -> None:
    """JSON of another kind is 400 too."""
    refused = client.post(CHAT, content=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_request"


def test_the_content_type_does_not_matter(client: httpx.Client) -> None:
    """The body is read as JSON whatever it is declared as, as OpenAI does."""
    for headers in ({}, {"content-type": "text/plain"}):
        response = client.post(CHAT, content=json.dumps(question()).encode(), headers=headers)
        assert response.status_code == 200


def test_a_wrong_method_is_a_problem_document(client: httpx.Client) -> None:
    """405 says in `Allow` what the route takes."""
    for method, path, allowed in (("GET", CHAT, "POST"), ("POST", "/v1/models", "GET")):
        refused = client.request(method, path)
        assert refused.status_code == 405
        assert allowed in refused.headers["allow"]
        _assert_problem(refused, "method_not_allowed")


def test_an_unknown_route_is_a_problem_document(client: httpx.Client) -> None:
    """404 has the same form as every error, a trailing slash included."""
    for path in ("/no-such-route", f"{CHAT}/"):
        refused = client.post(path, json=question())
        assert refused.status_code == 404
        _assert_problem(refused, "not_found")


@pytest.mark.usefixtures("mended")
def test_errors_are_problem_documents(
    service: Service, client: httpx.Client, sandbox: Sandbox
) -> None:
    """Every refusal is an RFC 9457 document that OpenAI's clients understand as well."""
    with service.client(None) as stranger:
        _assert_problem(ask(stranger), "invalid_api_key")
    _assert_problem(ask(client, temperature=9), "invalid_request")
    _assert_problem(ask(client, model="none"), "model_not_found")
    _assert_problem(ask(client, "many words " * 6000), "context_length_exceeded")
    _assert_problem(client.post(CHAT, content=b" " * 2**21), "request_too_large")
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="quota_exhausted")])
    down = ask(client)
    _assert_problem(down, "providers_unavailable")
    assert int(down.headers["retry-after"]) >= 1


def _assert_problem(response: httpx.Response, code: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "request_id", "error"}
    assert problem["type"] == f"urn:problem:{code}" and problem["title"]
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    error = problem["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["code"] == code and error["type"]
    assert error["message"] == problem["detail"]


# Request ids


def test_a_request_id_goes_all_the_way(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A well-formed `X-Request-Id` comes back and reaches the provider, for streams too."""
    for number, stream in enumerate((False, True)):
        client.headers["x-request-id"] = f"my-id_{number}.0"
        response = ask(client, stream=stream)
        assert response.headers["x-request-id"] == f"my-id_{number}.0"
        received = sandbox.requests(primary)[-1].headers
        assert f"my-id_{number}.0" in received.values()


@pytest.mark.parametrize("given", [None, "", "has blanks", "a" * 129, 'quote"', "semi;colon"])
def test_a_request_id_is_made_where_none_fits(
    client: httpx.Client, sandbox: Sandbox, primary: str, given: str | None
) -> None:
    """Without a well-formed `X-Request-Id` the service makes one of its own."""
    if given is not None:
        client.headers["x-request-id"] = given
    made = ask(client).headers["x-request-id"]
    assert made and made != given
    assert made in sandbox.requests(primary)[-1].headers.values()


def test_every_response_has_a_request_id(service: Service, client: httpx.Client) -> None:
    """Probes, refusals and unknown routes have one too, and no two are alike."""
    with service.client(None) as stranger:
        responses = [
            *(client.get(path) for path in ("/livez", "/readyz", "/metrics", "/nowhere", CHAT)),
            ask(stranger),
            ask(client, n=2),
            ask_stream(client).response,
        ]
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)


# Callers


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer a-wrong-key", "Basic a2V5Og==", "key-of-caller0"],
)
def test_only_known_callers_get_in(
    service: Service, sandbox: Sandbox, authorization: str | None
) -> None:
    """Without a known key every request is 401 with a challenge, and nothing else happens."""
    headers = {} if authorization is None else {"authorization": authorization}
    with service.client(None, **headers) as stranger:
        for refused in (
            ask(stranger),
            ask(stranger, stream=True),
            stranger.get("/v1/models"),
            stranger.get("/no-such-route"),
        ):
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert refused.json()["error"]["type"] == "authentication_error"
            assert "ratelimit" not in refused.headers
    assert calls(sandbox) == 0


def test_a_caller_may_have_two_keys(service: Service) -> None:
    """While a key is rotated, the old one and the new one are the same caller."""
    names = set()
    for key in KEYS_OF_ONE:
        with service.client(None, authorization=f"bearer {key}") as client:
            response = ask(client)
        assert response.status_code == 200
        names.add(service.line_of(response.headers["x-request-id"])["caller"])
    assert names == {"rotating"}


# What operators and developers read


def test_probes_need_no_key(service: Service) -> None:
    """The service says that it lives and is ready, and what it knows of its store."""
    with service.client(None) as stranger:
        assert stranger.get("/livez").json() == {"status": "alive"}
        ready = stranger.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "store": "reachable"}


def test_metrics_are_for_prometheus(service: Service) -> None:
    """`/metrics` is in Prometheus' text format, and in development it needs no token."""
    with service.client(None) as stranger:
        response = stranger.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE http_requests_total counter" in response.text


def test_metrics_may_have_a_token(tight: Service, key: str) -> None:
    """With `METRICS_TOKEN` only its bearer reads the metrics; a caller's key does not open them."""
    for token, status in ((None, 401), (key, 401), (METRICS_TOKEN, 200)):
        with tight.client(token) as client:
            assert client.get("/metrics").status_code == status


def test_the_api_is_described(service: Service) -> None:
    """The OpenAPI document names the endpoints, the request's schema and the errors."""
    with service.client(None) as stranger:
        document = stranger.get("/openapi.json").json()
        docs = stranger.get("/docs")
    assert document["openapi"].startswith("3.")
    assert {CHAT, "/v1/models", "/livez", "/readyz", "/metrics"} <= set(document["paths"])
    operation = document["paths"][CHAT]["post"]
    assert {"200", "400", "401", "413", "429", "503"} <= set(operation["responses"])
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    properties = document["components"]["schemas"][name]["properties"]
    assert {"messages", "model", "stream", "max_tokens", "tools"} <= set(properties)
    assert document["components"]["securitySchemes"]
    assert docs.status_code == 200
    assert docs.headers["content-type"].startswith("text/html")
