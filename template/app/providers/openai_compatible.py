"""Any server that speaks OpenAI's chat completions: Ollama, vLLM, llama.cpp, Groq, Mistral ...

It is sent only what all of them take, and its answers are read in all the forms that they make of
the format. Which model answers there, how it counts and what it costs is for the settings to say.
"""

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from ..errors import ProviderError
from ..messages import (
    ChatReply,
    ChatRequest,
    Chunk,
    FinishReason,
    Message,
    Text,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
)
from . import chat_completions, failures, json_fields
from .base import HTTPCall, ProviderSettings, ServerSentEvent
from .failures import Blame, Refusal
from .json_fields import Fields, Unreadable
from .retry_after import Clock
from .usage import token_usage

_NAME: Final = "openai_compatible"

_ACCOUNT_CODES: Final = chat_completions.ACCOUNT_CODES | {
    "authentication_error",
    "budget_exceeded",  # LiteLLM
    "exceeded_current_quota_error",  # Moonshot
    "insufficient_balance",
    "invalid_model",  # Mistral
    "model_decommissioned",  # Groq
    "model_terms_required",
    "permission_error",
}
# Parameters that no caller sets: a complaint about them is about our configuration.
_OUR_PARAMETERS: Final = frozenset(("model", "stream", "stream_options"))
_CONTEXT_CODES: Final = frozenset(
    ("context_length_exceeded", "context_window_exceeded", "exceed_context_size_error")
)
# Most say it in prose alone. A caller's words quoted in there can change the code of a request
# that is refused anyway, and nothing else.
_CONTEXT_PROSE: Final = re.compile(
    r"context (length|size|window)|max_model_len|maximum (model|prompt|sequence) length"
    r"|reduce the length of the (input|messages|prompt)|prompt (is )?too long"
    r"|tokens \+ .?max_new_tokens|context the overflows",
    re.IGNORECASE,
)
# Only beginnings count: further on a message may quote the caller.
_MODEL_PROSE: Final = re.compile(
    r"invalid model|model not exist|\S+ is not a valid model", re.IGNORECASE
)
_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    **chat_completions.FINISH_REASONS,
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "refusal": "content_filter",
    "safety": "content_filter",
}
_FAILED: Final = frozenset(
    ("abort", "aborted", "cancelled", "error", "failed", "insufficient_system_resource")
)
"""Words for an end that is none: what came before it is no whole reply."""
_THINKING: Final = frozenset(("reasoning", "thinking"))
_MAX_NESTING: Final = 4


class OpenAICompatibleSettings(ProviderSettings):
    model_config = SettingsConfigDict(env_prefix="OPENAI_COMPATIBLE_")

    may_be_local: ClassVar[bool] = True

    api_key: SecretStr | None = Field(
        default=None, description="Key of the server, if it wants one."
    )
    model: str = Field(min_length=1, description="Name of the model, as the server lists it.")
    base_url: str = Field(
        repr=False,
        description="Address of the server's API, as its maker documents it. Most end in /v1:"
        " http://localhost:11434/v1 for Ollama, http://vllm:8000/v1 for vLLM,"
        " https://api.groq.com/openai/v1 for Groq.",
    )
    input_usd_per_mtok: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Price of a million input tokens in dollars; 0 for a server of your own.",
    )
    output_usd_per_mtok: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Price of a million output tokens in dollars; 0 for a server of your own.",
    )
    stream_usage: bool = Field(
        default=True,
        description="Ask for a stream's usage; `false` for servers that refuse"
        " `stream_options`, as Mistral's does, which sends the usage unasked.",
    )
    thinks: bool = Field(
        default=True,
        description="Whether the model may think before it answers: a stream that breaks off is"
        " then charged its worst case, as nobody knows what it has thought.",
    )
    token_factor: float = Field(
        default=3.0,
        ge=1,
        le=12,
        allow_inf_nan=False,
        description="The most tokens that the model makes of what counts as one here: English"
        " with Llama or Qwen 1.2, digits with Mistral 3, Hindi or Georgian up to 7.",
    )


class OpenAICompatible:
    """Adapter for one configured model. Does no input or output."""

    name: ClassVar[str] = _NAME
    settings_type: ClassVar[type[ProviderSettings]] = OpenAICompatibleSettings
    price_list_id: ClassVar[str] = ""
    telemetry_name: ClassVar[str] = "openai_compatible"
    preamble_tokens: ClassVar[int] = 192
    """A model's template tells it its name and the date: Llama 3 in about 20 tokens, gpt-oss in 60
    to 70 (https://github.com/ollama/ollama/issues/11676). Nobody lists them all: with room."""
    tool_preamble_tokens: ClassVar[int] = 192
    """And how to write a call: Llama 3 and Qwen in about 100."""

    def __init__(
        self,
        settings: OpenAICompatibleSettings,
        *,
        now: Clock = time.time,
        new_call_id: Callable[[], str] = lambda: uuid.uuid4().hex[:9],
    ) -> None:
        """`new_call_id` names a tool call that has no id. Mistral takes nine letters and digits
        back, and nothing else."""
        self._settings = settings
        self._now = now
        self._new_call_id = new_call_id
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._headers = {"content-type": "application/json"}
        if self._key:
            self._headers["authorization"] = f"Bearer {self._key}"

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def input_token_factor(self) -> float:
        """Measured, in tokens for each of o200k's: English, code and most of Europe 1.0 to 1.5,
        digits 3 where each is a token (Mistral, Qwen), scripts that a vocabulary spells out in
        bytes 3 to 7 (Hindi, Georgian; with Llama 4 and Mistral's newer one below 2)."""
        return self._settings.token_factor

    @property
    def image_tokens(self) -> int:
        """What Qwen's models make of the largest image that they do not scale down; Llama, Pixtral
        and Gemma stay below half of it.

        https://github.com/QwenLM/Qwen2.5-VL#image-resolution-for-performance-boost
        """
        return 16_384

    @property
    def thinks_out_of_sight(self) -> bool:
        return self._settings.thinks

    def unsupported(self, request: ChatRequest) -> str | None:
        # Of anything else the server, which alone knows its model, says so itself.
        return "image_url" if chat_completions.has_image_of_another(request) else None

    def encode(self, request: ChatRequest, *, stream: bool) -> HTTPCall:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [_message(message) for message in request.messages],
            # Servers refuse the newer `max_completion_tokens`, or worse, ignore it.
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            **chat_completions.parameters(request),
        }
        if stream:
            body["stream"] = True
            if self._settings.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return HTTPCall(
            chat_completions.PATH,
            self._headers,
            json_fields.dump(json_fields.without_none(body)),
        )

    def decode(self, body: bytes) -> ChatReply:
        try:
            reply = json_fields.parse(body)
            self.refuse_error(reply)
            return self._reply(reply)
        except Unreadable:
            raise failures.not_understood(_NAME, "a reply") from None

    def open_stream(self) -> "_StreamDecoder":
        return _StreamDecoder(self, self._new_call_id)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        refusal = self._refusal(_complaint(_value(body)), status)
        return failures.refused(_NAME, status, headers, refusal, now=self._now)

    def refuse_error(self, data: Fields) -> None:
        """Raises the error that came with status 200, in any of the forms that errors have."""
        bare = "choices" not in data and ("detail" in data or "message" in data)
        if data.get("error") or bare:
            raise failures.broken_off(_NAME, self._refusal(_complaint(data)))

    def finish_reason(self, choice: Fields) -> FinishReason | None:
        """Raises `ProviderError` for a word that says that the reply is not whole."""
        word = json_fields.text(choice, "finish_reason").lower()
        if word in _FAILED or choice.get("error"):
            raise failures.broken_off(_NAME, self._refusal(_complaint(choice.get("error"))))
        return _FINISH_REASONS.get(word, "stop") if word else None

    def _reply(self, reply: Fields) -> ChatReply:
        choices = json_fields.items(reply, "choices")
        if not choices:
            raise Unreadable("no choices")
        choice = json_fields.as_fields(choices[0])
        finish_reason = self.finish_reason(choice)
        message = json_fields.fields(choice, "message")
        text = _text(message)
        calls = tuple(map(self._tool_call, json_fields.items(message, "tool_calls")))
        refusal = json_fields.text(message, "refusal") or None
        if not (finish_reason or text or calls or refusal):
            raise Unreadable("an empty reply")
        return ChatReply(
            id=json_fields.text(reply, "id"),
            model=json_fields.text(reply, "model") or self.model,
            text=text,
            finish_reason=finish_reason or ("tool_calls" if calls else "stop"),
            usage=_usage(reply, choice),
            tool_calls=calls,
            refusal=refusal,
        )

    def _tool_call(self, value: object) -> ToolCall:
        call = json_fields.as_fields(value)
        function = json_fields.fields(call, "function")
        json_fields.require(function, "name")
        return ToolCall(
            id=json_fields.text(call, "id") or self._new_call_id(),
            name=json_fields.text(function, "name"),
            arguments=_arguments(function),
        )

    def _refusal(self, complaint: "_Complaint", status: int | None = None) -> Refusal:
        # An error inside a 200 names the status that it would have had, if any.
        status = status or complaint.status
        blame = failures.blame_of(status) if status else Blame.VENDOR
        codes, prose = complaint.codes, complaint.prose
        code = codes[0] if codes else None
        if complaint.is_moderation:
            blame, code = Blame.REQUEST, "content_policy_violation"
        elif complaint.is_ours or (status == 413 and "rate_limit_exceeded" in codes):
            # Groq says 413 when a request is beyond what the account may send in a minute.
            blame = Blame.ACCOUNT
        elif _CONTEXT_CODES.intersection(codes) or (
            blame is Blame.REQUEST and _CONTEXT_PROSE.search(prose)
        ):
            blame, code = Blame.REQUEST, "context_length_exceeded"
        elif chat_completions.REQUEST_CODES.intersection(codes):
            blame = Blame.REQUEST
        return Refusal(blame, code, complaint.param, self._redacted(prose))

    def _redacted(self, prose: str) -> str:
        return prose.replace(self._key, "***") if self._key else prose


Adapter = OpenAICompatible
"""The name by which the composition root finds it."""


class _StreamDecoder:
    """A finish reason ends a reply: what may still come is the usage, and not all say `[DONE]`."""

    def __init__(self, adapter: OpenAICompatible, new_call_id: Callable[[], str]) -> None:
        self._adapter = adapter
        self._calls = _Calls(new_call_id)
        self._usage: TokenUsage | None = None
        self._has_begun = False
        self._is_done = False
        self._is_whole = False

    def feed(self, event: ServerSentEvent) -> tuple[Chunk, ...]:
        data = event.data.strip()
        if self._is_done or event.event not in ("message", "error") or not data:
            return ()
        if data == "[DONE]":
            self._is_done = True
            return ()
        try:
            return self._chunks(json_fields.parse(data))
        except Unreadable:
            self._is_whole, self._is_done = False, True
            raise failures.not_understood(_NAME, "an event") from None
        except ProviderError:
            self._is_whole, self._is_done = False, True
            raise

    def close(self) -> None:
        if not self._is_whole:
            raise failures.cut_off(_NAME)

    def _chunks(self, data: Fields) -> tuple[Chunk, ...]:
        self._adapter.refuse_error(data)
        if not data.get("usage"):
            json_fields.require(data, "choices")
        choices = [json_fields.as_fields(choice) for choice in json_fields.items(data, "choices")]
        choice = next((c for c in choices if json_fields.count(c, "index") == 0), {})
        delta = json_fields.fields(choice, "delta")
        finish_reason = self._adapter.finish_reason(choice)
        self._is_whole = self._is_whole or finish_reason is not None
        # Some report a running total from the first event on, before anything is said.
        self._usage = _usage(data, choice) or self._usage
        chunk = Chunk(
            text=_text(delta),
            tool_calls=tuple(map(self._calls.delta, json_fields.items(delta, "tool_calls"))),
            finish_reason=finish_reason,
            usage=self._usage,
            id=json_fields.text(data, "id") or None,
            model=json_fields.text(data, "model") or self._adapter.model,
            refusal=json_fields.text(delta, "refusal"),
        )
        says_something = chunk.text or chunk.tool_calls or chunk.refusal or chunk.finish_reason
        self._has_begun = self._has_begun or bool(says_something)
        if not (says_something or (chunk.usage and self._has_begun)):
            # With a chunk a stream would count as begun, and the provider could not be changed.
            return ()
        self._usage = None
        return (chunk,)


@dataclass(slots=True)
class _Call:
    index: int
    id: str
    is_named: bool = False
    is_announced: bool = False


class _Calls:
    """Tells the tool calls of one stream apart, where servers leave out `index` or `id`, or give
    each call the same `index`."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def delta(self, value: object) -> ToolCallDelta:
        piece = json_fields.as_fields(value)
        function = json_fields.fields(piece, "function")
        name = json_fields.text(function, "name")
        call = self._call_of(piece, name)
        is_first, call.is_announced = not call.is_announced, True
        tells_name, call.is_named = bool(name) and not call.is_named, call.is_named or bool(name)
        return ToolCallDelta(
            index=call.index,
            id=call.id if is_first else None,
            name=name if tells_name else None,
            arguments=_arguments(function),
        )

    def _call_of(self, piece: Fields, name: str) -> _Call:
        id_ = json_fields.text(piece, "id")
        known = next((call for call in self._calls if id_ and call.id == id_), None)
        if known is not None:
            return known
        if piece.get("index") is None:
            return self._calls[-1] if self._calls and not name else self._begin(id_)
        index = json_fields.count(piece, "index")
        # Another id alone begins nothing: older vLLM makes one up for each piece.
        if index not in self._by_index or (id_ and name):
            self._by_index[index] = self._begin(id_)
        return self._by_index[index]

    def _begin(self, id_: str) -> _Call:
        call = _Call(len(self._calls), id_ or self._new_id())
        self._calls.append(call)
        return call


def _message(message: Message) -> dict[str, Any]:
    body = chat_completions.message(message)
    if len(message.content) > 1 and all(isinstance(part, Text) for part in message.content):
        # Text in parts is for models that see: many templates of others take a string alone.
        body["content"] = "\n".join(part.text for part in message.content if isinstance(part, Text))
    return body


def _text(message: Fields) -> str:
    """What the model says. What it thinks is no part of it, whether it stands in a member of its
    own (`reasoning_content`, `reasoning`) or in parts of the content."""
    content = message.get("content")
    if not isinstance(content, list):
        return json_fields.text(message, "content")
    parts = map(json_fields.as_fields, content)
    return "".join(_part_text(part) for part in parts if part.get("type") not in _THINKING)


def _part_text(part: Fields) -> str:
    if part.get("type") != "text":
        raise Unreadable("a part that is no text")
    return json_fields.text(part, "text")


def _arguments(function: Fields) -> str:
    """JSON text, or the object itself, as Ollama's own API has it."""
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        return json_fields.dump(arguments).decode()
    return json_fields.text(function, "arguments")


def _usage(source: Fields, choice: Fields) -> TokenUsage | None:
    """What was billed, wherever it stands; `None` when that cannot be known."""
    beside = source.get("x_groq")
    places = (source, beside if isinstance(beside, dict) else {}, choice)
    return next((found for place in places if (found := _readable_usage(place))), None)


def _readable_usage(place: Fields) -> TokenUsage | None:
    try:
        usage = json_fields.fields(place, "usage")
        input_tokens = json_fields.count(usage, "prompt_tokens")
        if not input_tokens:  # some put zeros for what they do not know
            return None
        json_fields.require(usage, "completion_tokens")
        prompt = json_fields.fields(usage, "prompt_tokens_details")
        completion = json_fields.fields(usage, "completion_tokens_details")
        reasoning = json_fields.count(completion, "reasoning_tokens")
        return token_usage(
            input_tokens=input_tokens,
            # Some servers count what was thought into the total alone.
            output_tokens=max(
                json_fields.count(usage, "completion_tokens"),
                json_fields.count(usage, "total_tokens") - input_tokens,
                reasoning,
            ),
            cached=json_fields.count(prompt, "cached_tokens")
            or json_fields.count(usage, "prompt_cache_hit_tokens"),  # DeepSeek
            cache_write=0,
            reasoning=reasoning,
        )
    except Unreadable:
        return None


@dataclass(frozen=True, slots=True)
class _Complaint:
    """What a server says is wrong. `prose` may quote the key and the prompt."""

    codes: tuple[str, ...] = ()
    status: int | None = None
    param: str | None = None
    prose: str = ""
    is_moderation: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it is about the key, the quota, the model or what else no caller sets."""
        place = (self.param or "").partition(".")[0]
        return bool(
            _ACCOUNT_CODES.intersection(self.codes)
            or place in _OUR_PARAMETERS
            or _MODEL_PROSE.match(self.prose)
        )


def _value(body: bytes) -> object:
    """JSON, or text that is neither a page nor broken JSON."""
    try:
        return json_fields.load(body)
    except Unreadable:
        text = body.decode("utf-8", "replace").strip()
        return None if text.startswith(("<", "{", "[")) else text


def _complaint(value: object) -> _Complaint:
    """Reads `{"error": {...}}`, `{"error": "..."}`, `{"detail": "..."}`, Pydantic's list of places,
    `{"message": "...", "object": "error"}`, a list of any of these, and bare text."""
    for _ in range(_MAX_NESTING):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict):
            inner = (value.get(key) for key in ("error", "detail", "message"))
            nested = next((item for item in inner if item and isinstance(item, dict | list)), None)
            if nested is None:
                return _said(value)
            value = nested
    return _Complaint(prose=value) if isinstance(value, str) else _Complaint()


def _said(error: Fields) -> _Complaint:
    words = (json_fields.identifier(error.get(key)) for key in ("code", "type", "error_type"))
    texts = (error.get(key) for key in ("message", "msg", "detail", "error"))
    metadata = error.get("metadata")
    return _Complaint(
        codes=tuple(word for word in words if word),
        status=_status(error),
        param=json_fields.path(error.get("param")) or _place(error.get("loc")),
        prose=next((text for text in texts if text and isinstance(text, str)), ""),
        is_moderation=isinstance(metadata, dict) and "flagged_input" in metadata,  # OpenRouter
    )


def _status(error: Fields) -> int | None:
    for number in map(str, (error.get("code"), error.get("status"), error.get("status_code"))):
        if re.fullmatch(r"[45]\d\d", number):
            return int(number)
    return None


def _place(loc: object) -> str | None:
    """Pydantic's `["body", "messages", 0, "name"]` as `messages.0.name`."""
    if not isinstance(loc, list):
        return None
    steps = [str(step) for step in loc if isinstance(step, str | int)]
    return json_fields.path(".".join(steps[1:] if steps[:1] == ["body"] else steps))
