"""Anthropic's own SDK talks to Anthropic's stand-in."""

import json
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import TextBlock, ToolUseBlock, message_create_params

from sandbox.faults import Fault
from sandbox.model import Reply, ToolCall
from sandbox.server import Sandbox
from sandbox.vendors.anthropic import PARAMETERS

MODEL = "claude-sonnet-5"
OLD_MODEL = "claude-haiku-4-5"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
WEATHER_TOOL: Any = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ASK_WEATHER: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def test_message(anthropic_client: anthropic.Anthropic) -> None:
    """A message echoes what was received and bills input and output."""
    message = anthropic_client.messages.create(model=MODEL, max_tokens=99, messages=HELLO)
    assert text_of(message) == "I received 1 messages. The last one says: Hello there"
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (8, 10)
    assert message._request_id is not None


def test_system_and_history(anthropic_client: anthropic.Anthropic) -> None:
    """The system prompt and the history count among the messages received."""
    history: list[Any] = [*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]
    message = anthropic_client.messages.create(
        model=MODEL, max_tokens=99, system=[{"type": "text", "text": "Be kind"}], messages=history
    )
    assert text_of(message) == "I received 4 messages. The last one says: Hello there"


def test_summary(anthropic_client: anthropic.Anthropic) -> None:
    """A system prompt that asks for a summary gets one that counts the messages."""
    message = anthropic_client.messages.create(
        model=MODEL, max_tokens=99, system="Write a summary.", messages=HELLO
    )
    assert text_of(message) == "Summary of 1 messages."


def test_stream(anthropic_client: anthropic.Anthropic) -> None:
    """The events come in the vendor's order, and the usage at the end is a running total."""
    events = list(
        anthropic_client.messages.create(model=MODEL, max_tokens=99, messages=HELLO, stream=True)
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0].type == "message_start"
    assert events[0].message.usage.output_tokens == 1
    assert events[-2].type == "message_delta"
    assert events[-2].usage.output_tokens == 10


def test_stream_accumulates(anthropic_client: anthropic.Anthropic) -> None:
    """The SDK puts a stream together to the message that JSON would have been."""
    whole = anthropic_client.messages.create(model=MODEL, max_tokens=99, messages=HELLO)
    with anthropic_client.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
        streamed = stream.get_final_message()
    assert text_of(streamed) == text_of(whole)
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.input_tokens == whole.usage.input_tokens
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_stream_holds_pings(anthropic_client: anthropic.Anthropic) -> None:
    """There is a ping in each stream, which the SDK hides."""
    with anthropic_client.messages.with_streaming_response.create(
        model=MODEL, max_tokens=99, messages=HELLO, stream=True
    ) as response:
        body = response.read()
    assert b'event: ping\ndata: {"type":"ping"}\n\n' in body


def test_token_limit(anthropic_client: anthropic.Anthropic) -> None:
    """A message is cut at the limit and says so."""
    message = anthropic_client.messages.create(model=MODEL, max_tokens=3, messages=HELLO)
    assert text_of(message) == "I received 1"
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 3


def test_stop_sequence(anthropic_client: anthropic.Anthropic) -> None:
    """A message ends before a stop sequence and names it."""
    message = anthropic_client.messages.create(
        model=MODEL, max_tokens=99, messages=HELLO, stop_sequences=["says", " The"]
    )
    assert text_of(message) == "I received 1 messages."
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " The")


def test_tool_use_and_its_result(anthropic_client: anthropic.Anthropic) -> None:
    """A tool is used for what it is named after, and its result is quoted."""
    message = anthropic_client.messages.create(
        model=MODEL, max_tokens=99, messages=ASK_WEATHER, tools=[WEATHER_TOOL]
    )
    assert message.stop_reason == "tool_use"
    (use,) = message.content
    assert isinstance(use, ToolUseBlock)
    assert (use.name, use.input) == ("get_weather", {"city": "What is the weather in Paris?"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}
    answer: list[Any] = [message.to_param(), {"role": "user", "content": [result]}]
    final = anthropic_client.messages.create(
        model=MODEL, max_tokens=99, messages=[*ASK_WEATHER, *answer], tools=[WEATHER_TOOL]
    )
    assert text_of(final) == "The tool answered: 21 degrees"
    assert final.stop_reason == "end_turn"


def test_streamed_tool_uses(sandbox: Sandbox, anthropic_client: anthropic.Anthropic) -> None:
    """Text and several tool uses are streamed as blocks of one message."""
    calls = (ToolCall("get_weather", {"city": "Paris and Rome"}), ToolCall("get_time"))
    sandbox.script("anthropic", [Reply(text="Let me see.", tool_calls=calls)])
    with anthropic_client.messages.stream(
        model=MODEL, max_tokens=99, messages=HELLO, tools=[WEATHER_TOOL]
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    assert pieces[0] == ""
    assert len(pieces) > len(calls) + 1
    text, first, second = message.content
    assert isinstance(text, TextBlock)
    assert text.text == "Let me see."
    assert isinstance(first, ToolUseBlock)
    assert isinstance(second, ToolUseBlock)
    assert (first.name, first.input) == ("get_weather", {"city": "Paris and Rome"})
    assert (second.name, second.input) == ("get_time", {})
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ({"type": "auto"}, False),
        ({"type": "none"}, False),
        ({"type": "any"}, True),
        ({"type": "tool", "name": "get_weather"}, True),
    ],
)
def test_tool_choice(anthropic_client: anthropic.Anthropic, choice: Any, called: bool) -> None:
    """The choice decides over the text."""
    message = anthropic_client.messages.create(
        model=MODEL, max_tokens=99, messages=HELLO, tools=[WEATHER_TOOL], tool_choice=choice
    )
    assert (message.stop_reason == "tool_use") is called


def test_output_format(anthropic_client: anthropic.Anthropic) -> None:
    """An output schema is filled."""
    schema: dict[str, object] = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    message = anthropic_client.messages.create(
        model=MODEL,
        max_tokens=99,
        messages=HELLO,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(text_of(message)) == {"ok": True}


@pytest.mark.parametrize("stream", [False, True])
def test_scripted_usage(
    sandbox: Sandbox, anthropic_client: anthropic.Anthropic, stream: bool
) -> None:
    """Cached tokens come beside the input tokens, not within them."""
    reply = Reply(
        text="Yes.",
        input_tokens=100,
        output_tokens=50,
        cached_input_tokens=60,
        cache_write_tokens=10,
        reasoning_tokens=40,
    )
    sandbox.script("anthropic", [reply])
    if stream:
        with anthropic_client.messages.stream(
            model=MODEL, max_tokens=99, messages=HELLO
        ) as streamed:
            usage = streamed.get_final_message().usage
    else:
        usage = anthropic_client.messages.create(model=MODEL, max_tokens=99, messages=HELLO).usage
    assert (usage.input_tokens, usage.output_tokens) == (30, 50)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 10)
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 40


def test_refusal(sandbox: Sandbox, anthropic_client: anthropic.Anthropic) -> None:
    """A refusal is a stop reason."""
    sandbox.script("anthropic", [Reply(refusal=True)])
    message = anthropic_client.messages.create(model=MODEL, max_tokens=99, messages=HELLO)
    assert message.stop_reason == "refusal"


def test_missing_usage(sandbox: Sandbox, anthropic_client: anthropic.Anthropic) -> None:
    """Usage can be left out of a stream altogether."""
    sandbox.script("anthropic", [Reply(usage=False)])
    with anthropic_client.messages.with_streaming_response.create(
        model=MODEL, max_tokens=99, messages=HELLO, stream=True
    ) as response:
        assert b"usage" not in response.read()


def test_models(anthropic_client: anthropic.Anthropic) -> None:
    """There is a list of models."""
    assert MODEL in [model.id for model in anthropic_client.models.list()]


def test_wrong_key(anthropic_client: anthropic.Anthropic) -> None:
    """A wrong key is refused."""
    stranger = anthropic_client.with_options(api_key="somebody-elses")
    with pytest.raises(anthropic.AuthenticationError) as caught:
        stranger.messages.create(model=MODEL, max_tokens=99, messages=HELLO)
    assert caught.value.type == "authentication_error"


@pytest.mark.parametrize(
    ("missing", "status", "message"),
    [
        ("x-api-key", 401, "x-api-key header is required"),
        ("anthropic-version", 400, "anthropic-version: a valid version is required"),
    ],
)
def test_missing_header(
    sandbox: Sandbox, http: httpx.Client, missing: str, status: int, message: str
) -> None:
    """Both of the vendor's headers are required."""
    key = sandbox.environment()["ANTHROPIC_API_KEY"]
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    del headers[missing]
    body = {"model": MODEL, "max_tokens": 9, "messages": HELLO}
    url = f"{sandbox.url}/anthropic/v1/messages"
    response = http.post(url, json=body, headers=headers)
    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["message"] == message


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}
TEXT = {"type": "text", "text": "x"}
EMPTY = {"type": "text", "text": ""}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"model": None}, "model: Field required"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater"),
        ({"n": 2}, "n: Extra inputs are not permitted"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "tool", "content": "x"}]}, "Input should be 'user' or 'assistant'"),
        ({"messages": [assistant(TEXT), *HELLO]}, "first message must use"),
        ({"messages": [*HELLO, assistant(TEXT)]}, "prefill"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
        ({"messages": [{"role": "user", "content": [EMPTY]}]}, "must be non-empty"),
        ({"messages": [*HELLO, assistant(USE), *HELLO]}, "without `tool_result` blocks"),
        (
            {"messages": [*HELLO, assistant(USE), {"role": "user", "content": [TEXT, RESULT]}]},
            "without `tool_result` blocks",
        ),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, "unexpected `tool_use_id`"),
        ({"temperature": 1}, "temperature: Extra inputs are not permitted"),
        ({"stop_sequences": ["\n"]}, "must contain non-whitespace"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice"),
        ({"tools": [{"name": "f"}]}, "input_schema: Field required"),
        ({"messages": ["Hello"]}, "does not fit"),
    ],
)
def test_refused_requests(
    anthropic_client: anthropic.Anthropic, body: dict[str, Any], message: str
) -> None:
    """What the vendor does not accept is a 400 that says why."""
    whole = {"model": MODEL, "max_tokens": 9, "messages": HELLO} | body
    sent = {name: value for name, value in whole.items() if value is not None}
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.post("/v1/messages", cast_to=object, body=sent)
    assert caught.value.type == "invalid_request_error"
    assert message in (caught.value.api_message or "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": MODEL, "temperature": 0.5}, "`temperature` is deprecated"),
        ({"model": OLD_MODEL, "temperature": 1.5}, "temperature: Input should be"),
        ({"model": OLD_MODEL, "temperature": 0.5, "top_p": 0.5}, "cannot both be specified"),
        ({"model": OLD_MODEL, "temperature": 0.5, "top_k": 5}, None),
    ],
)
def test_sampling_in_the_older_api(
    sandbox: Sandbox, http: httpx.Client, body: dict[str, Any], message: str | None
) -> None:
    """The older version of the API takes sampling parameters for older models."""
    key = sandbox.environment()["ANTHROPIC_API_KEY"]
    response = http.post(
        f"{sandbox.url}/anthropic/v1/messages",
        json={"max_tokens": 9, "messages": HELLO} | body,
        headers={"x-api-key": key, "anthropic-version": "2023-06-01"},
    )
    assert response.status_code == (400 if message else 200)
    assert message is None or message in response.json()["error"]["message"]


def test_accepted_quirks(anthropic_client: anthropic.Anthropic) -> None:
    """Turns of one role are joined, also around results of tools; old models take a prefill."""
    parallel = assistant(USE, USE | {"id": "toolu_2"})
    results: list[Any] = [
        {"role": "user", "content": [RESULT]},
        {"role": "user", "content": [RESULT | {"tool_use_id": "toolu_2"}, TEXT]},
    ]
    history: list[Any] = [*HELLO, *HELLO, parallel, *results]
    message = anthropic_client.messages.create(model=MODEL, max_tokens=99, messages=history)
    assert message.stop_reason == "end_turn"
    prefill: list[Any] = [*HELLO, assistant(TEXT)]
    anthropic_client.messages.create(model=OLD_MODEL, max_tokens=99, messages=prefill)


def test_parameters_are_the_vendors() -> None:
    """The stand-in knows exactly the parameters that the SDK knows."""
    known = set(message_create_params.MessageCreateParamsBase.__annotations__)
    known -= {"user_profile_id", "workspace_id"}  # the SDK sends these as headers
    assert set(PARAMETERS.split()) == known | {"stream"}


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        (Fault(status=400), anthropic.BadRequestError, "invalid_request_error"),
        (Fault(status=401), anthropic.AuthenticationError, "authentication_error"),
        (Fault(status=402), anthropic.APIStatusError, "billing_error"),
        (Fault(status=403), anthropic.PermissionDeniedError, "permission_error"),
        (Fault(status=404), anthropic.NotFoundError, "not_found_error"),
        (Fault(status=413), anthropic.APIStatusError, "request_too_large"),
        (Fault(status=429), anthropic.RateLimitError, "rate_limit_error"),
        (Fault(error="quota_exhausted"), anthropic.BadRequestError, "invalid_request_error"),
        (Fault(error="spend_limit"), anthropic.BadRequestError, "invalid_request_error"),
        (Fault(error="context_too_long"), anthropic.BadRequestError, "invalid_request_error"),
        (Fault(error="content_policy"), anthropic.BadRequestError, "invalid_request_error"),
        (Fault(status=500), anthropic.InternalServerError, "api_error"),
        (Fault(error="overloaded"), anthropic.InternalServerError, "overloaded_error"),
        (Fault(html=True, status=503), anthropic.InternalServerError, None),
    ],
)
def test_typed_errors(
    sandbox: Sandbox,
    anthropic_client: anthropic.Anthropic,
    fault: Fault,
    error: type[anthropic.APIStatusError],
    kind: str | None,
) -> None:
    """The SDK raises the error that it would raise for the vendor."""
    sandbox.script("anthropic", [fault])
    with pytest.raises(error) as caught:
        anthropic_client.messages.create(model=MODEL, max_tokens=9, messages=HELLO)
    assert caught.value.type == kind


def test_lost_connection(sandbox: Sandbox, anthropic_client: anthropic.Anthropic) -> None:
    """A reset is a connection error, and silence a timeout."""
    sandbox.script("anthropic", [Fault(action="reset"), Fault(action="stall")])
    with pytest.raises(anthropic.APIConnectionError):
        anthropic_client.messages.create(model=MODEL, max_tokens=9, messages=HELLO)
    impatient = anthropic_client.with_options(timeout=0.1)
    with pytest.raises(anthropic.APITimeoutError):
        impatient.messages.create(model=MODEL, max_tokens=9, messages=HELLO)


def test_error_inside_a_stream(sandbox: Sandbox, anthropic_client: anthropic.Anthropic) -> None:
    """A stream that began well can end with an error."""
    fault = Fault(action="error_event", error="overloaded", after_chunks=2, reply=Reply(chunks=9))
    sandbox.script("anthropic", [fault])
    received = ""
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        anthropic_client.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream,
    ):
        for text in stream.text_stream:
            received += text
    assert received == "word1 word2"
    assert caught.value.type == "overloaded_error"
