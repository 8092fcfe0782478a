"""OpenAI's SDK, pointed at another server as people do, talks to that server's stand-in."""

import json
from typing import Any

import httpx
import openai
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply, ToolCall
from sandbox.server import Sandbox

NAME = "openai_compatible"
MODEL = "llama3.3:70b"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
WEATHER_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_completion(compatible_client: openai.OpenAI) -> None:
    """A completion echoes what was received and bills input and output."""
    reply = compatible_client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=50)
    assert reply.choices[0].message.content == (
        "I received 1 messages. The last one says: Hello there"
    )
    assert (reply.choices[0].finish_reason, reply.model) == ("stop", MODEL)
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (8, 10)


def test_stream(compatible_client: openai.OpenAI) -> None:
    """A stream begins with a comment, which the SDK skips, and ends with the usage if asked for."""
    *others, last = compatible_client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in others)
    assert text == "I received 1 messages. The last one says: Hello there"
    assert others[-1].choices[0].finish_reason == "stop"
    assert last.choices == [] and last.usage is not None
    with compatible_client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HELLO, stream=True
    ) as response:
        body = response.read()
    assert body.startswith(b": PROCESSING\n\ndata: {")
    assert body.endswith(b"data: [DONE]\n\n")


def test_tool_calls(sandbox: Sandbox, compatible_client: openai.OpenAI) -> None:
    """Tools are called and streamed in pieces, and a result is taken back."""
    sandbox.script(NAME, [Reply(tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),))])
    with compatible_client.chat.completions.stream(
        model=MODEL, messages=HELLO, tools=[WEATHER_TOOL]
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assistant: Any = message.model_dump(exclude_none=True, exclude={"parsed"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
    final = compatible_client.chat.completions.create(
        model=MODEL, messages=[*HELLO, assistant, result], tools=[WEATHER_TOOL]
    )
    assert final.choices[0].message.content == "The tool answered: 12 degrees"


def test_thoughts_are_shown(sandbox: Sandbox, compatible_client: openai.OpenAI) -> None:
    """A model that thinks shows its thoughts in a member beside the content, and bills them."""
    sandbox.script(NAME, [Reply(text="Four.", reasoning_tokens=9)], times=2)
    reply = compatible_client.chat.completions.create(model=MODEL, messages=HELLO)
    assert reply.choices[0].message.model_extra == {
        "reasoning_content": "Let me see.",
    }
    assert reply.choices[0].message.content == "Four."
    assert reply.usage is not None and reply.usage.completion_tokens == 10
    chunks = compatible_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    thoughts = [(delta.model_extra or {}).get("reasoning_content", "") for delta in deltas]
    assert "".join(thoughts) == "Let me see."
    assert "".join(delta.content or "" for delta in deltas) == "Four."


def test_models(compatible_client: openai.OpenAI, sandbox: Sandbox) -> None:
    """The model that the service is pointed at is listed."""
    names = [model.id for model in compatible_client.models.list()]
    assert names == [sandbox.environment()["OPENAI_COMPATIBLE_MODEL"]]


def test_a_key_is_optional(sandbox: Sandbox, http: httpx.Client) -> None:
    """Without a key the server answers; a wrong one is refused."""
    url = f"{sandbox.environment()['OPENAI_COMPATIBLE_BASE_URL']}/chat/completions"
    body = {"model": MODEL, "messages": HELLO}
    assert http.post(url, json=body).status_code == 200
    assert http.post(url, json=body, headers={"authorization": "Bearer x"}).status_code == 401


def test_wrong_key(compatible_client: openai.OpenAI) -> None:
    """The SDK understands the refusal of a wrong key."""
    with pytest.raises(openai.AuthenticationError):
        compatible_client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"reasoning_effort": "none"}, "reasoning_effort"),
        ({"store": False}, "store"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.[0].role"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, "messages.[1].role"),
        ({"messages": []}, "messages"),
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "auto"}, "tool_choice"),
    ],
)
def test_refused_requests(
    compatible_client: openai.OpenAI, extra: dict[str, Any], param: str
) -> None:
    """What OpenAI alone knows, and what nobody accepts, is a 400 that names the parameter."""
    body = {"model": MODEL, "messages": HELLO} | extra
    with pytest.raises(openai.BadRequestError) as caught:
        compatible_client.post("/chat/completions", cast_to=object, body=body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(error="invalid_request"), openai.BadRequestError),
        (Fault(error="invalid_api_key"), openai.AuthenticationError),
        (Fault(error="permission_denied"), openai.PermissionDeniedError),
        (Fault(error="model_not_found"), openai.NotFoundError),
        (Fault(error="rate_limited"), openai.RateLimitError),
        (Fault(error="quota_exhausted"), openai.APIStatusError),
        (Fault(error="spend_limit"), openai.BadRequestError),
        (Fault(error="context_too_long"), openai.BadRequestError),
        (Fault(error="content_policy"), openai.BadRequestError),
        (Fault(error="server_error"), openai.InternalServerError),
        (Fault(error="overloaded"), openai.InternalServerError),
        (Fault(status=409), openai.ConflictError),
        (Fault(html=True), openai.InternalServerError),
        (Fault(action="reset"), openai.APIConnectionError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_typed_errors(
    sandbox: Sandbox,
    compatible_client: openai.OpenAI,
    fault: Fault,
    error: type[openai.APIError],
    stream: bool,
) -> None:
    """The SDK raises the error that fits, though the server words it in its own way."""
    sandbox.script(NAME, [fault])
    with pytest.raises(error):
        compatible_client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert len(sandbox.requests(NAME)) == 1


def test_error_inside_a_stream(sandbox: Sandbox, compatible_client: openai.OpenAI) -> None:
    """A stream that began well can end with an error."""
    fault = Fault(action="error_event", after_chunks=2, reply=Reply(chunks=9))
    sandbox.script(NAME, [fault])
    received = []
    with pytest.raises(openai.APIError, match="The server had an error"):
        for chunk in compatible_client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True
        ):
            received.append(chunk.choices[0].delta.content)
    assert received == ["", "word1", " word2"]


def test_a_form_of_ones_own(sandbox: Sandbox, compatible_client: openai.OpenAI) -> None:
    """Any other server's stream can be scripted as it stands on the wire."""
    body = 'data:{"choices":[{"delta":{"content":"Hi"}}]}\n\ndata:[DONE]\n\n'
    sandbox.script(NAME, [Fault(body=body, content_type="text/event-stream")])
    (chunk,) = compatible_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    assert chunk.choices[0].delta.content == "Hi"
