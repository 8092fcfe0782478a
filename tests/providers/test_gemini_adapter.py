"""Gemini's wire format, both ways, checked against the types of Google's own SDK."""

import json
import typing
from dataclasses import replace
from typing import Any

import pytest
from google.genai import types
from google.genai.interactions import Model
from pydantic import TypeAdapter

from app.api.tool_call_ids import signed_id, split_id
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

from .conftest import MakeGemini

HELLO = (Message("user", (Text("Hello"),)),)
SAID_HELLO = [{"role": "user", "parts": [{"text": "Hello"}]}]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
WEATHER = Tool("weather", "Tells it", SCHEMA, strict=True)
ALWAYS = {"maxOutputTokens": 100, "thinkingConfig": {"thinkingLevel": "MINIMAL"}}
NO_SIGNATURE = "skip_thought_signature_validator"
OLDER = "gemini-2.5-flash"
# What the SDK has for each member of a request's body.
MEMBERS: dict[str, TypeAdapter[Any]] = {
    "contents": TypeAdapter(list[types.Content]),
    "systemInstruction": TypeAdapter(types.Content),
    "tools": TypeAdapter(list[types.Tool]),
    "toolConfig": TypeAdapter(types.ToolConfig),
    "generationConfig": TypeAdapter(types.GenerationConfig),
}


def user(*texts: str) -> Message:
    return Message("user", tuple(Text(text) for text in texts))


REQUESTS: dict[str, tuple[ChatRequest, dict[str, Any]]] = {
    "plain": (ChatRequest(HELLO), {"contents": SAID_HELLO, "generationConfig": ALWAYS}),
    "parameters": (
        ChatRequest(
            HELLO,
            temperature=1,
            stop=("END", "\n"),
            seed=-7,
            response_format=ResponseFormat("json_schema", {"name": "a", "schema": SCHEMA}),
        ),
        {
            "contents": SAID_HELLO,
            "generationConfig": {
                **ALWAYS,
                "stopSequences": ["END", "\n"],
                "seed": -7,
                "responseMimeType": "application/json",
                "responseJsonSchema": SCHEMA,
            },
        },
    ),
    "any-json": (
        ChatRequest(HELLO, response_format=ResponseFormat("json_object")),
        {
            "contents": SAID_HELLO,
            "generationConfig": {**ALWAYS, "responseMimeType": "application/json"},
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
            "systemInstruction": {"parts": [{"text": "Be brief.\n\nBe kind."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "One"}, {"text": "Two"}]},
                {"role": "model", "parts": [{"text": "Yes?"}, {"text": "Well?"}]},
                {"role": "user", "parts": [{"text": "Three"}]},
            ],
            "generationConfig": ALWAYS,
        },
    ),
    "images": (
        ChatRequest(
            (
                Message(
                    "user",
                    (
                        Image("https://example.com/a.PNG?size=2", "high"),
                        Image("data:image/webp;base64,AAAA", "low"),
                    ),
                ),
            )
        ),
        {
            "contents": [
                {
                    "role": "user",
                    "parts": [
                        {
                            "fileData": {
                                "fileUri": "https://example.com/a.PNG?size=2",
                                "mimeType": "image/png",
                            },
                            "mediaResolution": {"level": "MEDIA_RESOLUTION_HIGH"},
                        },
                        {
                            "inlineData": {"mimeType": "image/webp", "data": "AAAA"},
                            "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"},
                        },
                    ],
                }
            ],
            "generationConfig": ALWAYS,
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
                        ToolCall("call_1", "weather", '{"a":1}', "_-8"),
                        ToolCall("call_2", "noop", ""),
                    ),
                ),
                Message("tool", (Text("Sunny"),), name="weather", tool_call_id="call_1"),
                Message("tool", (Text(""),), tool_call_id="call_2"),
                user("And?"),
                Message("assistant", tool_calls=(ToolCall("call_3", "noop", "{}"),)),
                Message("tool", (Text("Nothing"),), tool_call_id="call_3"),
            ),
            tools=(WEATHER, Tool("noop")),
            tool_choice="tool:weather",
            parallel_tool_calls=True,
        ),
        {
            "contents": [
                *SAID_HELLO,
                {
                    "role": "model",
                    "parts": [
                        {"text": "I look."},
                        {
                            "functionCall": {"id": "call_1", "name": "weather", "args": {"a": 1}},
                            "thoughtSignature": "/+8=",
                        },
                        {"functionCall": {"id": "call_2", "name": "noop", "args": {}}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {
                            "functionResponse": {
                                "id": "call_1",
                                "name": "weather",
                                "response": {"output": "Sunny"},
                            }
                        },
                        {
                            "functionResponse": {
                                "id": "call_2",
                                "name": "noop",
                                "response": {"output": ""},
                            }
                        },
                        {"text": "And?"},
                    ],
                },
                {
                    "role": "model",
                    "parts": [
                        {
                            "functionCall": {"id": "call_3", "name": "noop", "args": {}},
                            "thoughtSignature": NO_SIGNATURE,
                        }
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {
                            "functionResponse": {
                                "id": "call_3",
                                "name": "noop",
                                "response": {"output": "Nothing"},
                            }
                        }
                    ],
                },
            ],
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": "weather",
                            "description": "Tells it",
                            "parametersJsonSchema": SCHEMA,
                        },
                        {"name": "noop"},
                    ]
                }
            ],
            "toolConfig": {
                "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}
            },
            "generationConfig": ALWAYS,
        },
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_translated_whole(name: str, stream: bool, gemini: MakeGemini) -> None:
    """Every parameter has its place in Gemini's format, which the SDK's types accept; the key is
    in a header and nowhere else."""
    request, expected = REQUESTS[name]
    adapter: ProviderAdapter = gemini()
    assert adapter.unsupported(request) is None
    call = adapter.encode(replace(request, max_output_tokens=100), stream=stream)
    body = json.loads(call.body)
    assert body == expected
    for member, value in body.items():
        MEMBERS[member].validate_json(json.dumps(value))
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert call.path == f"/v1beta/models/gemini-3.5-flash-lite:{method}"
    assert call.headers == {"x-goog-api-key": "sk-MARKED-KEY", "content-type": "application/json"}
    assert b"MARKED" not in call.body


def test_a_models_name_stays_one_part_of_the_path(gemini: MakeGemini) -> None:
    """Whatever the setting holds, it names a model and no other method, query or place."""
    adapter = gemini(model="../x?key=1#:y")
    call = adapter.encode(ChatRequest(HELLO, max_output_tokens=1), stream=False)
    assert call.path == "/v1beta/models/..%2Fx%3Fkey%3D1%23%3Ay:generateContent"


@pytest.mark.parametrize(
    ("choice", "strict", "expected"),
    [
        (None, None, None),
        (None, True, {"mode": "VALIDATED"}),
        ("auto", False, {"mode": "AUTO"}),
        ("auto", True, {"mode": "VALIDATED"}),
        ("none", True, {"mode": "NONE"}),
        ("required", None, {"mode": "ANY"}),
        ("tool:weather", True, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_tool_choices_are_translated(
    choice: str | None, strict: bool | None, expected: object, gemini: MakeGemini
) -> None:
    """Each choice has its mode; where a tool is strict, calls are held to the schemas."""
    tools = (replace(WEATHER, strict=strict),)
    request = ChatRequest(HELLO, max_output_tokens=1, tools=tools, tool_choice=choice)
    body = json.loads(gemini().encode(request, stream=False).body)
    assert body.get("toolConfig", {}).get("functionCallingConfig") == expected


def test_a_choice_among_no_tools_is_left_out(gemini: MakeGemini) -> None:
    """Without tools `auto`, `none` and `parallel_tool_calls` say nothing."""
    request = ChatRequest(HELLO, max_output_tokens=1, tool_choice="none", parallel_tool_calls=False)
    assert gemini().unsupported(request) is None
    assert "toolConfig" not in json.loads(gemini().encode(request, stream=False).body)


BROKEN_CALL = Message("assistant", tool_calls=(ToolCall("call_1", "weather", "[1]"),))


def with_image(url: str, role: typing.Literal["user", "system"] = "user") -> ChatRequest:
    return ChatRequest((Message(role, (Image(url),)), *HELLO))


@pytest.mark.parametrize(
    ("request_", "parameter"),
    [
        (ChatRequest(HELLO, temperature=0.5), "temperature"),
        (ChatRequest(HELLO, top_p=1), "top_p"),
        (ChatRequest(HELLO, stop=tuple("abcdef")), "stop"),
        (ChatRequest(HELLO, stop=("",)), "stop"),
        (ChatRequest(HELLO, seed=2**31), "seed"),
        (ChatRequest(HELLO, seed=-(2**31) - 1), "seed"),
        (ChatRequest(HELLO, tool_choice="required"), "tool_choice"),
        (ChatRequest(HELLO, tools=(WEATHER,), parallel_tool_calls=False), "parallel_tool_calls"),
        (ChatRequest((Message("user", (Text("Hi"),), name="ann"),)), "name"),
        (ChatRequest((*HELLO, BROKEN_CALL, *HELLO)), "tool_calls"),
        (with_image("http://example.com/a.png"), "image_url"),
        (with_image("https://example.com/a"), "image_url"),
        (with_image("https://example.com/a.mp4"), "image_url"),
        (with_image("https://example.com/a.pdf?as=.png"), "image_url"),
        (with_image("https://www.youtube.com/a.png"), "image_url"),
        (with_image("https://youtu.be./a.png"), "image_url"),
        (with_image("https://generativelanguage.googleapis.com/v1beta/files/a.png"), "image_url"),
        (with_image("https://[/a.png"), "image_url"),
        (with_image("data:image/gif;base64,AA"), "image_url"),
        (with_image("data:image/png,x"), "image_url"),
        (with_image("https://example.com/a.png", "system"), "image_url"),
        (ChatRequest((Message("system", (Text("Be brief."),)),)), "messages"),
        (ChatRequest((user(" "),)), "messages"),
        (ChatRequest((*HELLO, Message("assistant", (Text("I"),)))), "messages"),
    ],
)
def test_what_gemini_cannot_do_is_named(
    request_: ChatRequest, parameter: str, gemini: MakeGemini
) -> None:
    """What would be refused, or would have to be dropped, is named as OpenAI's format names it."""
    assert gemini().unsupported(request_) == parameter


@pytest.mark.parametrize(
    "model", [OLDER, "gemini-3-flash-preview", "gemini-3.1-flash-lite", "gemini-3.5-flash"]
)
def test_earlier_models_take_sampling_parameters(model: str, gemini: MakeGemini) -> None:
    """The models that do not ignore them get them."""
    request = ChatRequest(HELLO, max_output_tokens=1, temperature=0.5, top_p=0.5)
    adapter = gemini(model=model)
    assert adapter.unsupported(request) is None
    config = json.loads(adapter.encode(request, stream=False).body)["generationConfig"]
    assert (config["temperature"], config["topP"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    "model", ["gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-4-argon", "gemini-flash-latest"]
)
def test_later_models_ignore_sampling_parameters(model: str, gemini: MakeGemini) -> None:
    """So they are not sent, and their default is all that is taken."""
    assert gemini(model=model).unsupported(ChatRequest(HELLO, temperature=0.5)) == "temperature"
    request = ChatRequest(HELLO, max_output_tokens=1, temperature=1)
    assert gemini(model=model).unsupported(request) is None
    assert b"temperature" not in gemini(model=model).encode(request, stream=False).body


def test_models_before_3_have_limits_of_their_own(gemini: MakeGemini) -> None:
    """JSON or tools, images at one resolution, and no signature where there never was one."""
    adapter = gemini(model=OLDER, thinking="off")
    json_and_tools = ChatRequest(
        HELLO, tools=(WEATHER,), response_format=ResponseFormat("json_object")
    )
    assert adapter.unsupported(json_and_tools) == "response_format"
    assert gemini().unsupported(json_and_tools) is None
    low = ChatRequest((Message("user", (Image("data:image/png;base64,AAAA", "low"),)),))
    assert adapter.unsupported(low) == "detail"
    assert gemini().unsupported(low) is None
    call = Message("assistant", tool_calls=(ToolCall("call_1", "weather", "{}"),))
    result = Message("tool", (Text("Rain"),), tool_call_id="call_1")
    request = ChatRequest((*HELLO, call, result), max_output_tokens=1)
    assert b"thoughtSignature" not in adapter.encode(request, stream=False).body
    assert adapter.image_tokens > gemini().image_tokens > 0


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("off", {"thinkingBudget": 0}),
        ("minimal", {"thinkingLevel": "MINIMAL"}),
        ("low", {"thinkingLevel": "LOW"}),
        ("medium", {"thinkingLevel": "MEDIUM"}),
        ("high", {"thinkingLevel": "HIGH"}),
        ("xhigh", {"thinkingLevel": "XHIGH"}),
        ("unset", None),
    ],
)
def test_thinking_is_a_setting(thinking: str, expected: object, gemini: MakeGemini) -> None:
    """Thinking is sent as set, and a broken stream of a model that may think may cost more."""
    adapter = gemini(thinking=thinking)
    call = adapter.encode(ChatRequest(HELLO, max_output_tokens=1), stream=False)
    config = json.loads(call.body)["generationConfig"]
    assert config.get("thinkingConfig") == expected
    level = (config.get("thinkingConfig") or {}).get("thinkingLevel")
    assert level is None or level in [known.value for known in types.ThinkingLevel]
    assert adapter.thinks_out_of_sight is (thinking != "off")


USAGE = {
    "promptTokenCount": 18,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 4,
    "cachedContentTokenCount": 5,
    "totalTokenCount": 26,
}


def reply_of(*parts: object, **rest: object) -> dict[str, object]:
    candidate = {
        "content": {"parts": list(parts) or [{"text": "Hi"}], "role": "model"},
        "finishReason": "STOP",
        "index": 0,
    }
    return {
        "candidates": [candidate | {key: rest.pop(key) for key in list(rest) if key in CANDIDATE}],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-3.5-flash-lite",
        "responseId": "resp1",
        **rest,
    }


CANDIDATE = ("content", "finishReason", "finishMessage")
REPLY = ChatReply(
    id="resp1",
    model="gemini-3.5-flash-lite",
    text="Hi",
    finish_reason="stop",
    usage=TokenUsage(18, 8, 5, 0, 4),
)


def function_call(name: str, args: object, **rest: object) -> dict[str, object]:
    call = {"name": name, "args": args} | {k: v for k, v in rest.items() if k == "id"}
    return {"functionCall": call} | {k: v for k, v in rest.items() if k != "id"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (reply_of(), REPLY),
        (
            reply_of(
                {"text": "I wonder.", "thought": True},
                {"text": "Hi "},
                {"text": "there", "thoughtSignature": "AAAA"},
            ),
            replace(REPLY, text="Hi there"),
        ),
        (
            reply_of(
                function_call("weather", {"a": "ü"}, id="c1", thoughtSignature="/+8="),
                function_call("noop", {}, id="c2"),
            ),
            replace(
                REPLY,
                text="",
                finish_reason="tool_calls",
                tool_calls=(
                    ToolCall("c1", "weather", '{"a":"ü"}', "_-8"),
                    ToolCall("c2", "noop", "{}"),
                ),
            ),
        ),
        (reply_of(finishReason="MAX_TOKENS"), replace(REPLY, finish_reason="length")),
        (
            reply_of(content={}, finishReason="MAX_TOKENS"),
            replace(REPLY, text="", finish_reason="length"),
        ),
        (
            reply_of(content={}, finishReason="SAFETY", finishMessage="No."),
            replace(REPLY, text="", finish_reason="content_filter", refusal="No."),
        ),
        (reply_of(finishReason="RECITATION"), replace(REPLY, finish_reason="content_filter")),
        (reply_of(finishReason="NOVELTY", finishMessage="?"), REPLY),
    ],
)
def test_a_reply_is_translated_whole(body: object, expected: object, gemini: MakeGemini) -> None:
    """Text, refusal, tool calls, finish reason, usage, id and model arrive; thoughts do not."""
    sent = json.dumps(body)
    if "NOVELTY" not in sent:  # the SDK warns of what it does not know
        types.GenerateContentResponse.model_validate_json(sent)
    assert gemini().decode(sent.encode()) == expected


def test_every_finish_reason_is_known(gemini: MakeGemini) -> None:
    """Each of the SDK's reasons is an end, or a failure; none looks like an end by accident."""
    for reason in types.FinishReason:
        body = json.dumps(reply_of(finishReason=reason.value)).encode()
        try:
            finish_reason = gemini().decode(body).finish_reason
        except ProviderError:
            continue
        complete = reason.value in ("STOP", "FINISH_REASON_UNSPECIFIED")
        assert (finish_reason == "stop") is complete, reason


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("MALFORMED_FUNCTION_CALL", ProviderUnavailable),
        ("UNEXPECTED_TOOL_CALL", ProviderUnavailable),
        ("OTHER", ProviderUnavailable),
        ("PUP_LIMITED_DISABLED", ProviderRefusesAccount),
    ],
)
def test_a_model_that_lost_its_way_has_failed(
    reason: str, expected: type[ProviderError], gemini: MakeGemini
) -> None:
    """What is no reply does not pass for one, whole or streamed, and may have cost."""
    body = json.dumps(reply_of(content={}, finishReason=reason))
    for provoke in (
        lambda: gemini().decode(body.encode()),
        lambda: gemini().open_stream().feed(ServerSentEvent("message", body)),
    ):
        with pytest.raises(expected) as caught:
            provoke()
        assert caught.value.billing is Billing.AMBIGUOUS
        assert reason.lower() in str(caught.value)


def test_calls_without_an_id_get_one(gemini: MakeGemini) -> None:
    """The ids are made of the reply: two equal calls have two, and reading again changes none."""
    calls = [function_call("noop", {}), function_call("noop", {})]
    body = json.dumps(reply_of(*calls)).encode()
    first, second = gemini().decode(body).tool_calls
    assert first.id and second.id and first.id != second.id
    assert gemini().decode(body).tool_calls == (first, second)
    other = json.dumps(reply_of(*calls, responseId="resp2")).encode()
    assert gemini().decode(other).tool_calls[0].id != first.id


@pytest.mark.parametrize("signature", ["/+8=", "AAAA", "c2lnbmF0dXJlIG9mIGEgdGhvdWdodD8+"])
def test_a_signature_comes_back_as_it_was(signature: str, gemini: MakeGemini) -> None:
    """It travels to the client and back in the call's id, in letters that fit any id."""
    body = reply_of(function_call("noop", {}, id="c1", thoughtSignature=signature))
    (call,) = gemini().decode(json.dumps(body).encode()).tool_calls
    outside = signed_id(call.id, call.signature)
    assert outside.replace("-", "").replace("_", "").isalnum()
    id, carried = split_id(outside)
    back = Message("assistant", tool_calls=(ToolCall(id, call.name, call.arguments, carried),))
    result = Message("tool", (Text("Done"),), tool_call_id=id)
    request = ChatRequest((*HELLO, back, result), max_output_tokens=1)
    sent = json.loads(gemini().encode(request, stream=False).body)
    assert sent["contents"][1]["parts"][0]["thoughtSignature"] == signature
    assert sent["contents"][1]["parts"][0]["functionCall"]["id"] == "c1"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({"candidatesTokenCount": 5}, None),
        ({"promptTokenCount": 5, "candidatesTokenCount": True}, None),
        ({"promptTokenCount": 5}, TokenUsage(5, 0)),
        ({"promptTokenCount": 5, "thoughtsTokenCount": 7}, TokenUsage(5, 7, reasoning_tokens=7)),
        ({"promptTokenCount": 5, "toolUsePromptTokenCount": 2}, TokenUsage(7, 0)),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 9}, TokenUsage(5, 0, 5)),
    ],
)
def test_a_usage_that_cannot_be_right_is_none(
    usage: object, expected: object, gemini: MakeGemini
) -> None:
    """A missing or broken usage does not lose the reply; a count that is 0 is left out."""
    assert gemini().decode(json.dumps(reply_of(usageMetadata=usage)).encode()).usage == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>MARKED-PROMPT</html>",
        b"[]",
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": {}}',
        b'{"candidates": [null]}',
        b'{"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}',
        b'{"candidates": [{"content": [], "finishReason": "STOP"}]}',
        b'{"candidates": [{"content": {"parts": {}}, "finishReason": "STOP"}]}',
        b'{"candidates": [{"content": {"parts": [{"text": 5}]}, "finishReason": "STOP"}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": []}]}, "finishReason": "STOP"}]}',
        b'{"candidates": [{"finishReason": 5}]}',
    ],
)
def test_a_body_that_is_no_reply_is_unavailability(body: bytes, gemini: MakeGemini) -> None:
    """HTML, other JSON and missing parts are ambiguous failures without a word of the body."""
    with pytest.raises(ProviderUnavailable) as caught:
        gemini().decode(body)
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


def event(data: object) -> ServerSentEvent:
    return ServerSentEvent("message", json.dumps(data))


def piece(*parts: object, tokens: int = 1) -> ServerSentEvent:
    usage = {"promptTokenCount": 18, "candidatesTokenCount": tokens}
    return event(reply_of(*parts, finishReason=None, usageMetadata=usage))


END = event(reply_of({"text": ""}))
STREAM = [
    piece({"text": "I wonder.", "thought": True}),
    piece({"text": "Hi"}),
    piece({"text": " there"}, tokens=2),
    piece(function_call("weather", {"a": 1}, id="c1", thoughtSignature="AA+A")),
    piece(function_call("noop", {}, id="c2")),
    END,
]


def test_a_stream_is_translated_whole(gemini: MakeGemini) -> None:
    """Chunks carry text, tool calls, the end and the whole usage; thoughts stay out."""
    for sent in STREAM:
        types.GenerateContentResponse.model_validate_json(sent.data)
    decoder = gemini().open_stream()
    chunks = [chunk for sent in STREAM for chunk in decoder.feed(sent)]
    decoder.close()
    head = Chunk(id="resp1", model="gemini-3.5-flash-lite")
    assert chunks == [
        replace(head, text="Hi"),
        replace(head, text=" there"),
        replace(head, tool_calls=(ToolCallDelta(0, "c1", "weather", '{"a":1}', signature="AA-A"),)),
        replace(head, tool_calls=(ToolCallDelta(1, "c2", "noop", "{}"),)),
        replace(head, finish_reason="tool_calls", usage=TokenUsage(18, 8, 5, 0, 4)),
    ]
    builder = ReplyBuilder()
    for chunk in chunks:
        builder.add(chunk)
    assert builder.reply() == replace(
        REPLY,
        text="Hi there",
        finish_reason="tool_calls",
        tool_calls=(
            ToolCall("c1", "weather", '{"a":1}', "AA-A"),
            ToolCall("c2", "noop", "{}"),
        ),
    )


def test_a_stream_that_breaks_has_no_usage_yet(gemini: MakeGemini) -> None:
    """The counts on the way lag behind: nobody is to be billed by them."""
    decoder = gemini().open_stream()
    chunks = [chunk for sent in STREAM[:3] for chunk in decoder.feed(sent)]
    assert [chunk.usage for chunk in chunks] == [None, None]


def test_a_usage_behind_the_end_is_heard(gemini: MakeGemini) -> None:
    """The last count replaces those before it, whether or not text comes with it."""
    decoder = gemini().open_stream()
    decoder.feed(event(reply_of(usageMetadata=None)))
    (chunk,) = decoder.feed(event({"usageMetadata": USAGE}))
    assert chunk.usage == TokenUsage(18, 8, 5, 0, 4)
    decoder.close()


def test_thoughts_begin_no_stream(gemini: MakeGemini) -> None:
    """A stream begins with the first thing that is said: until then another provider may answer."""
    assert list(gemini().open_stream().feed(STREAM[0])) == []


@pytest.mark.parametrize(
    "events", [[], STREAM[:1], STREAM[:3], STREAM[:-1]], ids=["nothing", "thought", "text", "calls"]
)
def test_a_stream_without_its_end_is_no_reply(
    events: list[ServerSentEvent], gemini: MakeGemini
) -> None:
    """Without a finish reason the reply is cut off, at an unknown cost."""
    decoder = gemini().open_stream()
    for sent in events:
        decoder.feed(sent)
    with pytest.raises(ProviderUnavailable) as caught:
        decoder.close()
    assert caught.value.billing is Billing.AMBIGUOUS


@pytest.mark.parametrize(
    "data",
    [
        "{MARKED-PROMPT",
        "[]",
        "{}",
        '{"candidates": "x"}',
        '{"candidates": [{"content": {"parts": [{"text": 5}]}}]}',
        '{"candidates": [{"index": -1}]}',
        '{"candidates": [{"content": {"parts": [{"functionCall": {"args": []}}]}}]}',
        '{"promptFeedback": {"blockReason": 5}}',
    ],
)
def test_a_malformed_event_is_unavailability(data: str, gemini: MakeGemini) -> None:
    """One event that cannot be understood spoils the stream."""
    with pytest.raises(ProviderUnavailable) as caught:
        gemini().open_stream().feed(ServerSentEvent("message", data))
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        ({}, "The prompt was blocked: safety."),
        ({"blockReasonMessage": "No."}, "No."),
        ({"blockReasonMessage": "No, sk-MARKED-KEY."}, "No, ***."),
    ],
)
def test_a_blocked_prompt_is_the_callers_fault(
    words: dict[str, str], detail: str, gemini: MakeGemini
) -> None:
    """A reply without candidates, whole or streamed, that says why: nobody else is asked."""
    feedback = {"blockReason": "SAFETY", **words}
    body = json.dumps({"promptFeedback": feedback, "usageMetadata": USAGE})
    types.GenerateContentResponse.model_validate_json(body)
    for provoke in (
        lambda: gemini().decode(body.encode()),
        lambda: gemini().open_stream().feed(ServerSentEvent("message", body)),
    ):
        with pytest.raises(ProviderRejectsRequest) as caught:
            provoke()
        assert (caught.value.code, caught.value.param) == ("content_policy_violation", "messages")
        assert caught.value.detail_for_caller == detail
        assert caught.value.billing is Billing.AMBIGUOUS


RPC = "type.googleapis.com/google.rpc."
API_KEY_INVALID = {"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID"}
INVALID = "INVALID_ARGUMENT"
EXHAUSTED = "RESOURCE_EXHAUSTED"


def failure(status: int, kind: str, *details: object, message: str = "MARKED-PROMPT") -> Any:
    error = {"code": status, "message": message, "status": kind}
    return {"error": error | ({"details": list(details)} if details else {})}


def quota(id: str, **more: object) -> dict[str, object]:
    return {"@type": f"{RPC}QuotaFailure", "violations": [{"quotaId": id, **more}]}


@pytest.mark.parametrize(
    ("sent", "code", "expected"),
    [
        (failure(503, "UNAVAILABLE"), "unavailable", ProviderUnavailable),
        (failure(500, "INTERNAL"), "internal", ProviderUnavailable),
        (failure(429, EXHAUSTED), "resource_exhausted", ProviderUnavailable),
        (failure(429, EXHAUSTED, quota("XPerDayY")), "resource_exhausted", ProviderRefusesAccount),
        (failure(403, "PERMISSION_DENIED"), "permission_denied", ProviderRefusesAccount),
        (failure(400, INVALID), "invalid_argument", ProviderRejectsRequest),
        (failure(400, INVALID, API_KEY_INVALID), "invalid_argument", ProviderRefusesAccount),
        ({"error": {"status": "NOVELTY"}}, "novelty", ProviderUnavailable),
    ],
)
def test_an_error_inside_a_reply_with_status_200_is_one(
    sent: object, code: str, expected: type[ProviderError], gemini: MakeGemini
) -> None:
    """An error event, or an error in place of a reply, keeps its class but may have cost."""
    for provoke in (
        lambda: gemini().open_stream().feed(event(sent)),
        lambda: gemini().decode(json.dumps(sent).encode()),
    ):
        with pytest.raises(expected) as caught:
            provoke()
        assert type(caught.value) is expected
        assert caught.value.billing is Billing.AMBIGUOUS
        assert str(caught.value) == f"gemini broke off its reply with an error ({code})"


ERRORS = [
    (400, failure(400, INVALID, API_KEY_INVALID), ProviderRefusesAccount),
    (
        400,
        failure(400, "FAILED_PRECONDITION", message="User location is not supported."),
        ProviderRefusesAccount,
    ),
    (
        400,
        failure(400, INVALID, message="Budget 0 is invalid. This model only works in thinking."),
        ProviderRefusesAccount,
    ),
    (
        400,
        failure(400, INVALID, message="Thinking level MINIMAL is not supported for this model."),
        ProviderRefusesAccount,
    ),
    (
        400,
        failure(
            400,
            INVALID,
            {"fieldViolations": [{"field": "generation_config.thinking_config.thinking_level"}]},
        ),
        ProviderRefusesAccount,
    ),
    (
        400,
        failure(400, INVALID, message="Name 'your prepayment credits' is invalid."),
        ProviderRejectsRequest,
    ),
    (401, failure(401, "UNAUTHENTICATED"), ProviderRefusesAccount),
    (403, failure(403, "PERMISSION_DENIED"), ProviderRefusesAccount),
    (403, "<html>", ProviderRefusesAccount),
    (404, failure(404, "NOT_FOUND"), ProviderRefusesAccount),
    (429, failure(429, EXHAUSTED), ProviderUnavailable),
    (429, failure(429, EXHAUSTED, quota("RequestsPerMinute")), ProviderUnavailable),
    (429, failure(429, EXHAUSTED, quota("RequestsPerDay-FreeTier")), ProviderRefusesAccount),
    (
        429,
        failure(429, EXHAUSTED, quota("InputTokensPerMinute", quotaValue="0")),
        ProviderRefusesAccount,
    ),
    (
        429,
        failure(429, EXHAUSTED, message="Your prepayment credits are depleted."),
        ProviderRefusesAccount,
    ),
    (
        429,
        failure(429, EXHAUSTED, message="Your project has exceeded its monthly spending cap."),
        ProviderRefusesAccount,
    ),
    (429, "", ProviderUnavailable),
    (408, {}, ProviderUnavailable),
    (409, failure(409, "ABORTED"), ProviderUnavailable),
    (499, failure(499, "CANCELLED"), ProviderUnavailable),
    (500, failure(500, "INTERNAL"), ProviderUnavailable),
    (503, failure(503, "UNAVAILABLE"), ProviderUnavailable),
    (504, failure(504, "DEADLINE_EXCEEDED"), ProviderUnavailable),
    (502, "<html>MARKED-PROMPT</html>", ProviderUnavailable),
    (400, failure(400, INVALID), ProviderRejectsRequest),
    (400, [failure(400, INVALID, API_KEY_INVALID)], ProviderRefusesAccount),
    (413, "", ProviderRejectsRequest),
]


@pytest.mark.parametrize(("status", "sent", "expected"), ERRORS)
def test_each_error_has_its_class_and_its_cost(
    status: int, sent: object, expected: type[ProviderError], gemini: MakeGemini
) -> None:
    """The key, the quota and our configuration, passing trouble, and the caller's fault are told
    apart; a 4xx costs nothing, a 5xx may have."""
    said = sent if isinstance(sent, str) else json.dumps(sent)
    failed: ProviderError = gemini().decode_error(status, {"retry-after": "7"}, said.encode())
    assert type(failed) is expected
    assert failed.status == status
    assert failed.billing is (Billing.NOTHING if status < 500 else Billing.AMBIGUOUS)
    assert "MARKED" not in str(failed)
    if expected is not ProviderRejectsRequest:
        assert failed.retry_after_seconds == 7


@pytest.mark.parametrize(
    ("headers", "delay", "expected"),
    [
        ({}, "17s", 17),
        ({}, "17.250s", 17.25),
        ({"retry-after": "3"}, "17s", 17),
        ({"retry-after": "30"}, "17s", 30),
        ({"retry-after": "3"}, None, 3),
        ({}, "soon", None),
        ({}, "-5s", None),
        ({}, 17, None),
    ],
)
def test_the_wait_that_gemini_asks_for_is_read(
    headers: dict[str, str], delay: object, expected: float | None, gemini: MakeGemini
) -> None:
    """`RetryInfo` and `Retry-After` are honoured, the longer of them if both are there."""
    retry_info = {"@type": f"{RPC}RetryInfo", "retryDelay": delay}
    body = json.dumps(failure(429, EXHAUSTED, quota("PerMinute"), retry_info)).encode()
    assert gemini().decode_error(429, headers, body).retry_after_seconds == expected


@pytest.mark.parametrize(
    ("message", "field", "code", "param"),
    [
        (
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            None,
            "context_length_exceeded",
            None,
        ),
        (
            "* GenerateContentRequest.generation_config.stop_sequences: bad sk-MARKED-KEY",
            None,
            "invalid_argument",
            "stop",
        ),
        (
            "Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32)",
            None,
            "invalid_argument",
            "max_tokens",
        ),
        ("Bad.", "contents[2].parts[0].inline_data", "invalid_argument", "messages"),
        ("Bad.", "tools[0].functionDeclarations[0].name", "invalid_argument", "tools"),
        ("Bad.", "generationConfig.responseJsonSchema", "invalid_argument", "response_format"),
        ("Bad.", "novelty", "invalid_argument", None),
        ("Bad.", None, "invalid_argument", None),
    ],
)
def test_a_rejected_request_says_why_to_the_caller_alone(
    message: str, field: str | None, code: str, param: str | None, gemini: MakeGemini
) -> None:
    """Code, parameter and words are there for the caller, apart from the message, and without the
    key."""
    details = [{"@type": f"{RPC}BadRequest", "fieldViolations": [{"field": field}]}]
    sent = failure(400, INVALID, *(details if field else []), message=message)
    failed = gemini().decode_error(400, {}, json.dumps(sent).encode())
    assert isinstance(failed, ProviderRejectsRequest)
    assert (failed.code, failed.param) == (code, param)
    assert failed.detail_for_caller == message.replace("sk-MARKED-KEY", "***")
    assert str(failed) == f"gemini answered 400 ({code})"


def test_the_default_model_is_current_and_priced(gemini: MakeGemini) -> None:
    """The price list knows the default model, and so does the SDK."""
    from genai_prices.data_snapshot import get_snapshot

    adapter = gemini()
    _, model = get_snapshot().find_provider_model(adapter.model, None, adapter.price_list_id, None)
    assert model.id == adapter.model
    assert not model.deprecated
    assert adapter.model in typing.get_args(typing.get_args(Model)[0])


def test_every_setting_is_described(gemini: MakeGemini) -> None:
    """`.env.example` is written from the descriptions."""
    fields = gemini().settings_type.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
