"""Anthropic's wire format, both ways, checked against the types of Anthropic's own SDK."""

import json
import typing
from dataclasses import replace
from typing import Any

import pytest
from anthropic import Anthropic as VendorClient
from anthropic import APIConnectionError
from anthropic.types import Message as VendorMessage
from anthropic.types import RawMessageStreamEvent
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from anthropic.types.model_param import ModelParam
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

from .conftest import MakeAnthropic

HELLO = (Message("user", (Text("Hello"),)),)
SAID_HELLO = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
WEATHER = Tool("weather", "Tells it", SCHEMA, strict=True)
ALWAYS: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 100,
    "thinking": {"type": "disabled"},
}


def user(*texts: str) -> Message:
    return Message("user", tuple(Text(text) for text in texts))


REQUESTS: dict[str, tuple[ChatRequest, dict[str, Any]]] = {
    "plain": (ChatRequest(HELLO), {"messages": SAID_HELLO}),
    "parameters": (
        ChatRequest(
            HELLO,
            temperature=1,
            stop=("END", "STOP"),
            response_format=ResponseFormat("json_schema", {"name": "a", "schema": SCHEMA}),
        ),
        {
            "messages": SAID_HELLO,
            "stop_sequences": ["END", "STOP"],
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
    ),
    "turns": (
        ChatRequest(
            (
                Message("system", (Text("Be brief."),)),
                user("One"),
                user("Two", " "),
                Message("assistant", (Text("Yes?"),)),
                Message("assistant", (Text("Well?"),)),
                Message("system", (Text("Be kind."),)),
                user(""),
                user("Three"),
            )
        ),
        {
            "system": "Be brief.\n\nBe kind.",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "Yes?"},
                        {"type": "text", "text": "Well?"},
                    ],
                },
                {"role": "user", "content": [{"type": "text", "text": "Three"}]},
            ],
        },
    ),
    "images": (
        ChatRequest(
            (
                Message(
                    "user",
                    (
                        Image("https://example.com/a.png", "high"),
                        Image("data:image/png;base64,AAAA"),
                    ),
                ),
            )
        ),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "url", "url": "https://example.com/a.png"},
                        },
                        {
                            "type": "image",
                            "source": {
                                "type": "base64",
                                "media_type": "image/png",
                                "data": "AAAA",
                            },
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
                Message(
                    "assistant",
                    (Text("I look."),),
                    tool_calls=(
                        ToolCall("call_1", "weather", '{"a":1}'),
                        ToolCall("call_2", "noop", ""),
                    ),
                ),
                Message("tool", (Text("Sunny"),), name="weather", tool_call_id="call_1"),
                Message("tool", (Text(""),), tool_call_id="call_2"),
                user("And?"),
            ),
            tools=(WEATHER, Tool("noop")),
            tool_choice="tool:weather",
            parallel_tool_calls=False,
        ),
        {
            "messages": [
                *SAID_HELLO,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"a": 1}},
                        {"type": "tool_use", "id": "call_2", "name": "noop", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "call_1",
                            "content": [{"type": "text", "text": "Sunny"}],
                        },
                        {"type": "tool_result", "tool_use_id": "call_2", "content": []},
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
            "tools": [
                {
                    "name": "weather",
                    "description": "Tells it",
                    "input_schema": SCHEMA,
                    "strict": True,
                },
                {"name": "noop", "input_schema": {"type": "object"}},
            ],
            "tool_choice": {
                "type": "tool",
                "name": "weather",
                "disable_parallel_tool_use": True,
            },
        },
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_translated_whole(name: str, stream: bool, anthropic: MakeAnthropic) -> None:
    """Every parameter has its place in Anthropic's format, which the SDK's types accept."""
    request, expected = REQUESTS[name]
    adapter: ProviderAdapter = anthropic()
    assert adapter.unsupported(request) is None
    call = adapter.encode(replace(request, max_output_tokens=100), stream=stream)
    body = json.loads(call.body)
    if stream:
        expected = {**expected, "stream": True}
    assert body == {**ALWAYS, **expected}
    params = MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming
    TypeAdapter(params).validate_python(body)
    assert set(body) <= set(typing.get_type_hints(params))
    assert call.path == "/v1/messages"
    assert call.headers == {
        "x-api-key": "sk-MARKED-KEY",
        "anthropic-version": "2026-10-21",
        "content-type": "application/json",
    }


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("tool:weather", None, {"type": "tool", "name": "weather"}),
    ],
)
def test_tool_choices_are_translated(
    choice: str | None, parallel: bool | None, expected: object, anthropic: MakeAnthropic
) -> None:
    """Each choice has its form, in which calling one at a time is a part of the choice."""
    request = ChatRequest(
        HELLO,
        max_output_tokens=1,
        tools=(WEATHER,),
        tool_choice=choice,
        parallel_tool_calls=parallel,
    )
    body = json.loads(anthropic().encode(request, stream=False).body)
    assert body.get("tool_choice") == expected


def test_a_choice_among_no_tools_is_left_out(anthropic: MakeAnthropic) -> None:
    """Without tools `auto`, `none` and `parallel_tool_calls` say nothing, and are not accepted."""
    request = ChatRequest(HELLO, max_output_tokens=1, tool_choice="none", parallel_tool_calls=False)
    assert anthropic().unsupported(request) is None
    assert "tool_choice" not in json.loads(anthropic().encode(request, stream=False).body)


BROKEN_CALL = Message("assistant", tool_calls=(ToolCall("call_1", "weather", "[1]"),))


@pytest.mark.parametrize(
    ("request_", "parameter"),
    [
        (ChatRequest(HELLO, seed=0), "seed"),
        (ChatRequest(HELLO, temperature=0.5), "temperature"),
        (ChatRequest(HELLO, temperature=1.5), "temperature"),
        (ChatRequest(HELLO, top_p=1), "top_p"),
        (ChatRequest(HELLO, stop=("END", "\n")), "stop"),
        (ChatRequest(HELLO, response_format=ResponseFormat("json_object")), "response_format"),
        (ChatRequest(HELLO, response_format=ResponseFormat("json_schema")), "response_format"),
        (ChatRequest(HELLO, tool_choice="required"), "tool_choice"),
        (ChatRequest((Message("user", (Text("Hi"),), name="ann"),)), "name"),
        (ChatRequest((*HELLO, BROKEN_CALL, *HELLO)), "tool_calls"),
        (ChatRequest((Message("user", (Image("https://x", "low"),)),)), "detail"),
        (ChatRequest((Message("user", (Image("http://x"),)),)), "image_url"),
        (ChatRequest((Message("user", (Image("data:image/tiff;base64,AA"),)),)), "image_url"),
        (ChatRequest((Message("user", (Image("data:image/png,x"),)),)), "image_url"),
        (ChatRequest((Message("system", (Image("https://x"),)), *HELLO)), "image_url"),
        (ChatRequest((Message("system", (Text("Be brief."),)),)), "messages"),
        (ChatRequest((user(" "),)), "messages"),
        (ChatRequest((*HELLO, Message("assistant", (Text("I"),)))), "messages"),
    ],
)
def test_what_anthropic_cannot_do_is_named(
    request_: ChatRequest, parameter: str | None, anthropic: MakeAnthropic
) -> None:
    """What would be refused, or would have to be dropped, is named as OpenAI's format names it."""
    assert anthropic().unsupported(request_) == parameter


@pytest.mark.parametrize(
    ("request_", "parameter"),
    [
        (ChatRequest(HELLO, temperature=0.5), None),
        (ChatRequest(HELLO, top_p=0.5), None),
        (ChatRequest(HELLO, temperature=1.5), "temperature"),
        (ChatRequest(HELLO, temperature=0.5, top_p=0.5), "top_p"),
    ],
)
def test_earlier_models_take_sampling_parameters(
    request_: ChatRequest, parameter: str | None, anthropic: MakeAnthropic
) -> None:
    """The models that know them get them, under the API version that allows them."""
    adapter = anthropic(model="claude-sonnet-4-6")
    assert adapter.unsupported(request_) == parameter
    if parameter is None:
        call = adapter.encode(replace(request_, max_output_tokens=1), stream=False)
        sampling = {"temperature": request_.temperature, "top_p": request_.top_p}
        body = json.loads(call.body)
        assert {name: body.get(name) for name in sampling} == sampling
        assert call.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("thinking", ["disabled", "between_tools", "adaptive"])
def test_thinking_is_a_setting(thinking: str, anthropic: MakeAnthropic) -> None:
    """Thinking is sent as set, and a broken stream of a model that thinks may cost more."""
    adapter = anthropic(thinking=thinking)
    call = adapter.encode(ChatRequest(HELLO, max_output_tokens=1), stream=False)
    assert json.loads(call.body)["thinking"] == {"type": thinking}
    assert adapter.thinks_out_of_sight is (thinking != "disabled")


USAGE = {
    "input_tokens": 10,
    "output_tokens": 8,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 4},
}


def reply_of(*content: object, **rest: object) -> dict[str, object]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": content or [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
        **rest,
    }


REPLY = ChatReply(
    id="msg_1",
    model="claude-haiku-5-5",
    text="Hi",
    finish_reason="stop",
    usage=TokenUsage(18, 8, 5, 3, 4),
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (reply_of(), REPLY),
        (
            reply_of(
                {"type": "thinking", "thinking": "", "signature": "x"},
                {"type": "text", "text": "Hi ", "citations": None},
                {"type": "text", "text": "there", "citations": None},
            ),
            replace(REPLY, text="Hi there"),
        ),
        (
            reply_of(
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"a": "ü"}},
                {"type": "tool_use", "id": "toolu_2", "name": "noop", "input": {}},
                stop_reason="tool_use",
            ),
            replace(
                REPLY,
                text="",
                finish_reason="tool_calls",
                tool_calls=(
                    ToolCall("toolu_1", "weather", '{"a":"ü"}'),
                    ToolCall("toolu_2", "noop", "{}"),
                ),
            ),
        ),
        (reply_of(stop_reason="max_tokens"), replace(REPLY, finish_reason="length")),
        (reply_of(stop_reason="stop_sequence", stop_sequence="E"), REPLY),
        (
            reply_of(stop_reason="model_context_window_exceeded"),
            replace(REPLY, finish_reason="length"),
        ),
        (
            reply_of(
                stop_reason="refusal",
                content=[],
                stop_details={"type": "refusal", "category": "cyber", "explanation": "No."},
            ),
            replace(REPLY, text="", finish_reason="content_filter", refusal="No."),
        ),
        (
            reply_of(stop_reason="refusal", content=[]),
            replace(REPLY, text="", finish_reason="content_filter"),
        ),
    ],
)
def test_a_reply_is_translated_whole(
    body: object, expected: object, anthropic: MakeAnthropic
) -> None:
    """Text, refusal, tool calls, finish reason, usage, id and model arrive; thoughts do not."""
    VendorMessage.model_validate(body)
    assert anthropic().decode(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({"input_tokens": 5}, None),
        ({"input_tokens": 5, "output_tokens": True}, None),
        (
            {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": None},
            TokenUsage(5, 1),
        ),
    ],
)
def test_a_usage_that_cannot_be_right_is_none(
    usage: object, expected: object, anthropic: MakeAnthropic
) -> None:
    """A missing or broken usage does not lose the reply."""
    assert anthropic().decode(json.dumps(reply_of(usage=usage)).encode()).usage == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>MARKED-PROMPT</html>",
        b"[]",
        b"{}",
        b'{"content": null, "stop_reason": "end_turn"}',
        b'{"content": [], "stop_reason": null}',
        b'{"content": {}, "stop_reason": "end_turn"}',
        b'{"content": [null], "stop_reason": "end_turn"}',
        b'{"content": [{"type": "text", "text": 5}], "stop_reason": "end_turn"}',
        b'{"content": [{"type": "tool_use", "input": []}], "stop_reason": "end_turn"}',
    ],
)
def test_a_body_that_is_no_reply_is_unavailability(body: bytes, anthropic: MakeAnthropic) -> None:
    """HTML, other JSON and missing parts are ambiguous failures without a word of the body."""
    with pytest.raises(ProviderUnavailable) as caught:
        anthropic().decode(body)
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


def event(**data: object) -> ServerSentEvent:
    return ServerSentEvent(str(data["type"]), json.dumps(data))


def block(index: int, **content: object) -> ServerSentEvent:
    return event(type="content_block_start", index=index, content_block=content)


def delta(index: int, **content: object) -> ServerSentEvent:
    return event(type="content_block_delta", index=index, delta=content)


def stop(index: int) -> ServerSentEvent:
    return event(type="content_block_stop", index=index)


START = event(
    type="message_start",
    message=reply_of(content=[], stop_reason=None, usage={**USAGE, "output_tokens": 1}),
)
END = [
    event(
        type="message_delta",
        delta={"stop_reason": "tool_use", "stop_sequence": None},
        usage={"output_tokens": 8, "input_tokens": None},
    ),
    event(type="message_stop"),
]
STREAM = [
    START,
    block(0, type="thinking", thinking="", signature=""),
    delta(0, type="thinking_delta", thinking="MARKED"),
    delta(0, type="signature_delta", signature="x"),
    stop(0),
    event(type="ping"),
    block(1, type="text", text=""),
    delta(1, type="text_delta", text="Hi"),
    delta(1, type="text_delta", text=" there"),
    stop(1),
    block(2, type="tool_use", id="toolu_1", name="weather", input={}),
    delta(2, type="input_json_delta", partial_json=""),
    delta(2, type="input_json_delta", partial_json='{"a":'),
    delta(2, type="input_json_delta", partial_json="1}"),
    stop(2),
    block(3, type="tool_use", id="toolu_2", name="noop", input={}),
    stop(3),
    *END,
]


def test_a_stream_is_translated_whole(anthropic: MakeAnthropic) -> None:
    """Chunks carry text, pieces of tool calls, the end and the whole usage; thoughts stay out."""
    known = TypeAdapter(RawMessageStreamEvent)
    for sent in STREAM:
        if sent.event != "ping":
            known.validate_json(sent.data)
    decoder = anthropic().open_stream()
    chunks = [chunk for sent in STREAM for chunk in decoder.feed(sent)]
    decoder.close()
    assert chunks == [
        Chunk(text="Hi", id="msg_1", model="claude-haiku-5-5"),
        Chunk(text=" there"),
        Chunk(tool_calls=(ToolCallDelta(0, "toolu_1", "weather"),)),
        Chunk(tool_calls=(ToolCallDelta(0, arguments='{"a":'),)),
        Chunk(tool_calls=(ToolCallDelta(0, arguments="1}"),)),
        Chunk(tool_calls=(ToolCallDelta(1, "toolu_2", "noop"),)),
        Chunk(tool_calls=(ToolCallDelta(1, arguments="{}"),)),
        Chunk(finish_reason="tool_calls", usage=TokenUsage(18, 8, 5, 3, 4)),
    ]
    builder = ReplyBuilder()
    for chunk in chunks:
        builder.add(chunk)
    assert builder.reply() == replace(
        REPLY,
        text="Hi there",
        finish_reason="tool_calls",
        tool_calls=(ToolCall("toolu_1", "weather", '{"a":1}'), ToolCall("toolu_2", "noop", "{}")),
    )


def test_a_stream_that_breaks_has_no_usage_yet(anthropic: MakeAnthropic) -> None:
    """The usage at the start counts one token of output: nobody is to be billed by that."""
    decoder = anthropic().open_stream()
    chunks = [chunk for sent in STREAM[:9] for chunk in decoder.feed(sent)]
    assert [chunk.usage for chunk in chunks] == [None, None]


def test_a_streamed_refusal_arrives(anthropic: MakeAnthropic) -> None:
    """A refusal comes with the end, and its explanation with it."""
    decoder = anthropic().open_stream()
    decoder.feed(START)
    details = {"type": "refusal", "category": None, "explanation": "No."}
    (chunk,) = decoder.feed(
        event(
            type="message_delta",
            delta={"stop_reason": "refusal", "stop_details": details},
            usage={"output_tokens": 2},
        )
    )
    assert (chunk.finish_reason, chunk.refusal) == ("content_filter", "No.")


def test_the_first_event_is_no_chunk(anthropic: MakeAnthropic) -> None:
    """A stream begins with the first thing that is said: until then another provider may answer."""
    assert list(anthropic().open_stream().feed(START)) == []


@pytest.mark.parametrize(
    "events",
    [[], STREAM[:1], STREAM[:8], STREAM[:-1], [START, END[1]]],
    ids=["nothing", "start", "text", "no-stop", "no-stop-reason"],
)
def test_a_stream_without_its_end_is_no_reply(
    events: list[ServerSentEvent], anthropic: MakeAnthropic
) -> None:
    """Without `message_stop` and a stop reason the reply is cut off, at an unknown cost."""
    decoder = anthropic().open_stream()
    for sent in events:
        decoder.feed(sent)
    with pytest.raises(ProviderUnavailable) as caught:
        decoder.close()
    assert caught.value.billing is Billing.AMBIGUOUS


@pytest.mark.parametrize(
    "sent",
    [
        ServerSentEvent("content_block_delta", "{MARKED-PROMPT"),
        ServerSentEvent("content_block_delta", "[]"),
        ServerSentEvent("content_block_delta", "{}"),
        ServerSentEvent("content_block_start", '{"index": 0, "content_block": []}'),
        ServerSentEvent("message_start", '{"message": null}'),
        ServerSentEvent("message_delta", '{"delta": "x"}'),
        delta(0, type="text_delta", text=5),
        delta(-1, type="input_json_delta", partial_json="x"),
    ],
)
def test_a_malformed_event_is_unavailability(
    sent: ServerSentEvent, anthropic: MakeAnthropic
) -> None:
    """One event that cannot be understood spoils the stream."""
    with pytest.raises(ProviderUnavailable) as caught:
        anthropic().open_stream().feed(sent)
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


def test_unknown_events_blocks_and_deltas_are_ignored(anthropic: MakeAnthropic) -> None:
    """New kinds may come at any time, says Anthropic, and mean nothing to those who know none."""
    decoder = anthropic().open_stream()
    for sent in (
        ServerSentEvent("ping", "{oops"),
        ServerSentEvent("novelty", "{oops"),
        ServerSentEvent("message", "{oops"),
        block(0, type="novelty"),
        delta(0, type="novelty_delta"),
        delta(0, type="input_json_delta", partial_json="{}"),
        stop(0),
        *END,
        ServerSentEvent("content_block_delta", "{oops"),
    ):
        decoder.feed(sent)
    decoder.close()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ProviderUnavailable),
        ("api_error", ProviderUnavailable),
        ("novel_error", ProviderUnavailable),
        ("rate_limit_error", ProviderUnavailable),
        ("billing_error", ProviderRefusesAccount),
        ("authentication_error", ProviderRefusesAccount),
        ("invalid_request_error", ProviderRejectsRequest),
    ],
)
def test_an_error_inside_a_reply_with_status_200_is_one(
    kind: str, expected: type[ProviderError], anthropic: MakeAnthropic
) -> None:
    """An error event, or an error in place of a reply, keeps its class but may have cost."""
    error = {"type": kind, "message": "MARKED-PROMPT"}
    for provoke in (
        lambda: anthropic().open_stream().feed(event(type="error", error=error)),
        lambda: anthropic().decode(json.dumps({"type": "error", "error": error}).encode()),
    ):
        with pytest.raises(expected) as caught:
            provoke()
        assert caught.value.billing is Billing.AMBIGUOUS
        assert str(caught.value) == f"anthropic broke off its reply with an error ({kind})"


INVALID = "invalid_request_error"


def of_code(kind: str, code: str) -> dict[str, object]:
    return {"type": kind, "message": "MARKED-PROMPT", "details": {"error_code": code}}


ERRORS = [
    (401, {"type": "authentication_error", "message": "sk-MARKED-KEY"}, ProviderRefusesAccount),
    (402, {"type": "billing_error"}, ProviderRefusesAccount),
    (403, {"type": "permission_error"}, ProviderRefusesAccount),
    (404, {"type": "not_found_error", "message": "model: x"}, ProviderRefusesAccount),
    (404, "<html>", ProviderRefusesAccount),
    (
        400,
        {"type": INVALID, "message": "Your credit balance is too low to access the Anthropic API."},
        ProviderRefusesAccount,
    ),
    (
        400,
        {"type": INVALID, "message": "You have reached your specified API usage limits."},
        ProviderRefusesAccount,
    ),
    (
        400,
        {"type": INVALID, "message": "tools.0.name: 'Your credit balance' is no name"},
        ProviderRejectsRequest,
    ),
    (
        400,
        {"type": INVALID, "message": '"thinking.type.disabled" is not supported for this model.'},
        ProviderRefusesAccount,
    ),
    (400, of_code(INVALID, "organization_on_hold"), ProviderRefusesAccount),
    (429, of_code("rate_limit_error", "enforced_spend_limit_reached"), ProviderRefusesAccount),
    (429, of_code("rate_limit_error", "ramp_limit_exceeded"), ProviderUnavailable),
    (429, {"type": "rate_limit_error"}, ProviderUnavailable),
    (408, {}, ProviderUnavailable),
    (409, {"type": "conflict_error"}, ProviderUnavailable),
    (500, {"type": "api_error"}, ProviderUnavailable),
    (504, {"type": "timeout_error"}, ProviderUnavailable),
    (529, {"type": "overloaded_error"}, ProviderUnavailable),
    (502, "<html>MARKED-PROMPT</html>", ProviderUnavailable),
    (400, {"type": INVALID, "message": "MARKED-PROMPT"}, ProviderRejectsRequest),
    (413, {"type": "request_too_large"}, ProviderRejectsRequest),
    (413, "", ProviderRejectsRequest),
    (400, of_code(INVALID, "image_dimensions_too_large"), ProviderRejectsRequest),
]


@pytest.mark.parametrize(("status", "error", "expected"), ERRORS)
def test_each_error_has_its_class_and_its_cost(
    status: int, error: object, expected: type[ProviderError], anthropic: MakeAnthropic
) -> None:
    """Credentials, credit and our configuration, passing trouble, and the caller's fault are told
    apart; a 4xx or 529 costs nothing, another 5xx may have."""
    said = error if isinstance(error, str) else json.dumps({"type": "error", "error": error})
    failure: ProviderError = anthropic().decode_error(status, {"retry-after": "7"}, said.encode())
    assert type(failure) is expected
    assert failure.status == status
    free = status < 500 or status == 529
    assert failure.billing is (Billing.NOTHING if free else Billing.AMBIGUOUS)
    assert "MARKED" not in str(failure)
    if expected is not ProviderRejectsRequest:
        assert failure.retry_after_seconds == 7


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            {"type": INVALID, "message": "prompt is too long: 9 tokens > 8 maximum"},
            "context_length_exceeded",
        ),
        (
            {"type": INVALID, "message": "Output blocked by content filtering policy"},
            "content_policy_violation",
        ),
        (of_code(INVALID, "image_dimensions_too_large"), "image_dimensions_too_large"),
        ({"type": INVALID, "message": "stop: bad sk-MARKED-KEY"}, INVALID),
    ],
)
def test_a_rejected_request_says_why_to_the_caller_alone(
    error: dict[str, object], code: str, anthropic: MakeAnthropic
) -> None:
    """Code and words are there for the caller, apart from the message, and without the key."""
    body = json.dumps({"type": "error", "error": error}).encode()
    failure = anthropic().decode_error(400, {}, body)
    assert isinstance(failure, ProviderRejectsRequest)
    assert failure.code == code
    assert failure.detail_for_caller == str(error["message"]).replace("sk-MARKED-KEY", "***")
    assert str(failure) == f"anthropic answered 400 ({code})"


def test_the_default_model_is_current_and_priced(anthropic: MakeAnthropic) -> None:
    """The price list knows the default model, and the SDK does not call it deprecated."""
    from genai_prices.data_snapshot import get_snapshot

    adapter = anthropic()
    _, model = get_snapshot().find_provider_model(adapter.model, None, adapter.price_list_id, None)
    assert model.id == adapter.model
    assert adapter.model in typing.get_args(typing.get_args(ModelParam)[0])
    # It warns of a deprecated model before it sends anything, and a warning is an error here.
    sdk = VendorClient(api_key="-", base_url="http://127.0.0.1:1", max_retries=0)
    with sdk, pytest.raises(APIConnectionError):
        sdk.messages.create(
            model=adapter.model, max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )


def test_every_setting_is_described(anthropic: MakeAnthropic) -> None:
    """`.env.example` is written from the descriptions."""
    fields = anthropic().settings_type.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
