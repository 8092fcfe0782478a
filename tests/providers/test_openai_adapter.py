"""OpenAI's wire format, both ways, checked against the types of OpenAI's own SDK."""

import inspect
import json
import typing
from dataclasses import replace
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from app.errors import (
    Billing,
    ProviderError,
    ProviderRefusesAccount,
    ProviderRejectsRequest,
    ProviderUnavailable,
)
from app.messages import (
    ChatReply,
    ChatRequest,
    Chunk,
    Image,
    Message,
    ReplyBuilder,
    ResponseFormat,
    Text,
    TokenUsage,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from app.providers.base import ProviderAdapter, ServerSentEvent

from .conftest import MakeOpenAI

HELLO = (Message("user", (Text("Hello"),)),)
SCHEMA = {"name": "answer", "schema": {"type": "object"}, "strict": True}
WEATHER = Tool("weather", "Tells it", {"type": "object", "properties": {}}, strict=True)
NOT_NONE = {"model": "gpt-6-luna", "reasoning_effort": "none", "max_completion_tokens": 100}

REQUESTS: dict[str, tuple[ChatRequest, dict[str, Any]]] = {
    "plain": (
        ChatRequest(HELLO),
        {"messages": [{"role": "user", "content": "Hello"}]},
    ),
    "parameters": (
        ChatRequest(
            HELLO,
            temperature=0,
            top_p=0.5,
            stop=("END",),
            seed=0,
            parallel_tool_calls=False,
            response_format=ResponseFormat("json_object"),
        ),
        {
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 0,
            "top_p": 0.5,
            "stop": ["END"],
            "seed": 0,
            "parallel_tool_calls": False,
            "response_format": {"type": "json_object"},
        },
    ),
    "roles": (
        ChatRequest(
            (
                Message("system", (Text("Be brief."),)),
                Message("user", (Text("Hi"), Text("there")), name="ann"),
                Message("assistant", (Text("Yes?"),)),
                Message("user", (Text(""),)),
            )
        ),
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}],
                    "name": "ann",
                },
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": ""},
            ]
        },
    ),
    "images": (
        ChatRequest(
            (
                Message(
                    "user",
                    (
                        Text("What?"),
                        Image("https://example.com/a.png"),
                        Image("data:image/png;base64,AAAA", "low"),
                    ),
                ),
            )
        ),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {
                            "type": "image_url",
                            "image_url": {"url": "https://example.com/a.png", "detail": "high"},
                        },
                        {
                            "type": "image_url",
                            "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
                        },
                    ],
                }
            ]
        },
    ),
    "tools": (
        ChatRequest(
            (
                *HELLO,
                Message("assistant", tool_calls=(ToolCall("call_1", "weather", '{"a":1}'),)),
                Message("tool", (Text("Sunny"),), name="weather", tool_call_id="call_1"),
            ),
            tools=(WEATHER, Tool("noop")),
            tool_choice="tool:weather",
            response_format=ResponseFormat("json_schema", SCHEMA),
        ),
        {
            "messages": [
                {"role": "user", "content": "Hello"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"a":1}'},
                        }
                    ],
                },
                {"role": "tool", "content": "Sunny", "tool_call_id": "call_1"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "description": "Tells it",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": True,
                    },
                },
                {"type": "function", "function": {"name": "noop"}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "response_format": {"type": "json_schema", "json_schema": SCHEMA},
        },
    ),
    "required": (
        ChatRequest(HELLO, tools=(Tool("noop"),), tool_choice="required"),
        {
            "messages": [{"role": "user", "content": "Hello"}],
            "tools": [{"type": "function", "function": {"name": "noop"}}],
            "tool_choice": "required",
        },
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_translated_whole(name: str, stream: bool, openai: MakeOpenAI) -> None:
    """Every parameter has its place in OpenAI's format, which the SDK's types accept."""
    request, expected = REQUESTS[name]
    adapter: ProviderAdapter = openai()
    assert adapter.unsupported(request) is None
    call = adapter.encode(replace(request, max_output_tokens=100), stream=stream)
    body = json.loads(call.body)
    if stream:
        expected = {**expected, "stream": True, "stream_options": {"include_usage": True}}
    assert body == {**NOT_NONE, **expected}
    params = CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    TypeAdapter(params).validate_python(body)
    assert set(body) <= set(typing.get_type_hints(params))
    assert call.path == "/chat/completions"
    assert call.headers == {
        "authorization": "Bearer sk-MARKED-KEY",
        "content-type": "application/json",
    }


@pytest.mark.parametrize(
    ("effort", "request_", "parameter"),
    [
        ("none", ChatRequest(HELLO, tools=(WEATHER,), temperature=0.5), None),
        ("unset", ChatRequest(HELLO, tools=(WEATHER,), temperature=0.5), None),
        ("low", ChatRequest(HELLO, temperature=1, top_p=1), None),
        ("low", ChatRequest(HELLO, tools=(WEATHER,)), "tools"),
        ("low", ChatRequest(HELLO, temperature=0), "temperature"),
        ("low", ChatRequest(HELLO, top_p=0.5), "top_p"),
        ("none", ChatRequest((Message("system", (Image("https://x"),)),)), "image_url"),
    ],
)
def test_what_openai_cannot_do_is_named(
    effort: str, request_: ChatRequest, parameter: str | None, openai: MakeOpenAI
) -> None:
    """Reasoning rules out tools and sampling; images are the user's."""
    assert openai(reasoning_effort=effort).unsupported(request_) == parameter


def test_reasoning_is_a_setting(openai: MakeOpenAI) -> None:
    """The effort is sent as set, or not at all; sampling is left out when it cannot be taken."""
    request = ChatRequest(HELLO, max_output_tokens=1, temperature=1)
    low = json.loads(openai(reasoning_effort="low").encode(request, stream=False).body)
    assert low["reasoning_effort"] == "low" and "temperature" not in low
    unset = json.loads(openai(reasoning_effort="unset").encode(request, stream=False).body)
    assert "reasoning_effort" not in unset and unset["temperature"] == 1
    assert [openai(reasoning_effort=e).thinks_out_of_sight for e in ("none", "low", "unset")] == [
        False,
        True,
        True,
    ]


def reply_of(**choice: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "Hi", "refusal": None}
    message.update(choice.pop("message", {}))
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-6-luna-2026-09-22",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 10,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    }


REPLY = ChatReply(
    id="chatcmpl-1",
    model="gpt-6-luna-2026-09-22",
    text="Hi",
    finish_reason="stop",
    usage=TokenUsage(20, 10, 5, 3, 4),
)
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}},
    {"id": "call_2", "type": "function", "function": {"name": "noop", "arguments": ""}},
]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (reply_of(), REPLY),
        (reply_of(finish_reason="length"), replace(REPLY, finish_reason="length")),
        (reply_of(finish_reason="content_filter"), replace(REPLY, finish_reason="content_filter")),
        (
            reply_of(message={"content": None, "refusal": "No."}),
            replace(REPLY, text="", refusal="No."),
        ),
        (
            reply_of(message={"content": None, "tool_calls": CALLS}, finish_reason="tool_calls"),
            replace(
                REPLY,
                text="",
                finish_reason="tool_calls",
                tool_calls=(
                    ToolCall("call_1", "weather", '{"a": 1}'),
                    ToolCall("call_2", "noop", ""),
                ),
            ),
        ),
    ],
)
def test_a_reply_is_translated_whole(body: object, expected: object, openai: MakeOpenAI) -> None:
    """Text, refusal, tool calls, finish reason, usage, id and model arrive."""
    ChatCompletion.model_validate(body, strict=True)
    assert openai().decode(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({"prompt_tokens": 5}, None),
        ({"prompt_tokens": "5", "completion_tokens": 1}, None),
        ([], None),
        ({"prompt_tokens": 5, "completion_tokens": 1}, TokenUsage(5, 1)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            TokenUsage(5, 1, 5, 0, 1),
        ),
    ],
)
def test_a_usage_that_cannot_be_right_is_none(
    usage: object, expected: object, openai: MakeOpenAI
) -> None:
    """A missing or broken usage does not lose the reply, and parts never exceed their whole."""
    body = json.dumps({**reply_of(), "usage": usage}).encode()
    assert openai().decode(body).usage == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>MARKED-PROMPT</html>",
        b"[]",
        b"null",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": [[]]}',
        b'{"choices": [{"message": null, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": "cut off"}, "finish_reason": null}]}',
        b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"tool_calls": [null]}, "finish_reason": "stop"}]}',
        b'{"cut off": ',
        b"[" * 100_000,
        b'{"choices": [{"message": {"content": "\xff"}, "finish_reason": "stop"}]}',
    ],
)
def test_a_body_that_is_no_reply_is_unavailability(body: bytes, openai: MakeOpenAI) -> None:
    """HTML, other JSON and missing parts are ambiguous failures without a word of the body."""
    with pytest.raises(ProviderUnavailable) as caught:
        openai().decode(body)
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


def event(data: object, name: str = "message") -> ServerSentEvent:
    return ServerSentEvent(name, data if isinstance(data, str) else json.dumps(data))


def chunk_of(delta: object = None, **rest: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": rest.pop("finish_reason", None)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-6-luna-2026-09-22",
        "choices": [choice],
        "usage": None,
        **rest,
    }


WHO: dict[str, Any] = {"id": "chatcmpl-1", "model": "gpt-6-luna-2026-09-22"}
STREAM = [
    chunk_of({"role": "assistant", "content": "", "refusal": None}),
    chunk_of({"content": "Hi"}),
    chunk_of({"content": " there"}),
    chunk_of(
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": ""},
                }
            ]
        }
    ),
    chunk_of({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}),
    chunk_of(finish_reason="tool_calls"),
    chunk_of(choices=[], usage=reply_of()["usage"]),
]


def test_a_stream_is_translated_whole(openai: MakeOpenAI) -> None:
    """Chunks carry text, pieces of tool calls, the end and the usage of the last one."""
    for data in STREAM:
        ChatCompletionChunk.model_validate(data, strict=True)
    decoder = openai().open_stream()
    chunks = [chunk for data in STREAM for chunk in decoder.feed(event(data))]
    assert list(decoder.feed(event("[DONE]"))) == []
    decoder.close()
    assert chunks == [
        Chunk(text="Hi", **WHO),
        Chunk(text=" there", **WHO),
        Chunk(tool_calls=(ToolCallDelta(0, "call_1", "weather"),), **WHO),
        Chunk(tool_calls=(ToolCallDelta(0, arguments='{"a":1}'),), **WHO),
        Chunk(finish_reason="tool_calls", **WHO),
        Chunk(usage=TokenUsage(20, 10, 5, 3, 4), **WHO),
    ]
    builder = ReplyBuilder()
    for chunk in chunks:
        builder.add(chunk)
    assert builder.reply() == ChatReply(
        **WHO,
        text="Hi there",
        finish_reason="tool_calls",
        usage=TokenUsage(20, 10, 5, 3, 4),
        tool_calls=(ToolCall("call_1", "weather", '{"a":1}'),),
    )


def test_a_streamed_refusal_arrives(openai: MakeOpenAI) -> None:
    """A refusal comes in pieces of its own."""
    decoder = openai().open_stream()
    (chunk,) = decoder.feed(event(chunk_of({"refusal": "No."})))
    assert chunk.refusal == "No." and chunk.text == ""


def test_the_announcement_of_a_role_is_no_chunk(openai: MakeOpenAI) -> None:
    """A stream begins with the first thing that is said: until then another provider may answer."""
    assert list(openai().open_stream().feed(event(STREAM[0]))) == []


@pytest.mark.parametrize(
    "events",
    [
        [],
        [STREAM[1]],
        [STREAM[1], STREAM[5]],
        [STREAM[1], "[DONE]"],
        ["[DONE]"],
    ],
    ids=["nothing", "text", "no-done", "no-finish-reason", "done-alone"],
)
def test_a_stream_without_its_end_is_no_reply(events: list[Any], openai: MakeOpenAI) -> None:
    """Without `[DONE]` and a finish reason the reply is cut off, and what it cost is unknown."""
    decoder = openai().open_stream()
    for data in events:
        decoder.feed(event(data))
    with pytest.raises(ProviderUnavailable) as caught:
        decoder.close()
    assert caught.value.billing is Billing.AMBIGUOUS


@pytest.mark.parametrize("data", ["{MARKED-PROMPT", "[]", "{}", '{"choices": {}}', "null", ""])
def test_a_malformed_event_is_unavailability(data: str, openai: MakeOpenAI) -> None:
    """One event that cannot be understood spoils the stream."""
    with pytest.raises(ProviderUnavailable) as caught:
        openai().open_stream().feed(event(data))
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


def test_unknown_events_and_what_follows_the_end_are_ignored(openai: MakeOpenAI) -> None:
    """Events under other names, and any after `[DONE]`, mean nothing."""
    decoder = openai().open_stream()
    assert list(decoder.feed(event("{oops", "ping"))) == []
    decoder.feed(event(STREAM[5]))
    decoder.feed(event("[DONE]"))
    assert list(decoder.feed(event("{oops"))) == []
    decoder.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"type": "server_error", "code": None, "message": "MARKED-PROMPT"}, ProviderUnavailable),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, ProviderRefusesAccount),
        ({"type": "invalid_request_error", "code": "content_filter"}, ProviderRejectsRequest),
    ],
)
def test_an_error_inside_a_reply_with_status_200_is_one(
    error: object, expected: type[ProviderError], openai: MakeOpenAI
) -> None:
    """An error in a stream, or in place of a reply, keeps its class but may have cost."""
    for provoke in (
        lambda: openai().open_stream().feed(event({"error": error})),
        lambda: openai().open_stream().feed(event({"error": error}, "error")),
        lambda: openai().decode(json.dumps({"error": error}).encode()),
    ):
        with pytest.raises(expected) as caught:
            provoke()
        assert caught.value.billing is Billing.AMBIGUOUS
        assert "MARKED" not in str(caught.value)


QUOTA = {"type": "insufficient_quota", "code": "insufficient_quota"}
INVALID = "invalid_request_error"
ERRORS = [
    (
        401,
        {"code": "invalid_api_key", "message": "Incorrect: sk-MARKED-KEY"},
        ProviderRefusesAccount,
    ),
    (403, {"code": "unsupported_country_region_territory"}, ProviderRefusesAccount),
    (402, {}, ProviderRefusesAccount),
    (404, {"code": "model_not_found", "type": INVALID}, ProviderRefusesAccount),
    (404, "<html>", ProviderRefusesAccount),
    (405, {}, ProviderRefusesAccount),
    (307, "", ProviderRefusesAccount),
    (429, QUOTA, ProviderRefusesAccount),
    (429, {"type": "insufficient_quota", "code": None}, ProviderRefusesAccount),
    (400, {"type": INVALID, "code": "billing_hard_limit_reached"}, ProviderRefusesAccount),
    (400, {"type": INVALID, "param": "reasoning_effort"}, ProviderRefusesAccount),
    (429, {"type": "requests", "code": "rate_limit_exceeded"}, ProviderUnavailable),
    (408, {}, ProviderUnavailable),
    (409, {}, ProviderUnavailable),
    (500, {"type": "server_error"}, ProviderUnavailable),
    (502, "<html>MARKED-PROMPT</html>", ProviderUnavailable),
    (503, {}, ProviderUnavailable),
    (504, "", ProviderUnavailable),
    (529, {}, ProviderUnavailable),
    (400, {"type": INVALID, "code": None, "message": "MARKED-PROMPT"}, ProviderRejectsRequest),
    (400, {"type": INVALID, "code": "context_length_exceeded"}, ProviderRejectsRequest),
    (413, "", ProviderRejectsRequest),
    (422, {}, ProviderRejectsRequest),
]


@pytest.mark.parametrize(("status", "error", "expected"), ERRORS)
def test_each_error_has_its_class_and_its_cost(
    status: int, error: object, expected: type[ProviderError], openai: MakeOpenAI
) -> None:
    """Credentials, quota and our configuration, passing trouble, and the caller's fault are told
    apart; a 4xx or 529 costs nothing, another 5xx may have."""
    body = (error if isinstance(error, str) else json.dumps({"error": error})).encode()
    failure: ProviderError = openai().decode_error(status, {"retry-after": "7"}, body)
    assert type(failure) is expected
    assert failure.status == status
    free = status < 500 or status == 529
    assert failure.billing is (Billing.NOTHING if free else Billing.AMBIGUOUS)
    assert "MARKED" not in str(failure)
    if expected is not ProviderRejectsRequest:
        assert failure.retry_after_seconds == 7


def test_a_rejected_request_says_why_to_the_caller_alone(openai: MakeOpenAI) -> None:
    """Code, parameter and the vendor's words are there for the caller, apart from the message."""
    error = {
        "message": "MARKED-PROMPT is too long, sk-MARKED-KEY",
        "type": INVALID,
        "code": "context_length_exceeded",
        "param": "messages[0].content",
    }
    body = json.dumps({"error": error}).encode()
    failure = openai().decode_error(400, {}, body)
    assert isinstance(failure, ProviderRejectsRequest)
    assert failure.code == "context_length_exceeded"
    assert failure.param == "messages[0].content"
    assert failure.detail_for_caller == "MARKED-PROMPT is too long, ***"
    assert str(failure) == "openai answered 400 (context_length_exceeded)"


@pytest.mark.parametrize("place", ["code", "type", "param"])
def test_prose_never_passes_for_a_code(place: str, openai: MakeOpenAI) -> None:
    """What is no machine's word is not repeated, wherever it stands."""
    body = json.dumps({"error": {place: "sk-MARKED-KEY said MARKED-PROMPT"}}).encode()
    failure = openai().decode_error(400, {}, body)
    assert isinstance(failure, ProviderRejectsRequest)
    assert "MARKED" not in f"{failure} {failure.code} {failure.param}"


def test_the_default_model_is_current_and_priced(openai: MakeOpenAI) -> None:
    """The price list knows the default model, and the SDK does not call it deprecated."""
    from genai_prices.data_snapshot import get_snapshot
    from openai.types.shared import chat_model

    adapter = openai()
    _, model = get_snapshot().find_provider_model(adapter.model, None, adapter.price_list_id, None)
    assert model.id == adapter.model
    source = inspect.getsource(chat_model)
    listed, _, deprecated = source.partition('"""Deprecated values')
    assert f'"{adapter.model}"' in listed and f'"{adapter.model}"' not in deprecated


def test_every_setting_is_described(openai: MakeOpenAI) -> None:
    """`.env.example` is written from the descriptions."""
    fields = openai().settings_type.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
