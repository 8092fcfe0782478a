"""OpenAI's Python SDK gets from the service what it gets from OpenAI."""

from typing import Any

import openai
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox

from .asking import QUESTION, ask, calls, text_of
from .conftest import RATE_LIMIT
from .serving import Service, eventually


def test_a_completion(client: openai.OpenAI) -> None:
    """A completion has its text, its usage and the vendor's name for the model."""
    completion = ask(client)
    assert QUESTION in text_of(completion)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model.startswith("gpt-")
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 0 and completion.usage.completion_tokens > 0


@pytest.mark.promise("A4")
def test_the_headers_tell_who_answered(client: openai.OpenAI) -> None:
    """The provider, the request's id and the caller's standing come with the reply."""
    response = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": QUESTION}],
        extra_headers={"x-request-id": "my-request-1"},
    )
    assert response.headers["x-provider"] == "openai"
    assert response.headers["x-request-id"] == "my-request-1"
    assert f"r={RATE_LIMIT - 1}" in response.headers["ratelimit"]


def test_a_stream(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """A stream brings the same text in pieces, an end, and the usage where it was asked for."""
    whole = text_of(ask(client))
    stream = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == whole
    assert len(pieces) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert last.choices == []
    assert last.usage is not None and last.usage.completion_tokens > 0


def test_the_models(client: openai.OpenAI) -> None:
    """The list of models names `auto`, each model, and each pinned to its provider."""
    ids = [model.id for model in client.models.list()]
    assert ids[0] == "auto"
    assert {name.split("/")[0] for name in ids if "/" in name} == {"openai", "anthropic"}


def test_a_wrong_key_is_an_authentication_error(service: Service, sandbox: Sandbox) -> None:
    """401, and no provider is called."""
    with pytest.raises(openai.AuthenticationError) as failure:
        ask(service.sdk("no-such-key"))
    assert failure.value.code == "invalid_api_key"
    assert calls(sandbox) == 0


def test_the_rate_limit_is_a_rate_limit_error(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """429 for one request more than allowed, with the time to wait."""
    for _ in range(RATE_LIMIT):
        ask(client)
    with pytest.raises(openai.RateLimitError) as failure:
        ask(client)
    assert failure.value.code == "rate_limit_exceeded"
    assert 1 <= int(failure.value.response.headers["retry-after"]) <= 60
    assert calls(sandbox) == RATE_LIMIT


@pytest.mark.promise("A4")
def test_a_failing_provider_is_an_internal_server_error(
    client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """503 when no provider answers, with a time to wait, and never a made-up reply."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="invalid_api_key")], times=None)
    with pytest.raises(openai.InternalServerError) as failure:
        ask(client)
    assert failure.value.status_code == 503
    assert failure.value.code == "providers_unavailable"
    assert int(failure.value.response.headers["retry-after"]) >= 1


def test_a_long_input_is_a_status_error(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """413 with OpenAI's own code for it, before any provider is called."""
    with pytest.raises(openai.APIStatusError) as failure:
        ask(client, "many words " * 6_000)
    assert failure.value.status_code == 413
    assert failure.value.code == "context_length_exceeded"
    assert calls(sandbox) == 0


def test_a_bad_parameter_is_a_bad_request_error(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """400 with the parameter's name."""
    with pytest.raises(openai.BadRequestError) as failure:
        ask(client, n=2)
    assert failure.value.param == "n"
    assert calls(sandbox) == 0


def test_an_unknown_model_is_a_not_found_error(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """404 with OpenAI's own code for it."""
    with pytest.raises(openai.NotFoundError) as failure:
        client.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "Hi"}]
        )
    assert failure.value.code == "model_not_found"
    assert calls(sandbox) == 0


@pytest.mark.promise("A7")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(action="close", after_chunks=5),
        Fault(action="end", after_chunks=5),
        Fault(action="stall", after_chunks=5),
        Fault(action="error_event", after_chunks=5),
    ],
    ids=lambda fault: fault.action,
)
def test_a_broken_stream_is_an_api_error(
    client: openai.OpenAI, sandbox: Sandbox, fault: Fault
) -> None:
    """What came before the break is delivered, then the SDK raises: it never looks complete."""
    sandbox.script("openai", [fault])
    pieces: list[str] = []
    with pytest.raises(openai.APIError) as failure:
        for chunk in client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": QUESTION}], stream=True
        ):
            pieces.append(chunk.choices[0].delta.content or "")
            assert chunk.choices[0].finish_reason is None
    assert failure.value.code == "providers_unavailable"
    assert len(list(filter(None, pieces))) == 5
    assert calls(sandbox) == 1


def test_a_retry_after_a_timeout_does_not_pay_twice(
    service: Service, key: str, sandbox: Sandbox
) -> None:
    """The SDK gives up waiting and asks again: it gets the first call's reply, paid once."""
    sandbox.script("openai", [Fault(delay_seconds=0.7)])
    completion = ask(service.sdk(key, max_retries=4, timeout=0.5))
    assert QUESTION in text_of(completion)
    assert calls(sandbox) == 1
    eventually(lambda: [line for line in lines_of(service, key) if line.get("replayed")])
    assert sum(line.get("cost_usd", 0) > 0 for line in lines_of(service, key)) == 1


def lines_of(service: Service, key: str) -> list[dict[str, Any]]:
    name = key.removeprefix("key-of-")
    return [line for line in service.lines("request") if line["caller"] == name]


def test_regenerate_regenerates(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """The same request made anew, not as a retry, is answered anew."""
    ask(client)
    ask(client)
    assert calls(sandbox) == 2
