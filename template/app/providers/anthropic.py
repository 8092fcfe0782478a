"""Anthropic's Messages API.

The model's own thinking is off unless `ANTHROPIC_THINKING` says otherwise: it is billed as output
and counts towards the output limit.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from ..errors import ProviderError
from ..messages import (
    ChatReply,
    ChatRequest,
    Chunk,
    FinishReason,
    Image,
    Message,
    ResponseFormat,
    Text,
    TokenUsage,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from . import failures, json_fields
from .base import HTTPCall, ProviderSettings, ServerSentEvent
from .failures import Blame, Refusal
from .json_fields import Fields, Unreadable
from .retry_after import Clock
from .usage import token_usage

_NAME: Final = "anthropic"

# The later API version has no sampling parameters, and the models after these never had them:
# https://platform.claude.com/docs/en/api/versioning
_API_VERSION: Final = "2026-10-21"
_API_VERSION_WITH_SAMPLING: Final = "2023-06-01"
_MODELS_WITH_SAMPLING: Final = re.compile(r"claude-(haiku-4-5|sonnet-4-[56]|opus-4-[56])(?!\d)")

_DATA_URL: Final = re.compile(
    r"data:(image/(?:jpeg|png|gif|webp));base64,([A-Za-z0-9+/]+={0,2})", re.ASCII
)
_KINDS: Final[Mapping[str, Blame]] = {
    "authentication_error": Blame.ACCOUNT,
    "billing_error": Blame.ACCOUNT,
    "permission_error": Blame.ACCOUNT,
    "not_found_error": Blame.ACCOUNT,
    "invalid_request_error": Blame.REQUEST,
    "request_too_large": Blame.REQUEST,
}
_ACCOUNT_CODES: Final = re.compile(r".*(spend_limit|billing|organization|cmek).*")
# Anthropic words these as plain invalid requests, without a code. Only beginnings count: further on
# a message may quote the caller.
_ACCOUNT_PROSE: Final = re.compile(
    r"your credit balance|you have reached your specified|\W*(thinking|model)\b", re.IGNORECASE
)
_PROSE_CODES: Final = (
    (
        re.compile(r"prompt is too long|exceed context limit|context window", re.IGNORECASE),
        "context_length_exceeded",
    ),
    (re.compile(r"content filtering policy", re.IGNORECASE), "content_policy_violation"),
)
_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TOOL_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}


class AnthropicSettings(ProviderSettings):
    model_config = SettingsConfigDict(env_prefix="ANTHROPIC_")

    api_key: SecretStr = Field(
        description="Key of your Anthropic workspace: https://platform.claude.com/settings/keys"
    )
    model: str = Field(
        default="claude-haiku-5-5",
        min_length=1,
        description="Model to ask, by the vendor's name for it.",
    )
    base_url: str = Field(
        repr=False,
        default="https://api.anthropic.com",
        description="Where Anthropic's API is reached: the vendor, or a gateway before it.",
    )
    thinking: Literal["disabled", "between_tools", "adaptive"] = Field(
        default="disabled",
        description="Whether the model thinks first: `disabled`, or, as the only thing that"
        " some models know, `between_tools` (Sonnet 5.5) or `adaptive` (Opus 5.5, Fable).",
    )


class Anthropic:
    """Adapter for one configured model. Does no input or output."""

    name: ClassVar[str] = _NAME
    settings_type: ClassVar[type[ProviderSettings]] = AnthropicSettings
    price_list_id: ClassVar[str] = "anthropic"
    telemetry_name: ClassVar[str] = "anthropic"
    # On English prose about 1.35; more on code and on languages that o200k favours.
    input_token_factor: ClassVar[float] = 2.0
    preamble_tokens: ClassVar[int] = 0
    tool_preamble_tokens: ClassVar[int] = 804
    """What Opus 4.7 is told of tools when it has to use one, which is the longest such text.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing
    """

    def __init__(self, settings: AnthropicSettings, *, now: Clock = time.time) -> None:
        self._settings = settings
        self._now = now
        self._takes_sampling = _MODELS_WITH_SAMPLING.match(settings.model) is not None
        self._headers = {
            "x-api-key": settings.api_key.get_secret_value(),
            "anthropic-version": (
                _API_VERSION_WITH_SAMPLING if self._takes_sampling else _API_VERSION
            ),
            "content-type": "application/json",
        }

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def image_tokens(self) -> int:
        """The largest image that is not scaled down; larger ones are.

        https://platform.claude.com/docs/en/build-with-claude/vision
        """
        return 1_700 if self._takes_sampling else 4_800

    @property
    def thinks_out_of_sight(self) -> bool:
        return self._settings.thinking != "disabled"

    def unsupported(self, request: ChatRequest) -> str | None:
        return next(self._obstacles(request), None)

    def _obstacles(self, request: ChatRequest) -> Iterator[str]:
        if request.seed is not None:
            yield "seed"
        yield from self._sampling_obstacles(request)
        if any(not stop.strip() for stop in request.stop):
            yield "stop"
        if request.response_format and _schema(request.response_format) is None:
            yield "response_format"  # there is no mode for JSON without a schema
        if not request.tools and request.tool_choice not in (None, "auto", "none"):
            yield "tool_choice"
        for message in request.messages:
            yield from _message_obstacles(message)
        # A last assistant turn would be continued, which newer models refuse and OpenAI's
        # format does not mean.
        turns = _turns(request.messages)
        if not turns or turns[-1]["role"] == "assistant":
            yield "messages"

    def _sampling_obstacles(self, request: ChatRequest) -> Iterator[str]:
        if self._takes_sampling:
            if (request.temperature or 0) > 1:
                yield "temperature"
            if request.top_p is not None and request.temperature is not None:
                yield "top_p"  # one of the two at a time
        else:
            if request.temperature not in (None, 1):  # at 1 it is left out, and holds
                yield "temperature"
            if request.top_p is not None:
                yield "top_p"

    def encode(self, request: ChatRequest, *, stream: bool) -> HTTPCall:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_output_tokens,
            "system": _system(request.messages) or None,
            "messages": _turns(request.messages),
            "thinking": {"type": self._settings.thinking},
            "stop_sequences": list(request.stop) or None,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request),
            "output_config": _output_config(request),
            "stream": stream or None,
        }
        if self._takes_sampling:
            body |= {"temperature": request.temperature, "top_p": request.top_p}
        return HTTPCall(
            "/v1/messages", self._headers, json_fields.dump(json_fields.without_none(body))
        )

    def decode(self, body: bytes) -> ChatReply:
        try:
            reply = json_fields.parse(body)
            if reply.get("type") == "error":
                raise failures.broken_off(_NAME, self._refusal(json_fields.fields(reply, "error")))
            return _reply(reply)
        except Unreadable:
            raise failures.not_understood(_NAME, "a reply") from None

    def open_stream(self) -> "_StreamDecoder":
        return _StreamDecoder(self._refusal)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        try:
            error = json_fields.fields(json_fields.parse(body), "error")
        except Unreadable:
            error = {}
        return failures.refused(_NAME, status, headers, self._refusal(error, status), now=self._now)

    def _refusal(self, error: Fields, status: int | None = None) -> Refusal:
        prose = error.get("message")
        prose = prose if isinstance(prose, str) else ""
        details = error.get("details")
        code = json_fields.identifier(
            details.get("error_code") if isinstance(details, dict) else None
        )
        kind = json_fields.identifier(error.get("type"))
        blame = failures.blame_of(status) if status else _KINDS.get(kind or "", Blame.VENDOR)
        is_account_code = kind == "billing_error" or _ACCOUNT_CODES.fullmatch(code or "")
        if is_account_code or (blame is Blame.REQUEST and _ACCOUNT_PROSE.match(prose)):
            blame = Blame.ACCOUNT
        if blame is Blame.REQUEST and code is None:
            code = next((word for known, word in _PROSE_CODES if known.search(prose)), None)
        return Refusal(blame, code or kind, detail=self._redacted(prose))

    def _redacted(self, prose: str) -> str:
        return prose.replace(self._settings.api_key.get_secret_value(), "***")


Adapter = Anthropic
"""The name by which the composition root finds it."""


class _StreamDecoder:
    def __init__(self, refusal: Callable[[Fields], Refusal]) -> None:
        self._refusal = refusal
        self._is_done = False
        self._finished = False
        # Both are told once, at the start, and travel with the first chunk that says something:
        # before that the provider can still be changed.
        self._id: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._tools: dict[int, int] = {}  # index of a content block -> number of the tool call
        self._silent_tools: set[int] = set()  # blocks whose arguments have not begun

    def feed(self, event: ServerSentEvent) -> tuple[Chunk, ...]:
        read = _READERS.get(event.event)
        if read is None or self._is_done:  # unknown events are to be ignored
            return ()
        try:
            chunk = read(self, json_fields.parse(event.data))
        except Unreadable:
            raise failures.not_understood(_NAME, "an event") from None
        if chunk is None:
            return ()
        chunk = replace(chunk, id=self._id, model=self._model)
        self._id = self._model = None
        return (chunk,)

    def close(self) -> None:
        if not (self._is_done and self._finished):
            raise failures.cut_off(_NAME)

    def _message_start(self, data: Fields) -> None:
        json_fields.require(data, "message")
        message = json_fields.fields(data, "message")
        self._id = json_fields.text(message, "id") or None
        self._model = json_fields.text(message, "model") or None
        # Not passed on: its output tokens are those of the first moment, and a stream that breaks
        # off later would be billed by them.
        self._usage = dict(json_fields.fields(message, "usage"))

    def _content_block_start(self, data: Fields) -> Chunk | None:
        json_fields.require(data, "content_block")
        block = json_fields.fields(data, "content_block")
        index = json_fields.count(data, "index")
        if block.get("type") == "text" and (text := json_fields.text(block, "text")):
            return Chunk(text=text)
        if block.get("type") != "tool_use":
            return None
        self._tools[index] = len(self._tools)
        self._silent_tools.add(index)
        return _tool_chunk(
            self._tools[index],
            id=json_fields.text(block, "id"),
            name=json_fields.text(block, "name"),
        )

    def _content_block_delta(self, data: Fields) -> Chunk | None:
        json_fields.require(data, "delta")
        delta = json_fields.fields(data, "delta")
        match delta.get("type"):
            case "text_delta":
                text = json_fields.text(delta, "text")
                return Chunk(text=text) if text else None
            case "input_json_delta":
                return self._arguments(data, json_fields.text(delta, "partial_json"))
            case _:  # thinking, signatures, citations and whatever comes
                return None

    def _arguments(self, data: Fields, piece: str) -> Chunk | None:
        index = json_fields.count(data, "index")
        if index not in self._tools or not piece:
            return None
        self._silent_tools.discard(index)
        return _tool_chunk(self._tools[index], arguments=piece)

    def _content_block_stop(self, data: Fields) -> Chunk | None:
        index = json_fields.count(data, "index")
        if index not in self._silent_tools:
            return None
        self._silent_tools.discard(index)
        return _tool_chunk(self._tools[index], arguments="{}")  # a call without arguments

    def _message_delta(self, data: Fields) -> Chunk | None:
        delta = json_fields.fields(data, "delta")
        # Running totals, of which it repeats only some.
        usage = json_fields.fields(data, "usage")
        self._usage |= {key: value for key, value in usage.items() if value is not None}
        chunk = Chunk(
            finish_reason=_finish_reason(delta),
            usage=_usage(self._usage),
            refusal=_explanation(delta),
        )
        self._finished = self._finished or chunk.finish_reason is not None
        return chunk if chunk.finish_reason or chunk.usage else None

    def _message_stop(self, _: Fields) -> None:
        self._is_done = True

    def _error(self, data: Fields) -> None:
        raise failures.broken_off(_NAME, self._refusal(json_fields.fields(data, "error")))


_READERS: Final[Mapping[str, Callable[[_StreamDecoder, Fields], Chunk | None]]] = {
    "message_start": _StreamDecoder._message_start,
    "content_block_start": _StreamDecoder._content_block_start,
    "content_block_delta": _StreamDecoder._content_block_delta,
    "content_block_stop": _StreamDecoder._content_block_stop,
    "message_delta": _StreamDecoder._message_delta,
    "message_stop": _StreamDecoder._message_stop,
    "error": _StreamDecoder._error,
}


def _message_obstacles(message: Message) -> Iterator[str]:
    if message.name and message.role != "tool":  # a result is named by its call already
        yield "name"
    if any(_arguments(call) is None for call in message.tool_calls):
        yield "tool_calls"
    for part in message.content:
        if isinstance(part, Image):
            if message.role not in ("user", "tool") or _image_source(part) is None:
                yield "image_url"
            if part.detail == "low":  # images are always read in full
                yield "detail"


def _system(messages: Iterable[Message]) -> str:
    texts = (message.text for message in messages if message.role == "system")
    return "\n\n".join(text for text in texts if text.strip())


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Alternating turns of user and assistant. The results of tools are the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        blocks = [] if message.role == "system" else _blocks(message)
        role = "assistant" if message.role == "assistant" else "user"
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    blocks = [block for part in message.content if (block := _block(part))]
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}
        return [result]
    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call)}
        for call in message.tool_calls
    ]
    return blocks + calls


def _block(part: Text | Image) -> dict[str, Any] | None:
    if isinstance(part, Image):
        return {"type": "image", "source": _image_source(part)}
    # Blank blocks are refused, and say nothing.
    return {"type": "text", "text": part.text} if part.text.strip() else None


def _image_source(image: Image) -> dict[str, Any] | None:
    if image.url.startswith("https://"):
        return {"type": "url", "url": image.url}
    match = _DATA_URL.fullmatch(image.url)
    if match is None:
        return None
    return {"type": "base64", "media_type": match[1], "data": match[2]}


def _arguments(call: ToolCall) -> dict[str, Any] | None:
    """The arguments as an object, which is the only form that is taken."""
    try:
        return dict(json_fields.parse(call.arguments or "{}"))
    except Unreadable:
        return None


def _tool(tool: Tool) -> dict[str, Any]:
    return json_fields.without_none(
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": {"type": "object", **(tool.parameters or {})},
            "strict": tool.strict,
        }
    )


def _tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    wanted = request.tool_choice
    one_at_a_time = request.parallel_tool_calls is False
    if not request.tools or (wanted is None and not one_at_a_time):
        return None
    choice: dict[str, Any]
    if wanted and wanted.startswith("tool:"):
        choice = {"type": "tool", "name": wanted.removeprefix("tool:")}
    else:
        choice = {"type": _TOOL_CHOICES[wanted or "auto"]}
    if one_at_a_time and wanted != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _output_config(request: ChatRequest) -> dict[str, Any] | None:
    if request.response_format is None:
        return None
    schema = _schema(request.response_format)
    return {"format": {"type": "json_schema", "schema": schema}}


def _schema(wanted: ResponseFormat) -> dict[str, Any] | None:
    schema = (wanted.json_schema or {}).get("schema")
    return schema if wanted.type == "json_schema" and isinstance(schema, dict) else None


def _reply(reply: Fields) -> ChatReply:
    json_fields.require(reply, "content", "stop_reason")
    blocks = [json_fields.as_fields(block) for block in json_fields.items(reply, "content")]
    return ChatReply(
        id=json_fields.text(reply, "id"),
        model=json_fields.text(reply, "model"),
        text="".join(json_fields.text(b, "text") for b in blocks if b.get("type") == "text"),
        finish_reason=_finish_reason(reply) or "stop",
        usage=_usage(reply.get("usage")),
        tool_calls=tuple(_tool_call(b) for b in blocks if b.get("type") == "tool_use"),
        refusal=_explanation(reply) or None,
    )


def _tool_call(block: Fields) -> ToolCall:
    return ToolCall(
        id=json_fields.text(block, "id"),
        name=json_fields.text(block, "name"),
        arguments=json_fields.dump(json_fields.fields(block, "input")).decode(),
    )


def _tool_chunk(
    index: int, *, id: str | None = None, name: str | None = None, arguments: str = ""
) -> Chunk:
    return Chunk(tool_calls=(ToolCallDelta(index, id, name, arguments),))


def _finish_reason(source: Fields) -> FinishReason | None:
    reason = json_fields.text(source, "stop_reason")
    return _FINISH_REASONS.get(reason, "stop") if reason else None


def _explanation(source: Fields) -> str:
    """What a refusal says about itself, if anything."""
    if source.get("stop_reason") != "refusal":
        return ""
    return json_fields.text(json_fields.fields(source, "stop_details"), "explanation")


def _usage(source: object) -> TokenUsage | None:
    """What was billed; `None` when that cannot be known, which is no reason to lose a reply."""
    try:
        usage = json_fields.as_fields(source)
        json_fields.require(usage, "input_tokens", "output_tokens")
        read = json_fields.count(usage, "cache_read_input_tokens")
        written = json_fields.count(usage, "cache_creation_input_tokens")
        details = json_fields.fields(usage, "output_tokens_details")
        return token_usage(
            input_tokens=json_fields.count(usage, "input_tokens") + read + written,
            output_tokens=json_fields.count(usage, "output_tokens"),
            cached=read,
            cache_write=written,
            reasoning=json_fields.count(details, "thinking_tokens"),
        )
    except Unreadable:
        return None
