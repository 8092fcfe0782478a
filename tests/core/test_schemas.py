"""Every parameter of OpenAI's request is honoured, or refused by its name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.schemas import parse
from app.api.tool_call_ids import signed_id
from app.errors import BadRequest
from app.messages import Image, Message, ResponseFormat, Text, Tool, ToolCall

pytestmark = pytest.mark.promise("C6")

HELLO = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "get_weather", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}


def body(**parameters: Any) -> bytes:
    return json.dumps({"messages": [HELLO], **parameters}).encode()


def refusal(content: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        parse(content)
    assert refused.value.status == 400
    return refused.value


UNSUPPORTED = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [FUNCTION],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "metadata": {"user": "marked"},
    "modalities": ["text", "audio"],
    "n": 2,
    "prediction": {"type": "content", "content": "marked"},
    "presence_penalty": -1,
    "prompt_cache_key": "marked",
    "reasoning_effort": "high",
    "safety_identifier": "marked",
    "service_tier": "flex",
    "store": True,
    "top_logprobs": 3,
    "user": "marked",
    "verbosity": "low",
    "web_search_options": {},
    "no_such_parameter": "marked",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_honoured_is_refused_by_name(name: str) -> None:
    """A parameter that nobody here honours is refused, and its value is not repeated."""
    refused = refusal(body(**{name: UNSUPPORTED[name]}))
    assert refused.param == name
    assert refused.detail.startswith(name)
    assert "marked" not in refused.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("frequency_penalty", 0),
        ("presence_penalty", 0),
        ("logprobs", False),
        ("store", False),
        *((name, None) for name in ("n", "logprobs", "store", "stop", "tools", "temperature")),
    ],
)
def test_a_value_that_changes_nothing_is_taken(name: str, value: object) -> None:
    """Parameters at the value they have anyway are taken, so that no client stumbles."""
    assert parse(body(**{name: value})) == parse(body())


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("messages", [], "messages"),
        ("messages", "Hello", "messages"),
        ("messages", [{"role": "robot", "content": "Hi"}], "messages.0"),
        ("messages", [HELLO, {"role": "user"}], "messages.1.content"),
        ("messages", [{"role": "user", "content": 5}], "messages.0.content"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "marked"}]}],
            "messages.0.content.0",
        ),
        ("messages", [{**HELLO, "mood": "marked"}], "messages.0.mood"),
        ("messages", [{"role": "tool", "content": "Hi"}], "messages.0.tool_call_id"),
        ("model", 5, "model"),
        ("stream", "maybe", "stream"),
        ("stream_options", {"include_obfuscation": True}, "stream_options.include_obfuscation"),
        ("max_tokens", 0, "max_tokens"),
        ("max_completion_tokens", -1, "max_completion_tokens"),
        ("temperature", 2.1, "temperature"),
        ("top_p", -0.1, "top_p"),
        ("stop", ["a", "b", "c", "d", "e"], "stop"),
        ("stop", {"marked": 1}, "stop"),
        ("seed", "marked", "seed"),
        ("tools", [{"type": "marked"}], "tools.0.type"),
        ("tools", [{"type": "function"}], "tools.0.function"),
        ("tools", [{"type": "function", "function": {"name": "a b"}}], "tools.0.function.name"),
        ("tool_choice", "sometimes", "tool_choice"),
        ("parallel_tool_calls", "marked", "parallel_tool_calls"),
        ("response_format", {"type": "marked"}, "response_format"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
    ],
)
def test_a_bad_value_is_named_and_not_repeated(name: str, value: object, param: str) -> None:
    """A value that cannot be honoured is refused, with the path to it and without itself."""
    refused = refusal(body(**{name: value}))
    assert refused.param == param
    assert "marked" not in refused.detail


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{'messages': 1}", b"[" * 300])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    """A body that cannot be parsed is refused as such."""
    assert refusal(content).code == "invalid_json"


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"1", b"null"])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    """JSON that is no object is refused and does not crash the service."""
    assert refusal(content).code == "invalid_request"


def test_messages_are_required() -> None:
    """A body without messages is refused by the name of what is missing."""
    assert refusal(b"{}").param == "messages"


def test_every_parameter_arrives() -> None:
    """What the request says is what the core is asked for."""
    parsed = parse(
        body(
            model="openai/gpt-6-luna",
            stream=True,
            stream_options={"include_usage": True},
            max_completion_tokens=7,
            temperature=0.25,
            top_p=0.5,
            stop=["a", "b"],
            seed=3,
            tools=[{"type": "function", "function": {**FUNCTION, "strict": True}}],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            parallel_tool_calls=False,
            response_format={"type": "json_schema", "json_schema": {"name": "answer"}},
        )
    )
    chat = parsed.chat
    assert (parsed.stream, parsed.include_usage) == (True, True)
    assert (chat.model, chat.max_output_tokens) == ("openai/gpt-6-luna", 7)
    assert (chat.temperature, chat.top_p, chat.stop, chat.seed) == (0.25, 0.5, ("a", "b"), 3)
    assert chat.tools == (Tool("get_weather", None, {"type": "object"}, True),)
    assert (chat.tool_choice, chat.parallel_tool_calls) == ("tool:get_weather", False)
    assert chat.response_format == ResponseFormat("json_schema", {"name": "answer"})


def test_without_parameters_the_defaults_are_the_vendors() -> None:
    """A bare request asks for `auto`, as one JSON reply, and leaves everything else open."""
    parsed = parse(body())
    assert (parsed.stream, parsed.include_usage, parsed.chat.model) == (False, False, "auto")
    assert parsed.chat.messages == (Message("user", (Text("Hello"),)),)
    assert parsed.chat.max_output_tokens is None
    assert parsed.chat.stop == ()


@pytest.mark.parametrize("stop", ["END", ["END"]])
def test_one_stop_sequence_may_stand_alone(stop: object) -> None:
    """`stop` is a text or a list of them."""
    assert parse(body(stop=stop)).chat.stop == ("END",)


def test_the_newer_name_of_the_output_limit_wins() -> None:
    """`max_tokens` is honoured, and `max_completion_tokens` goes before it."""
    assert parse(body(max_tokens=5)).chat.max_output_tokens == 5
    both = parse(body(max_tokens=5, max_completion_tokens=3))
    assert both.chat.max_output_tokens == 3


def test_messages_keep_all_their_parts() -> None:
    """Texts, images, names, tool calls and their results arrive as they were sent."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "Ada", "content": [{"type": "text", "text": "What?"}, image]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
        {"role": "tool", "content": "It rains.", "tool_call_id": "call_1"},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]
    assert parse(body(messages=messages)).chat.messages == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("What?"), Image("https://example.com/a.png")), name="Ada"),
        Message("assistant", tool_calls=(ToolCall("call_1", "f", "{}"),)),
        Message("tool", (Text("It rains."),), tool_call_id="call_1"),
        Message("assistant", (Text("No."),)),
    )


@given(
    st.from_regex(r"[a-zA-Z0-9-]{1,40}", fullmatch=True),
    st.from_regex(r"[a-zA-Z0-9_-]{1,40}", fullmatch=True),
)
def test_a_signature_travels_in_the_id_of_its_call(id: str, signature: str) -> None:
    """What goes out in an id comes back as id and signature, and its result belongs to the id."""
    outside = signed_id(id, signature)
    call = {"id": outside, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "It rains.", "tool_call_id": outside},
    ]
    assert parse(body(messages=messages)).chat.messages == (
        Message("assistant", tool_calls=(ToolCall(id, "f", "{}", signature),)),
        Message("tool", (Text("It rains."),), tool_call_id=id),
    )


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/a", "javascript:1", "a"])
def test_an_image_is_on_the_web_or_in_the_request(url: str) -> None:
    """An image's address is http(s) or a `data:` URL; anything else is refused."""
    image = {"type": "image_url", "image_url": {"url": url}}
    refused = refusal(body(messages=[{"role": "user", "content": [image]}]))
    assert refused.param == "messages.0.content.0.image_url.url"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = [*UNSUPPORTED, "messages", "model", "stream", "stop", "tools", "response_format", "seed"]


@given(st.dictionaries(st.sampled_from(NAMES), json_values))
def test_any_json_is_parsed_or_refused(parameters: dict[str, Any]) -> None:
    """No body makes the service fail: it is understood, or refused with 400."""
    try:
        parse(body(**parameters))
    except BadRequest as refused:
        assert refused.detail
