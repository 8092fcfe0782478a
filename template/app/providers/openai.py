"""OpenAI's Chat Completions API.

The model's own reasoning is off unless `OPENAI_REASONING_EFFORT` says otherwise: it is billed as
output, counts towards the output limit, and rules out tools, `temperature` and `top_p` here.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from ..errors import ProviderError
from ..messages import (
    ChatReply,
    ChatRequest,
    Chunk,
    FinishReason,
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

_NAME: Final = "openai"

# Parameters that no caller sets: a complaint about them is about our configuration.
_OUR_PARAMETERS: Final = frozenset(("model", "reasoning_effort"))


class OpenAISettings(ProviderSettings):
    model_config = SettingsConfigDict(env_prefix="OPENAI_")

    api_key: SecretStr = Field(
        description="Key of your OpenAI project: https://platform.openai.com/api-keys"
    )
    model: str = Field(
        default="gpt-6-luna", min_length=1, description="Model to ask, by the vendor's name for it."
    )
    base_url: str = Field(
        repr=False,
        default="https://api.openai.com/v1",
        description="Where OpenAI's API is reached: the vendor, or a gateway before it.",
    )
    reasoning_effort: Literal[
        "none", "minimal", "low", "medium", "high", "xhigh", "max", "unset"
    ] = Field(
        default="none",
        description="How much the model thinks first: `none`, `minimal`, `low`, `medium`,"
        " `high`, `xhigh` or `max`. Beyond `none` OpenAI takes no tools, `temperature` or"
        " `top_p`. `unset` is for models that know no such parameter.",
    )


class OpenAI:
    """Adapter for one configured model. Does no input or output."""

    name: ClassVar[str] = _NAME
    settings_type: ClassVar[type[ProviderSettings]] = OpenAISettings
    price_list_id: ClassVar[str] = "openai"
    telemetry_name: ClassVar[str] = "openai"
    input_token_factor: ClassVar[float] = 1.0
    preamble_tokens: ClassVar[int] = 0
    tool_preamble_tokens: ClassVar[int] = 0

    def __init__(self, settings: OpenAISettings, *, now: Clock = time.time) -> None:
        self._settings = settings
        self._now = now
        self._headers = {
            "authorization": f"Bearer {settings.api_key.get_secret_value()}",
            "content-type": "application/json",
        }

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def image_tokens(self) -> int:
        """The dearest `high` image: 1,536 patches at 2.46 tokens each.

        https://developers.openai.com/api/docs/guides/images-vision#calculating-costs
        """
        return 48_169 if self.model.startswith("gpt-4o-mini") else 3_779

    @property
    def thinks_out_of_sight(self) -> bool:
        # Without the parameter the model's own default holds, which is to think in newer ones.
        return self._settings.reasoning_effort != "none"

    @property
    def _reasons(self) -> bool:
        return self._settings.reasoning_effort not in ("none", "unset")

    def unsupported(self, request: ChatRequest) -> str | None:
        return next(self._obstacles(request), None)

    def _obstacles(self, request: ChatRequest) -> Iterator[str]:
        # https://developers.openai.com/api/docs/guides/latest-model
        if self._reasons:
            if request.tools:
                yield "tools"
            if request.temperature not in (None, 1):
                yield "temperature"
            if request.top_p not in (None, 1):
                yield "top_p"
        if chat_completions.has_image_of_another(request):
            yield "image_url"

    def encode(self, request: ChatRequest, *, stream: bool) -> HTTPCall:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [chat_completions.message(message) for message in request.messages],
            "max_completion_tokens": request.max_output_tokens,
            **chat_completions.parameters(request),
        }
        if self._settings.reasoning_effort != "unset":
            body["reasoning_effort"] = self._settings.reasoning_effort
        if not self._reasons:
            body |= {"temperature": request.temperature, "top_p": request.top_p}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return HTTPCall(
            chat_completions.PATH, self._headers, json_fields.dump(json_fields.without_none(body))
        )

    def decode(self, body: bytes) -> ChatReply:
        try:
            reply = json_fields.parse(body)
            if reply.get("error") is not None:
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
        # Some errors name their kind in `code`, some only in `type`.
        codes = [json_fields.identifier(error.get(key)) for key in ("code", "type")]
        param = json_fields.path(error.get("param"))
        blame = failures.blame_of(status) if status else Blame.VENDOR
        if chat_completions.ACCOUNT_CODES.intersection(codes) or param in _OUR_PARAMETERS:
            blame = Blame.ACCOUNT
        elif chat_completions.REQUEST_CODES.intersection(codes):
            blame = Blame.REQUEST
        return Refusal(blame, codes[0] or codes[1], param, self._redacted(error.get("message")))

    def _redacted(self, prose: object) -> str | None:
        if not isinstance(prose, str):
            return None
        return prose.replace(self._settings.api_key.get_secret_value(), "***")


Adapter = OpenAI
"""The name by which the composition root finds it."""


class _StreamDecoder:
    def __init__(self, refusal: Callable[[Fields], Refusal]) -> None:
        self._refusal = refusal
        self._is_done = False
        self._finished = False

    def feed(self, event: ServerSentEvent) -> tuple[Chunk, ...]:
        if self._is_done or event.event not in ("message", "error"):
            return ()
        if event.data == "[DONE]":
            self._is_done = True
            return ()
        try:
            return self._chunks(json_fields.parse(event.data))
        except Unreadable:
            raise failures.not_understood(_NAME, "an event") from None

    def close(self) -> None:
        if not (self._is_done and self._finished):
            raise failures.cut_off(_NAME)

    def _chunks(self, data: Fields) -> tuple[Chunk, ...]:
        if data.get("error") is not None:
            raise failures.broken_off(_NAME, self._refusal(json_fields.fields(data, "error")))
        json_fields.require(data, "choices")
        choices = [json_fields.as_fields(choice) for choice in json_fields.items(data, "choices")]
        # The usage comes in a last chunk without choices.
        choice = next((c for c in choices if json_fields.count(c, "index") == 0), {})
        delta = json_fields.fields(choice, "delta")
        finish_reason = _finish_reason(choice)
        self._finished = self._finished or finish_reason is not None
        chunk = Chunk(
            text=json_fields.text(delta, "content"),
            tool_calls=tuple(map(_tool_call_delta, json_fields.items(delta, "tool_calls"))),
            finish_reason=finish_reason,
            usage=_usage(data),
            id=json_fields.text(data, "id") or None,
            model=json_fields.text(data, "model") or None,
            refusal=json_fields.text(delta, "refusal"),
        )
        says_something = (
            chunk.text or chunk.tool_calls or chunk.refusal or chunk.usage or chunk.finish_reason
        )
        # The first one only names the role. With it a stream would count as begun, and the
        # provider could not be changed any more.
        return (chunk,) if says_something else ()


def _reply(reply: Fields) -> ChatReply:
    choices = json_fields.items(reply, "choices")
    if not choices:
        raise Unreadable("no choices")
    choice = json_fields.as_fields(choices[0])
    json_fields.require(choice, "message", "finish_reason")
    message = json_fields.fields(choice, "message")
    return ChatReply(
        id=json_fields.text(reply, "id"),
        model=json_fields.text(reply, "model"),
        text=json_fields.text(message, "content"),
        finish_reason=_finish_reason(choice) or "stop",
        usage=_usage(reply),
        tool_calls=tuple(map(_tool_call, json_fields.items(message, "tool_calls"))),
        refusal=json_fields.text(message, "refusal") or None,
    )


def _finish_reason(choice: Fields) -> FinishReason | None:
    reason = json_fields.text(choice, "finish_reason")
    return chat_completions.FINISH_REASONS.get(reason, "stop") if reason else None


def _tool_call(value: object) -> ToolCall:
    call = json_fields.as_fields(value)
    json_fields.require(call, "function")
    function = json_fields.fields(call, "function")
    return ToolCall(
        id=json_fields.text(call, "id"),
        name=json_fields.text(function, "name"),
        arguments=json_fields.text(function, "arguments"),
    )


def _tool_call_delta(value: object) -> ToolCallDelta:
    call = json_fields.as_fields(value)
    function = json_fields.fields(call, "function")
    return ToolCallDelta(
        index=json_fields.count(call, "index"),
        id=json_fields.text(call, "id") or None,
        name=json_fields.text(function, "name") or None,
        arguments=json_fields.text(function, "arguments"),
    )


def _usage(source: Fields) -> TokenUsage | None:
    """What was billed; `None` when that cannot be known, which is no reason to lose a reply."""
    try:
        usage = json_fields.fields(source, "usage")
        if not usage:
            return None
        json_fields.require(usage, "prompt_tokens", "completion_tokens")
        prompt = json_fields.fields(usage, "prompt_tokens_details")
        completion = json_fields.fields(usage, "completion_tokens_details")
        return token_usage(
            input_tokens=json_fields.count(usage, "prompt_tokens"),
            output_tokens=json_fields.count(usage, "completion_tokens"),
            cached=json_fields.count(prompt, "cached_tokens"),
            cache_write=json_fields.count(prompt, "cache_write_tokens"),
            reasoning=json_fields.count(completion, "reasoning_tokens"),
        )
    except Unreadable:
        return None
