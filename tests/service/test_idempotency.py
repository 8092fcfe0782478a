"""One key is one call, for any client that sends the header."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai.types.chat import ChatCompletion

from sandbox.faults import Fault
from sandbox.server import Sandbox

from .asking import QUESTION, ask, calls, text_of
from .serving import Service

KEY = {"Idempotency-Key": "payment-1"}


def test_two_at_once_make_one_call(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """Of two requests with one key one is answered, the other told to wait; a repeat is served."""
    sandbox.script("openai", [Fault(delay_seconds=1)])

    def attempt(_: int) -> ChatCompletion | openai.ConflictError:
        try:
            return ask(client, extra_headers=KEY)
        except openai.ConflictError as conflict:
            return conflict

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, range(2)))
    (answered,) = [outcome for outcome in outcomes if isinstance(outcome, ChatCompletion)]
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, openai.ConflictError)]
    assert refused.code == "request_in_flight"
    assert int(refused.response.headers["retry-after"]) >= 1
    repeat = ask(client, extra_headers=KEY)
    assert text_of(repeat) == text_of(answered)
    assert calls(sandbox) == 1


def test_a_repeat_may_have_the_other_form(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """What was asked for as JSON is replayed as a stream, and the other way round."""
    whole = text_of(ask(client, extra_headers=KEY))
    stream = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        extra_headers=KEY,
    )
    assert stream.response.headers["idempotent-replayed"] == "true"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole
    assert calls(sandbox) == 1


def test_a_finished_stream_is_replayed(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """A stream that came to its end is kept like any other reply."""
    streamed = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        extra_headers=KEY,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text_of(ask(client, extra_headers=KEY)) == text
    assert calls(sandbox) == 1


def test_another_body_under_the_key_is_refused(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """422: the key belongs to the request that it came with first."""
    ask(client, extra_headers=KEY)
    with pytest.raises(openai.UnprocessableEntityError) as failure:
        ask(client, "Something else.", extra_headers=KEY)
    assert failure.value.code == "idempotency_key_reused"
    assert calls(sandbox) == 1


def test_a_failed_call_may_be_repeated(client: openai.OpenAI, sandbox: Sandbox) -> None:
    """What was not answered is not kept: the same key is run again."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(error="invalid_api_key")])
    with pytest.raises(openai.InternalServerError):
        ask(client, extra_headers=KEY)
    assert QUESTION in text_of(ask(client, extra_headers=KEY))


def test_callers_do_not_share_a_key(
    service: Service, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """The same key of another caller is another request, and never shows the first one's reply."""
    ask(client, "What is my secret?", extra_headers=KEY)
    other = service.sdk("key-of-caller99")
    assert "secret" not in text_of(ask(other, extra_headers=KEY))
    assert calls(sandbox) == 2
