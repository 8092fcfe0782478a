"""The chat completions format as other servers take it, and the forms in which they send it."""

import json
import string
import typing
from dataclasses import replace
from typing import Any

import pytest
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import SecretStr, TypeAdapter

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
)
from app.providers.anthropic import AnthropicSettings
from app.providers.base import ProviderAdapter, ServerSentEvent
from app.providers.openai import OpenAISettings
from app.providers.openai_compatible import OpenAICompatible, OpenAICompatibleSettings
from app.providers.sse import EventParser

from .conftest import MakeCompatible

HELLO = (Message("user", (Text("Hello"),)),)
SCHEMA = {"name": "answer", "schema": {"type": "object"}, "strict": True}
HELLO_BODY = [{"role": "user", "content": "Hello"}]
ALWAYS = {"model": "qwen3:8b", "max_tokens": 100}

REQUESTS: dict[str, tuple[ChatRequest, dict[str, Any]]] = {
    "plain": (ChatRequest(HELLO), {"messages": HELLO_BODY}),
    "parameters": (
        ChatRequest(
            HELLO,
            temperature=0,
            top_p=0.5,
            stop=("END",),
            seed=0,
            response_format=ResponseFormat("json_object"),
        ),
        {
            "messages": HELLO_BODY,
            "temperature": 0,
            "top_p": 0.5,
            "stop": ["END"],
            "seed": 0,
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
                {"role": "user", "content": "Hi\nthere", "name": "ann"},
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": ""},
            ]
        },
    ),
    "images": (
        ChatRequest(
            (Message("user", (Text("What?"), Image("data:image/png;base64,AAAA", "low"))),)
        ),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
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
            tools=(Tool("weather", "Tells it", {"type": "object"}), Tool("noop")),
            tool_choice="tool:weather",
            parallel_tool_calls=False,
            response_format=ResponseFormat("json_schema", SCHEMA),
        ),
        {
            "messages": [
                *HELLO_BODY,
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
                        "parameters": {"type": "object"},
                    },
                },
                {"type": "function", "function": {"name": "noop"}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
            "response_format": {"type": "json_schema", "json_schema": SCHEMA},
        },
    ),
}


# What is sent


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_translated_whole(
    name: str, stream: bool, openai_compatible: MakeCompatible
) -> None:
    """Every parameter has its place, none is sent that only OpenAI knows or nobody has set."""
    request, expected = REQUESTS[name]
    adapter: ProviderAdapter = openai_compatible()
    assert adapter.unsupported(request) is None
    call = adapter.encode(replace(request, max_output_tokens=100), stream=stream)
    body = json.loads(call.body)
    if stream:
        expected = {**expected, "stream": True, "stream_options": {"include_usage": True}}
    assert body == {**ALWAYS, **expected}
    params = CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    TypeAdapter(params).validate_python(body)
    assert set(body) <= set(typing.get_type_hints(params))
    assert call.path == "/chat/completions"
    assert call.headers == {
        "authorization": "Bearer sk-MARKED-KEY",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_none_is_sent(key: str | None, openai_compatible: MakeCompatible) -> None:
    """A server that wants no key gets no header for it."""
    call = openai_compatible(api_key=key).encode(ChatRequest(HELLO), stream=False)
    assert call.headers == {"content-type": "application/json"}


def test_the_usage_of_a_stream_is_not_always_asked_for(openai_compatible: MakeCompatible) -> None:
    """A server that refuses `stream_options` is not sent them when the setting says so."""
    call = openai_compatible(stream_usage=False).encode(ChatRequest(HELLO), stream=True)
    body = json.loads(call.body)
    assert body["stream"] is True and "stream_options" not in body


def test_an_image_of_another_is_named(openai_compatible: MakeCompatible) -> None:
    """Images are the user's; of all else the server judges."""
    request = ChatRequest((Message("system", (Image("https://x"),)),))
    assert openai_compatible().unsupported(request) == "image_url"


def test_ids_that_are_made_up_suit_the_strictest(openai_compatible: MakeCompatible) -> None:
    """Mistral takes back nine letters and digits; no two are alike."""
    settings = openai_compatible()._settings
    body = json.dumps(reply_of(message={"tool_calls": [{"function": {"name": "f"}}] * 2})).encode()
    ids = [call.id for call in OpenAICompatible(settings).decode(body).tool_calls]
    assert len(set(ids)) == 2
    assert all(len(i) == 9 and set(i) <= set(string.hexdigits) for i in ids)


# Replies


def reply_of(**choice: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "Hi"}
    message.update(choice.pop("message", {}))
    return {
        "id": "chatcmpl-1",
        "model": "qwen3:8b",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }


REPLY = ChatReply("chatcmpl-1", "qwen3:8b", "Hi", "stop", TokenUsage(20, 10))
WEATHER = {"name": "weather", "arguments": '{"a": 1}'}
CALL = ToolCall("call_1", "weather", '{"a": 1}')


@pytest.mark.parametrize(
    ("choice", "changes"),
    [
        ({}, {}),
        ({"index": None}, {}),
        ({"message": {"reasoning_content": "Hm", "reasoning": "Hm"}}, {}),
        ({"message": {"content": None, "reasoning": "Hm"}}, {"text": ""}),
        (
            {
                "message": {
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                        {"type": "text", "text": "Hi"},
                        {"type": "text", "text": "!"},
                    ]
                }
            },
            {"text": "Hi!"},
        ),
        (
            {"message": {"content": "", "refusal": "No."}},
            {"text": "", "refusal": "No."},
        ),
        (
            {"message": {"tool_calls": [{"id": "call_1", "function": WEATHER}]}},
            {"tool_calls": (CALL,)},
        ),
        (
            {"message": {"tool_calls": [{"function": WEATHER}, {"id": "", "function": WEATHER}]}},
            {"tool_calls": (replace(CALL, id="made1"), replace(CALL, id="made2"))},
        ),
        (
            {
                "message": {
                    "tool_calls": [
                        {"id": "call_1", "function": {"name": "weather", "arguments": {"a": 1}}}
                    ]
                }
            },
            {"tool_calls": (replace(CALL, arguments='{"a":1}'),)},
        ),
        (
            {
                "message": {"tool_calls": [{"id": "call_1", "function": WEATHER}]},
                "finish_reason": "",
            },
            {"tool_calls": (CALL,), "finish_reason": "tool_calls"},
        ),
    ],
)
def test_a_reply_is_translated_whole(
    choice: dict[str, Any], changes: dict[str, Any], openai_compatible: MakeCompatible
) -> None:
    """Text, refusal and tool calls arrive from every form; thoughts are no part of the text."""
    body = json.dumps(reply_of(**choice)).encode()
    assert openai_compatible().decode(body) == replace(REPLY, **changes)


def test_a_bare_reply_will_do(openai_compatible: MakeCompatible) -> None:
    """Without id, model, index, finish reason and usage there is still a reply; what it cost is
    not known."""
    body = b'{"choices": [{"message": {"content": "Hi"}}]}'
    assert openai_compatible().decode(body) == ChatReply("", "qwen3:8b", "Hi", "stop", None)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("stop_sequence", "stop"),
        ("STOP", "stop"),
        ("", "stop"),
        (None, "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("safety", "content_filter"),
    ],
)
def test_each_finish_reason_has_its_meaning(
    word: str | None, expected: str, openai_compatible: MakeCompatible
) -> None:
    """Whatever a server calls the end of a reply, the caller hears one of OpenAI's words."""
    body = json.dumps(reply_of(finish_reason=word)).encode()
    assert openai_compatible().decode(body).finish_reason == expected


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource"])
def test_an_end_that_is_none_is_a_failure(word: str, openai_compatible: MakeCompatible) -> None:
    """What a server gave up is no reply, whole or streamed, and may have cost."""
    for provoke in (
        lambda: openai_compatible().decode(json.dumps(reply_of(finish_reason=word)).encode()),
        lambda: openai_compatible().open_stream().feed(event(chunk_of({}, finish_reason=word))),
    ):
        with pytest.raises(ProviderUnavailable) as caught:
            provoke()
        assert caught.value.billing is Billing.AMBIGUOUS


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ({"prompt_tokens": 5}, None),
        ({"prompt_tokens": "5", "completion_tokens": 1}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": 5, "completion_tokens": 1}, TokenUsage(5, 1)),
        ({"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 0}, TokenUsage(5, 1)),
        # xAI, Gemini: the thoughts are in the total alone.
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "total_tokens": 306,
                "completion_tokens_details": {"reasoning_tokens": 300},
            },
            TokenUsage(5, 301, reasoning_tokens=300),
        ),
        # DeepSeek
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_cache_hit_tokens": 4},
            TokenUsage(5, 1, cached_input_tokens=4),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": None,
            },
            TokenUsage(5, 1, cached_input_tokens=5),
        ),
    ],
)
def test_a_usage_is_what_was_billed_or_none(
    usage: object, expected: object, openai_compatible: MakeCompatible
) -> None:
    """Missing, broken or zero usage does not lose the reply, and is never taken for free."""
    body = json.dumps({**reply_of(), "usage": usage}).encode()
    assert openai_compatible().decode(body).usage == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>MARKED-PROMPT</html>",
        b"MARKED-PROMPT",
        b'"MARKED-PROMPT"',
        b"[]",
        b"null",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": [[]]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": null}, "finish_reason": null}]}',
        b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": [{"type": "audio"}]}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": ["MARKED-PROMPT"]}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"tool_calls": [null]}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"tool_calls": [{"id": "a"}]}, "finish_reason": "stop"}]}',
        b'{"cut off": ',
        b"[" * 100_000,
        b'{"choices": [{"message": {"content": "\xff"}, "finish_reason": "stop"}]}',
    ],
)
def test_a_body_that_is_no_reply_is_unavailability(
    body: bytes, openai_compatible: MakeCompatible
) -> None:
    """HTML, other JSON and missing parts are ambiguous failures without a word of the body."""
    with pytest.raises(ProviderUnavailable) as caught:
        openai_compatible().decode(body)
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)


# Streams


def event(data: object, name: str = "message") -> ServerSentEvent:
    return ServerSentEvent(name, data if isinstance(data, str) else json.dumps(data))


def chunk_of(delta: object = None, **rest: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": rest.pop("finish_reason", None)}
    return {"id": "chatcmpl-1", "model": "qwen3:8b", "choices": [choice], **rest}


USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
ROLE = chunk_of({"role": "assistant", "content": ""})
HI = chunk_of({"content": "Hi"})
STOP = chunk_of(finish_reason="stop")
WITH_USAGE: dict[str, list[Any]] = {
    "in a last chunk": [HI, STOP, chunk_of(choices=[], usage=USAGE), "[DONE]"],
    "in a last chunk without choices": [HI, STOP, {"usage": USAGE}, "[DONE]"],
    "with the end": [HI, {**STOP, "usage": USAGE}, "[DONE]"],
    "in Groq's place": [HI, {**STOP, "x_groq": {"id": "r", "usage": USAGE}}, "[DONE]"],
    "in the choice": [
        HI,
        {**STOP, "choices": [{**STOP["choices"][0], "usage": USAGE}]},
        "[DONE]",
    ],
    "as a running total": [
        {**ROLE, "usage": {**USAGE, "completion_tokens": 0, "total_tokens": 20}},
        {**HI, "usage": {**USAGE, "completion_tokens": 5, "total_tokens": 25}},
        {**STOP, "usage": USAGE},
        "[DONE]",
    ],
    "behind zeros": [
        {**HI, "usage": dict.fromkeys(USAGE, 0)},
        {**STOP, "usage": USAGE},
        {**chunk_of(choices=[]), "usage": dict.fromkeys(USAGE, 0)},
        "[DONE]",
    ],
    "without [DONE]": [HI, STOP, chunk_of(choices=[], usage=USAGE)],
}


def read(events: list[Any], adapter: OpenAICompatible) -> tuple[list[Chunk], ChatReply]:
    """The chunks of a stream that comes to its end, and what they add up to."""
    decoder = adapter.open_stream()
    chunks = [chunk for data in events for chunk in decoder.feed(event(data))]
    decoder.close()
    builder = ReplyBuilder()
    for chunk in chunks:
        builder.add(chunk)
    return chunks, builder.reply()


@pytest.mark.parametrize("where", WITH_USAGE)
def test_a_streams_usage_is_found(where: str, openai_compatible: MakeCompatible) -> None:
    """Wherever a server puts the usage, the last one it tells is the stream's."""
    chunks, reply = read(WITH_USAGE[where], openai_compatible())
    assert reply == REPLY
    assert chunks[0].text == "Hi"


def test_a_stream_without_usage_is_a_reply(openai_compatible: MakeCompatible) -> None:
    """What it cost is not known then."""
    assert read([HI, STOP, "[DONE]"], openai_compatible())[1] == replace(REPLY, usage=None)


@pytest.mark.parametrize(
    "data",
    [
        ROLE,
        {**ROLE, "usage": USAGE},
        chunk_of({"reasoning_content": "Hm"}),
        chunk_of({"reasoning": "Hm"}),
        chunk_of({"content": [{"type": "thinking", "thinking": "Hm"}]}),
        chunk_of(choices=[]),
        "",
        " ",
    ],
    ids=str,
)
def test_what_says_nothing_is_no_chunk(data: Any, openai_compatible: MakeCompatible) -> None:
    """A stream begins with the first thing that is said: until then another provider may answer."""
    assert list(openai_compatible().open_stream().feed(event(data))) == []


NAMED = {"name": "weather", "arguments": ""}
PIECE = {"arguments": '{"a": 1}'}


@pytest.mark.parametrize(
    "deltas",
    [
        [{"index": 0, "id": "x", "function": NAMED}, {"index": 0, "function": PIECE}],
        [{"id": "x", "function": NAMED}, {"function": PIECE}],
        [{"id": "x", "function": NAMED}, {"id": "x", "function": PIECE}],
        [{"index": 0, "function": NAMED}, {"index": 0, "function": PIECE}],
        [{"function": NAMED}, {"function": PIECE}],
        [{"index": 0, "id": "x", "function": NAMED}, {"index": 0, "id": "y", "function": PIECE}],
        [{"index": 0, "id": "x", "function": {**NAMED, **PIECE}}],
        [{"function": {"name": "weather", "arguments": {"a": 1}}}],
        [
            {"index": 0, "id": "x", "function": NAMED},
            {"index": 0, "id": "x", "function": {"name": "weather", **PIECE}},
        ],
    ],
    ids=[
        "as OpenAI",
        "no index",
        "no index, id in each piece",
        "no id",
        "neither",
        "another id for each piece",
        "in one piece",
        "an object",
        "name in each piece",
    ],
)
def test_pieces_of_a_tool_call_are_put_together(
    deltas: list[Any], openai_compatible: MakeCompatible
) -> None:
    """Two calls in a row, each in such pieces, are two calls; id and name come first, and once."""
    second = [
        {**delta, **{key: 1 for key in ("index",) if key in delta}}
        | {key: f"2{delta[key]}" for key in ("id",) if key in delta}
        for delta in deltas
    ]
    events = [chunk_of({"tool_calls": [delta]}) for delta in (*deltas, *second)]
    chunks, reply = read(
        [*events, chunk_of(finish_reason="tool_calls"), "[DONE]"], openai_compatible()
    )
    assert [call.name for call in reply.tool_calls] == ["weather", "weather"]
    assert [json.loads(call.arguments) for call in reply.tool_calls] == [{"a": 1}] * 2
    assert all(call.id for call in reply.tool_calls)
    assert len({call.id for call in reply.tool_calls}) == 2
    pieces = [piece for chunk in chunks for piece in chunk.tool_calls]
    for index in (0, 1):
        first, *rest = [piece for piece in pieces if piece.index == index]
        assert first.id and first.name
        assert not any(piece.id or piece.name for piece in rest)


def test_calls_under_one_index_are_told_apart(openai_compatible: MakeCompatible) -> None:
    """A server that sends whole calls, all with index 0, has sent several."""
    whole = {"function": {"name": "weather", "arguments": "{}"}, "index": 0}
    events = [chunk_of({"tool_calls": [{**whole, "id": name}]}) for name in "abc"]
    _, reply = read([*events, STOP], openai_compatible())
    assert [call.id for call in reply.tool_calls] == ["a", "b", "c"]
    _, together = read(
        [chunk_of({"tool_calls": [{**whole, "id": name} for name in "abc"]}), STOP],
        openai_compatible(),
    )
    assert together.tool_calls == reply.tool_calls


@pytest.mark.parametrize(
    "events",
    [[], [HI], [HI, "[DONE]"], ["[DONE]"], [HI, chunk_of(finish_reason=""), "[DONE]"]],
    ids=["nothing", "text", "no finish reason", "done alone", "empty finish reason"],
)
def test_a_stream_without_its_end_is_no_reply(
    events: list[Any], openai_compatible: MakeCompatible
) -> None:
    """Without a finish reason the reply may be cut off, and what it cost is unknown."""
    decoder = openai_compatible().open_stream()
    for data in events:
        decoder.feed(event(data))
    with pytest.raises(ProviderUnavailable) as caught:
        decoder.close()
    assert caught.value.billing is Billing.AMBIGUOUS


@pytest.mark.parametrize(
    "data",
    [
        "{MARKED-PROMPT",
        "[]",
        "{}",
        '{"choices": {}}',
        "null",
        '{"choices": [{"delta": {"tool_calls": [{"function": 1}]}}]}',
        '{"choices": [{"delta": {"content": [{"type": "image"}]}}]}',
    ],
)
def test_a_malformed_event_is_unavailability(data: str, openai_compatible: MakeCompatible) -> None:
    """One event that cannot be understood spoils the stream, also behind the end."""
    decoder = openai_compatible().open_stream()
    decoder.feed(event(STOP))
    with pytest.raises(ProviderUnavailable) as caught:
        decoder.feed(event(data))
    assert caught.value.billing is Billing.AMBIGUOUS
    assert "MARKED" not in str(caught.value)
    with pytest.raises(ProviderUnavailable):
        decoder.close()


def test_unknown_events_and_what_follows_the_end_are_ignored(
    openai_compatible: MakeCompatible,
) -> None:
    """Events under other names, and any after `[DONE]`, mean nothing."""
    decoder = openai_compatible().open_stream()
    assert list(decoder.feed(event("{oops", "ping"))) == []
    decoder.feed(event(STOP))
    decoder.feed(event("[DONE]"))
    assert list(decoder.feed(event("{oops"))) == []
    decoder.close()


def test_comments_and_missing_blanks_are_read(openai_compatible: MakeCompatible) -> None:
    """Keep-alives as comments, empty events and `data:[DONE]` are no obstacle."""
    wire = f": OPENROUTER PROCESSING\n\ndata:\n\ndata:{json.dumps(HI)}\n\n: x\n\n"
    wire += f"data:{json.dumps(STOP)}\n\ndata:[DONE]\n\n"
    decoder = openai_compatible().open_stream()
    events = list(EventParser(10_000).feed(wire.encode()))
    chunks = [chunk for item in events for chunk in decoder.feed(item)]
    decoder.close()
    assert [chunk.text for chunk in chunks] == ["Hi", ""]


# Errors

PROMPT = "MARKED-PROMPT sk-MARKED-KEY"
INVALID = "invalid_request_error"
FORMS: dict[str, Any] = {
    "OpenAI's": {"error": {"message": PROMPT, "type": INVALID, "param": None, "code": None}},
    "with a number": {"error": {"message": PROMPT, "code": 400, "metadata": None}},
    "text": {"error": PROMPT},
    "TGI's": {"error": PROMPT, "error_type": "validation"},
    "FastAPI's": {"detail": PROMPT},
    "a list of places": {"detail": [{"loc": ["body", "x"], "msg": PROMPT, "type": "missing"}]},
    "detail with an object": {"detail": {"error": {"message": PROMPT}}},
    "vLLM's": {"object": "error", "message": PROMPT, "type": "BadRequestError", "code": 400},
    "Mistral's": {"object": "error", "message": {"detail": [{"loc": ["body"], "msg": PROMPT}]}},
    "a list": [{"error": {"code": 400, "message": PROMPT, "status": "INVALID_ARGUMENT"}}],
    "plain text": PROMPT,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_an_error_is_read(form: str, openai_compatible: MakeCompatible) -> None:
    """The server's words reach the caller from every form, without the key, and no message."""
    body = FORMS[form] if isinstance(FORMS[form], str) else json.dumps(FORMS[form])
    failure = openai_compatible().decode_error(400, {}, body.encode())
    assert isinstance(failure, ProviderRejectsRequest)
    assert failure.detail_for_caller == "MARKED-PROMPT ***"
    assert "MARKED" not in f"{failure} {failure.code} {failure.param}"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>MARKED-PROMPT</html>",
        "{}",
        "[]",
        "5",
        '{"error": {}}',
        '{"error": []}',
        '{"error": null}',
        '{"detail": 5}',
        '{"errors": ["MARKED-PROMPT"]}',
        '{"error": ' * 900 + "1" + "}" * 900,
        "[" * 100_000,
    ],
)
def test_an_error_without_words_is_one(body: str, openai_compatible: MakeCompatible) -> None:
    """The status alone says enough; a page is not passed on."""
    failure = openai_compatible().decode_error(400, {}, body.encode())
    assert isinstance(failure, ProviderRejectsRequest)
    assert failure.detail_for_caller is None


def test_without_a_key_nothing_is_blotted_out(openai_compatible: MakeCompatible) -> None:
    """An absent key leaves the server's words whole."""
    failure = openai_compatible(api_key=None).decode_error(400, {}, b'{"error": "Too hot"}')
    assert isinstance(failure, ProviderRejectsRequest)
    assert failure.detail_for_caller == "Too hot"


OURS, PASSING, THEIRS = ProviderRefusesAccount, ProviderUnavailable, ProviderRejectsRequest
ERRORS: list[tuple[int, Any, type[ProviderError]]] = [
    (401, {"error": {"message": "Invalid API key", "code": 401}}, OURS),
    (401, {"detail": "Unauthorized"}, OURS),
    (402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}, OURS),
    (403, {"error": "MARKED-PROMPT"}, OURS),
    (404, {"error": {"message": "model 'x' not found", "type": "not_found_error"}}, OURS),
    (404, {"detail": "Not Found"}, OURS),
    (404, "404 page not found", OURS),
    (405, {"detail": "Method Not Allowed"}, OURS),
    (307, "", OURS),
    (400, {"error": {"message": "gone", "code": "model_decommissioned"}}, OURS),
    (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model"}, OURS),
    (400, {"error": {"message": "Model Not Exist", "type": INVALID}}, OURS),
    (400, {"error": {"message": "a/b is not a valid model ID", "code": 400}}, OURS),
    (400, {"error": {"message": "Over", "type": "budget_exceeded", "code": "400"}}, OURS),
    (400, {"error": {"message": "x", "param": "stream_options"}}, OURS),
    (
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "stream_options", "include_usage"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
        },
        OURS,
    ),
    (413, {"error": {"message": "TPM: Limit 6000", "code": "rate_limit_exceeded"}}, OURS),
    (429, {"error": {"type": "exceeded_current_quota_error"}}, OURS),
    (429, {"error": {"code": "insufficient_quota"}}, OURS),
    (429, {"message": "Requests rate limit exceeded"}, PASSING),
    (429, {"error": {"message": "x", "code": 429}}, PASSING),
    (408, {}, PASSING),
    (409, {}, PASSING),
    (500, {"error": {"message": "maximum context length", "type": "server_error"}}, PASSING),
    (500, "Internal Server Error", PASSING),
    (502, "<html>MARKED-PROMPT</html>", PASSING),
    (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, PASSING),
    (504, "", PASSING),
    (529, {}, PASSING),
    (400, {"error": {"message": "MARKED-PROMPT", "code": None}}, THEIRS),
    (400, {"error": {"message": "x", "code": "content_filter"}}, THEIRS),
    (
        403,
        {
            "error": {
                "code": 403,
                "message": "flagged",
                "metadata": {"reasons": ["violence"], "flagged_input": "MARKED-PROMPT"},
            }
        },
        THEIRS,
    ),
    (413, "", THEIRS),
    (422, {"detail": [{"loc": ["body", "seed"], "msg": "no", "type": "int_type"}]}, THEIRS),
    (500, {"error": {"code": 500, "type": "exceed_context_size_error", "n_ctx": 256}}, THEIRS),
]


@pytest.mark.parametrize(("status", "body", "expected"), ERRORS)
def test_each_error_has_its_class_and_its_cost(
    status: int, body: Any, expected: type[ProviderError], openai_compatible: MakeCompatible
) -> None:
    """Credentials, quota and our configuration, passing trouble, and the caller's fault are told
    apart; a 4xx or 529 costs nothing, another 5xx may have."""
    raw = (body if isinstance(body, str) else json.dumps(body)).encode()
    failure: ProviderError = openai_compatible().decode_error(status, {"retry-after": "7"}, raw)
    assert type(failure) is expected
    assert failure.status == status
    free = status < 500 or status == 529
    assert failure.billing is (Billing.NOTHING if free else Billing.AMBIGUOUS)
    assert "MARKED" not in str(failure)
    if expected is not ProviderRejectsRequest:
        assert failure.retry_after_seconds == 7


TOO_LONG = [
    # vLLM, DeepSeek, OpenRouter
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "The engine prompt length 1327246 exceeds the max_model_len 262144. Please reduce prompt.",
    # llama.cpp
    "request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it",
    # Groq, Cerebras
    "Please reduce the length of the messages or completion.",
    # Mistral
    "Prompt contains 65673 tokens, too large for model with 32768 maximum context length",
    # TGI
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
    # SGLang
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    # LM Studio
    "Trying to keep the first 5000 tokens when context the overflows.",
    # Fireworks
    "The prompt is too long: 10000, model maximum context length: 8191",
    # xAI
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    # LiteLLM
    "litellm.ContextWindowExceededError: the context window is exceeded",
]


@pytest.mark.parametrize("words", TOO_LONG)
def test_an_input_that_is_too_long_is_recognised(
    words: str, openai_compatible: MakeCompatible
) -> None:
    """However a server words it, the caller hears OpenAI's code, and nobody else is asked."""
    for body in ({"error": {"message": words, "type": INVALID}}, {"detail": words}):
        failure = openai_compatible().decode_error(400, {}, json.dumps(body).encode())
        assert isinstance(failure, ProviderRejectsRequest)
        assert failure.code == "context_length_exceeded"
        assert failure.detail_for_caller == words


def test_a_refused_parameter_is_named(openai_compatible: MakeCompatible) -> None:
    """The place that FastAPI names reaches the caller as a parameter."""
    body = {"detail": [{"loc": ["body", "messages", 0, "name"], "msg": "Extra", "type": "x"}]}
    failure = openai_compatible().decode_error(422, {}, json.dumps(body).encode())
    assert isinstance(failure, ProviderRejectsRequest)
    assert failure.param == "messages.0.name"
    assert failure.detail_for_caller == "Extra"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"error": {"message": "MARKED-PROMPT", "code": 502}}, PASSING),
        ({"error": {"message": "MARKED-PROMPT", "code": 429}}, PASSING),
        ({"error": "MARKED-PROMPT"}, PASSING),
        ({"detail": "MARKED-PROMPT"}, PASSING),
        ({"object": "error", "message": "MARKED-PROMPT", "code": 400}, THEIRS),
        ({"error": {"message": "maximum context length", "code": 400}}, THEIRS),
        ({"error": {"message": "x", "code": 402}}, OURS),
        (
            {
                "error": {"code": "server_error", "message": "gone"},
                "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
            },
            PASSING,
        ),
        ({"choices": [{"message": {}, "error": {"code": 502, "message": "x"}}]}, PASSING),
    ],
)
def test_an_error_inside_a_reply_with_status_200_is_one(
    data: Any, expected: type[ProviderError], openai_compatible: MakeCompatible
) -> None:
    """An error in a stream, or in place of a reply, keeps its class but may have cost, and a
    stream with one is never whole."""
    decoder = openai_compatible().open_stream()
    decoder.feed(event(STOP))
    for provoke in (
        lambda: decoder.feed(event(data)),
        lambda: openai_compatible().open_stream().feed(event(data, "error")),
        lambda: openai_compatible().decode(json.dumps(data).encode()),
    ):
        with pytest.raises(expected) as caught:
            provoke()
        assert caught.value.billing is Billing.AMBIGUOUS
        assert "MARKED" not in str(caught.value)
    with pytest.raises(ProviderUnavailable):
        decoder.close()


# Settings


def test_a_servers_own_ways_are_settings(openai_compatible: MakeCompatible) -> None:
    """How it counts and whether it may think is declared, and cautious until then."""
    assert openai_compatible().input_token_factor == 3
    assert openai_compatible(token_factor=1.2).input_token_factor == 1.2
    assert openai_compatible().thinks_out_of_sight is True
    assert openai_compatible(thinks=False).thinks_out_of_sight is False
    assert openai_compatible().image_tokens > 10_000


def test_only_ones_own_server_may_be_local() -> None:
    """The public vendors are reached by https at their real hosts."""
    assert OpenAICompatibleSettings.may_be_local
    assert not OpenAISettings.may_be_local
    assert not AnthropicSettings.may_be_local


def test_a_key_is_hidden(openai_compatible: MakeCompatible) -> None:
    """Printed settings show no key."""
    assert "MARKED" not in repr(openai_compatible(api_key=SecretStr("sk-MARKED"))._settings)


def test_every_setting_is_described(openai_compatible: MakeCompatible) -> None:
    """`.env.example` is written from the descriptions."""
    fields = openai_compatible().settings_type.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
