"""OpenAI's own SDK talks to OpenAI's stand-in."""

import json
import time
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import completion_create_params
from pydantic import BaseModel

from sandbox.faults import Fault
from sandbox.model import Reply, ToolCall
from sandbox.server import Sandbox
from sandbox.vendors.openai import PARAMETERS

MODEL = "gpt-5.4-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
WEATHER_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
ASK_WEATHER: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


def test_completion(openai_client: openai.OpenAI) -> None:
    """A completion echoes what was received and bills input and output."""
    reply = openai_client.chat.completions.create(model=MODEL, messages=HELLO)
    assert reply.choices[0].message.content == (
        "I received 1 messages. The last one says: Hello there"
    )
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == MODEL
    assert reply.object == "chat.completion"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (8, 10)
    assert reply.usage.total_tokens == 18
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply._request_id is not None
    assert abs(reply.created - time.time()) < 60


def test_replies_have_ids_of_their_own(openai_client: openai.OpenAI) -> None:
    """No two replies share an id."""
    first = openai_client.chat.completions.create(model=MODEL, messages=HELLO)
    second = openai_client.chat.completions.create(model=MODEL, messages=HELLO)
    assert first.id != second.id


def test_stream_with_usage(openai_client: openai.OpenAI) -> None:
    """The usage comes in a last chunk without choices; all others have it null."""
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *others, last = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in others)
    assert text == "I received 1 messages. The last one says: Hello there"
    assert others[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in others].count("stop") == 1
    assert others[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (8, 10)
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_without_usage(openai_client: openai.OpenAI) -> None:
    """Usage that was not asked for does not come."""
    stream = openai_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    assert all("usage" not in chunk.model_fields_set and chunk.choices for chunk in stream)


def test_stream_ends_with_done(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """The last event on the wire is `[DONE]`."""
    with openai_client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HELLO, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        body = response.read()
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert sandbox.requests("openai")[0].complete


def test_token_limit(openai_client: openai.OpenAI) -> None:
    """A reply is cut at the limit, which counts tokens, and says so."""
    reply = openai_client.chat.completions.create(
        model=MODEL, messages=HELLO, max_completion_tokens=3
    )
    assert reply.choices[0].message.content == "I received 1"
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3


def test_stop_sequence(openai_client: openai.OpenAI) -> None:
    """A reply ends before a stop sequence."""
    reply = openai_client.chat.completions.create(model=MODEL, messages=HELLO, stop=[" The"])
    assert reply.choices[0].message.content == "I received 1 messages."
    assert reply.choices[0].finish_reason == "stop"


def test_summary(openai_client: openai.OpenAI) -> None:
    """A system message that asks for a summary gets one that counts the messages."""
    reply = openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "system", "content": "Summarise this."}, *HELLO, *HELLO]
    )
    assert reply.choices[0].message.content == "Summary of 2 messages."


def test_tool_call_and_its_result(openai_client: openai.OpenAI) -> None:
    """A tool is called for what it is named after, and its result is quoted."""
    reply = openai_client.chat.completions.create(
        model=MODEL, messages=ASK_WEATHER, tools=[WEATHER_TOOL]
    )
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {
        "city": "What is the weather in Paris?",
        "days": 1,
    }
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    assistant: Any = choice.message.model_dump(exclude_none=True)
    final = openai_client.chat.completions.create(
        model=MODEL, messages=[*ASK_WEATHER, assistant, result], tools=[WEATHER_TOOL]
    )
    assert final.choices[0].message.content == "The tool answered: 21 degrees"
    assert final.choices[0].finish_reason == "stop"


def test_streamed_tool_calls(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """Several calls are streamed in pieces, and the SDK puts them together again."""
    calls = (ToolCall("get_weather", {"city": "Paris and Rome"}), ToolCall("get_time", {"zone": 1}))
    sandbox.script("openai", [Reply(tool_calls=calls)])
    with openai_client.chat.completions.stream(
        model=MODEL, messages=HELLO, tools=[WEATHER_TOOL]
    ) as stream:
        pieces = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        choice = stream.get_final_completion().choices[0]
    assert len(pieces) > len(calls)
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert [
        (call.function.name, call.function.arguments) for call in choice.message.tool_calls
    ] == [
        ("get_weather", '{"city": "Paris and Rome"}'),
        ("get_time", '{"zone": 1}'),
    ]


@pytest.mark.parametrize(
    ("choice", "called", "finish_reason"),
    [
        ("auto", False, "stop"),
        ("none", False, "stop"),
        ("required", True, "tool_calls"),
        ({"type": "function", "function": {"name": "get_weather"}}, True, "stop"),
    ],
)
def test_tool_choice(
    openai_client: openai.OpenAI, choice: Any, called: bool, finish_reason: str
) -> None:
    """The choice decides over the text; a call forced by name ends with `stop`."""
    reply = openai_client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER_TOOL], tool_choice=choice
    )
    assert bool(reply.choices[0].message.tool_calls) is called
    assert reply.choices[0].finish_reason == finish_reason


def test_json_object(openai_client: openai.OpenAI) -> None:
    """JSON mode answers with an object, and wants the word in the messages."""
    with pytest.raises(openai.BadRequestError, match="json"):
        openai_client.chat.completions.create(
            model=MODEL, messages=HELLO, response_format={"type": "json_object"}
        )
    reply = openai_client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give me JSON"}],
        response_format={"type": "json_object"},
    )
    assert json.loads(reply.choices[0].message.content or "") == {"echo": "Give me JSON"}


class Address(BaseModel):
    city: str


class Person(BaseModel):
    name: str
    age: int
    address: Address
    friend: "Person | None" = None


def test_json_schema(openai_client: openai.OpenAI) -> None:
    """A schema is filled, nested and recursive ones too."""
    reply = openai_client.chat.completions.parse(
        model=MODEL, messages=HELLO, response_format=Person
    )
    person = reply.choices[0].message.parsed
    assert person == Person(name="Hello there", age=1, address=Address(city="Hello there"))


def test_scripted_reply(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """Text, model and usage can be set."""
    sandbox.script(
        "openai",
        [
            Reply(
                text="Yes.",
                model="gpt-5.4-mini-2026-03-17",
                input_tokens=100,
                output_tokens=50,
                cached_input_tokens=60,
                cache_write_tokens=10,
                reasoning_tokens=40,
            )
        ],
    )
    reply = openai_client.chat.completions.create(model=MODEL, messages=HELLO)
    assert reply.choices[0].message.content == "Yes."
    assert reply.model == "gpt-5.4-mini-2026-03-17"
    usage = reply.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 50, 150)
    assert usage.prompt_tokens_details.cached_tokens == 60
    assert usage.prompt_tokens_details.cache_write_tokens == 10
    assert usage.completion_tokens_details.reasoning_tokens == 40


@pytest.mark.parametrize(("text", "count"), [(None, 60), ("Twelve chars", 4)])
def test_scripted_chunks(
    sandbox: Sandbox, openai_client: openai.OpenAI, text: str | None, count: int
) -> None:
    """A reply comes in as many chunks as were asked for."""
    sandbox.script("openai", [Reply(text=text, chunks=count)])
    stream = openai_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content]
    assert len(pieces) == count
    assert text is None or "".join(pieces) == text


def test_refusal(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """A refusal takes the place of the content."""
    sandbox.script("openai", [Reply(refusal=True, text="No.")], times=2)
    message = openai_client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message
    assert (message.content, message.refusal) == (None, "No.")
    with openai_client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.refusal == "No."


def test_missing_usage(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """Usage can be left out, of a stream that asked for it too."""
    sandbox.script("openai", [Reply(usage=False)], times=2)
    assert openai_client.chat.completions.create(model=MODEL, messages=HELLO).usage is None
    stream = openai_client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_models(openai_client: openai.OpenAI) -> None:
    """There is a list of models."""
    models = list(openai_client.models.list())
    assert MODEL in [model.id for model in models]
    assert {model.object for model in models} == {"model"}


def test_wrong_key(openai_client: openai.OpenAI) -> None:
    """A wrong key is refused, and its ends are repeated as the vendor does."""
    stranger = openai_client.with_options(api_key="sk-somebody-elses-key")
    with pytest.raises(openai.AuthenticationError) as caught:
        stranger.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    assert "sk-someb****-key" in caught.value.message


def test_missing_key(sandbox: Sandbox, http: httpx.Client) -> None:
    """A request without a key is refused."""
    url = f"{sandbox.url}/openai/v1/chat/completions"
    response = http.post(url, json={"model": MODEL, "messages": HELLO})
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "invalid_request_error"


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"top_k": 3}, None, None),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.[0].role", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.[0].role", None),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, "messages.[1].role", None),
        ({"max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"model": "o3", "stop": "x"}, "stop", "unsupported_parameter"),
        ({"model": "gpt-5-mini", "temperature": 0.2}, "temperature", "unsupported_value"),
        ({"reasoning_effort": "low", "top_p": 0.5}, "top_p", "unsupported_parameter"),
        ({"model": "gpt-4.1-mini", "reasoning_effort": "none"}, None, None),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"tool_choice": "auto"}, "tool_choice", None),
        ({"tools": [{"type": "function"}]}, None, None),
        ({"messages": "Hello"}, None, None),
    ],
)
def test_refused_requests(
    openai_client: openai.OpenAI, extra: dict[str, Any], param: str | None, code: str | None
) -> None:
    """What the vendor does not accept is a 400 that names the parameter."""
    body = {"model": MODEL, "messages": HELLO} | extra
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/chat/completions", cast_to=object, body=body)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"


def test_older_models_take_max_tokens(openai_client: openai.OpenAI) -> None:
    """`max_tokens` is fine where the vendor still takes it, and so is a temperature."""
    reply = openai_client.chat.completions.create(
        model="gpt-4.1-mini", messages=HELLO, max_tokens=2, temperature=0.2, stop="\n"
    )
    assert reply.choices[0].message.content == "I received"


def test_parameters_are_the_vendors() -> None:
    """The stand-in knows exactly the parameters that the SDK knows."""
    known = completion_create_params.CompletionCreateParamsBase.__annotations__.keys()
    assert set(PARAMETERS.split()) == known | {"stream"}


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        (Fault(status=400), openai.BadRequestError, None),
        (Fault(status=401), openai.AuthenticationError, "invalid_api_key"),
        (Fault(status=403), openai.PermissionDeniedError, "model_not_found"),
        (Fault(status=404), openai.NotFoundError, "model_not_found"),
        (Fault(status=409), openai.ConflictError, None),
        (Fault(status=429), openai.RateLimitError, "rate_limit_exceeded"),
        (Fault(error="quota_exhausted"), openai.RateLimitError, "insufficient_quota"),
        (Fault(error="spend_limit"), openai.BadRequestError, "billing_hard_limit_reached"),
        (Fault(error="context_too_long"), openai.BadRequestError, "context_length_exceeded"),
        (Fault(error="content_policy"), openai.BadRequestError, "invalid_prompt"),
        (Fault(status=500), openai.InternalServerError, None),
        (Fault(status=503), openai.InternalServerError, None),
        (Fault(html=True), openai.InternalServerError, None),
        (Fault(action="reset"), openai.APIConnectionError, None),
        (Fault(action="close"), openai.APIConnectionError, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_typed_errors(
    sandbox: Sandbox,
    openai_client: openai.OpenAI,
    fault: Fault,
    error: type[openai.APIError],
    code: str | None,
    stream: bool,
) -> None:
    """The SDK raises the error that it would raise for the vendor."""
    sandbox.script("openai", [fault])
    with pytest.raises(error) as caught:
        openai_client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert caught.value.code == code
    assert len(sandbox.requests("openai")) == 1


@pytest.mark.parametrize("after_chunks", [None, 0])
def test_silence_times_out(
    sandbox: Sandbox, openai_client: openai.OpenAI, after_chunks: int | None
) -> None:
    """Silence before or behind the headers is a timeout."""
    sandbox.script("openai", [Fault(action="stall", after_chunks=after_chunks)])
    impatient = openai_client.with_options(timeout=0.1)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model=MODEL, messages=HELLO)


def test_sdk_retries_as_told(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """The SDK obeys `retry-after-ms`, and its retry says that it is one."""
    sandbox.script("openai", [Fault(status=429, headers={"retry-after-ms": "120"})])
    patient = openai_client.with_options(max_retries=1)
    patient.chat.completions.create(model=MODEL, messages=HELLO)
    first, second = sandbox.requests("openai")
    assert second.arrived_at_seconds - first.arrived_at_seconds >= 0.12
    assert (first.status, second.status) == (429, 200)
    assert second.headers["x-stainless-retry-count"] == "1"


def test_error_inside_a_stream(sandbox: Sandbox, openai_client: openai.OpenAI) -> None:
    """A stream that began well can end with an error."""
    fault = Fault(action="error_event", after_chunks=2, reply=Reply(chunks=9))
    sandbox.script("openai", [fault])
    received = []
    with pytest.raises(openai.APIError, match="The server had an error"):
        for chunk in openai_client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True
        ):
            received.append(chunk.choices[0].delta.content)
    assert received == ["", "word1", " word2"]
