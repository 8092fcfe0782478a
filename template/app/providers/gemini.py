"""Google's Gemini API, by its method `generateContent`.

The model thinks as little as it can unless `GEMINI_THINKING` says otherwise: it is billed as output
and counts towards the output limit. Current models cannot be kept from it altogether.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlsplit

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
    ReplyBuilder,
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

_NAME: Final = "gemini"

_BEFORE_3: Final = re.compile(r"gemini-[12]\.")
# From 3.5 Flash-Lite and 3.6 Flash on, sampling parameters are ignored:
# https://ai.google.dev/gemini-api/docs/generate-content/whats-new-gemini-3.6
_MODELS_WITH_SAMPLING: Final = re.compile(r"gemini-([12]\.|3-|3\.[0-4]-|3\.5-flash(?!-lite))")

_MAX_STOP_SEQUENCES: Final = 5
_MAX_SEED: Final = 2**31 - 1

_DATA_URL: Final = re.compile(
    r"data:(image/(?:jpeg|png|webp|heic|heif));base64,([A-Za-z0-9+/]+={0,2})", re.ASCII
)
# What the API fetches must be declared, and as an image, lest a caller's link turn out to be an
# hour of video: https://ai.google.dev/gemini-api/docs/file-input-methods#external-urls
_IMAGE_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "bmp": "image/bmp",
}
# There a link is a video, or a file that belongs to the key's owner.
_NO_IMAGE_HOSTS: Final = ("youtube.com", "youtu.be", "generativelanguage.googleapis.com")

# What stands for one on a call that no Gemini model has made:
# https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_NO_SIGNATURE: Final = "skip_thought_signature_validator"

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "ESCALATION": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
# The model has lost its way: what came so far is no reply.
_FAILURES: Final[Mapping[str, Blame]] = {
    "MALFORMED_FUNCTION_CALL": Blame.VENDOR,
    "MALFORMED_RESPONSE": Blame.VENDOR,
    "MISSING_THOUGHT_SIGNATURE": Blame.VENDOR,
    "NO_IMAGE": Blame.VENDOR,
    "IMAGE_OTHER": Blame.VENDOR,
    "OTHER": Blame.VENDOR,
    "TOO_MANY_TOOL_CALLS": Blame.VENDOR,
    "UNEXPECTED_TOOL_CALL": Blame.VENDOR,
    "PUP_LIMITED_DISABLED": Blame.ACCOUNT,
}

_KINDS: Final[Mapping[str, Blame]] = {
    "cancelled": Blame.VENDOR,
    "failed_precondition": Blame.ACCOUNT,  # billing is off, or the region is not served
    "permission_denied": Blame.ACCOUNT,
    "unauthenticated": Blame.ACCOUNT,
}
_ACCOUNT_REASONS: Final = re.compile(r"(API_KEY|ACCESS_TOKEN|BILLING|CONSUMER|SERVICE)_.*")
# Google words these as plain refusals. Only beginnings count: further on a message may quote the
# caller.
_ACCOUNT_PROSE: Final = re.compile(
    r"your prepayment credits|your (project|billing account) has exceeded"
    r"|\W*(thinking|budget)\b",
    re.IGNORECASE,
)
_TOO_LONG: Final = re.compile(r"input token count.* exceeds", re.IGNORECASE)
_PLACE: Final = re.compile(
    r"\W*(?:GenerateContentRequest\.|Invalid value at ')([A-Za-z0-9_.\[\]]{1,200})"
)
_PARAMETERS: Final = {
    "contents": "messages",
    "system_instruction": "messages",
    "tools": "tools",
    "tool_config": "tool_choice",
    "max_output_tokens": "max_tokens",
    "response_mime_type": "response_format",
    "response_json_schema": "response_format",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "thinking_config": None,
}
_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)s")


class GeminiSettings(ProviderSettings):
    model_config = SettingsConfigDict(env_prefix="GEMINI_")

    api_key: SecretStr = Field(
        description="Key of your Gemini project: https://aistudio.google.com/apikey"
    )
    model: str = Field(
        default="gemini-3.5-flash-lite",
        min_length=1,
        description="Model to ask, by the vendor's name for it.",
    )
    base_url: str = Field(
        repr=False,
        default="https://generativelanguage.googleapis.com",
        description="Where Gemini's API is reached: the vendor, or a gateway before it.",
    )
    thinking: Literal["off", "minimal", "low", "medium", "high", "xhigh", "unset"] = Field(
        default="minimal",
        description="How much the model thinks first: `minimal`, `low`, `medium`, `high` or"
        " `xhigh`. Each model knows some of these (3.8 Flash begins at `low`); `off` is for"
        " 2.5 Flash, `unset` for models that know none.",
    )


class Gemini:
    """Adapter for one configured model. Does no input or output."""

    name: ClassVar[str] = _NAME
    settings_type: ClassVar[type[ProviderSettings]] = GeminiSettings
    price_list_id: ClassVar[str] = "google"
    telemetry_name: ClassVar[str] = "gcp.gemini"
    input_token_factor: ClassVar[float] = 2.0
    """100 tokens are 60 to 80 English words (https://ai.google.dev/gemini-api/docs/tokens), of
    which o200k makes 80 to 107: at most 1.25. Figures cost more, a token for each digit where
    o200k takes three together; a text of nothing else goes beyond the bound."""
    preamble_tokens: ClassVar[int] = 0
    tool_preamble_tokens: ClassVar[int] = 0

    def __init__(self, settings: GeminiSettings, *, now: Clock = time.time) -> None:
        self._settings = settings
        self._now = now
        self._is_before_3 = _BEFORE_3.match(settings.model) is not None
        self._takes_sampling = _MODELS_WITH_SAMPLING.match(settings.model) is not None
        self._path = f"/v1beta/models/{quote(settings.model, safe='')}"
        self._headers = {
            "x-goog-api-key": settings.api_key.get_secret_value(),
            "content-type": "application/json",
        }

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def image_tokens(self) -> int:
        """At the resolution that images get unless a lower one is asked for.

        https://ai.google.dev/gemini-api/docs/media-resolution#token-counts
        """
        return 256 + 2_048 if self._is_before_3 else 1_120

    @property
    def thinks_out_of_sight(self) -> bool:
        # "minimal does not guarantee that thinking is off":
        # https://ai.google.dev/gemini-api/docs/thinking#thinking-levels
        return self._settings.thinking != "off"

    def unsupported(self, request: ChatRequest) -> str | None:
        return next(self._obstacles(request), None)

    def _obstacles(self, request: ChatRequest) -> Iterator[str]:
        if not self._takes_sampling:
            if request.temperature not in (None, 1):  # at 1 it is left out, and holds
                yield "temperature"
            if request.top_p is not None:
                yield "top_p"
        if len(request.stop) > _MAX_STOP_SEQUENCES or "" in request.stop:
            yield "stop"
        if request.seed is not None and not -_MAX_SEED - 1 <= request.seed <= _MAX_SEED:
            yield "seed"
        yield from self._tool_obstacles(request)
        for message in request.messages:
            yield from self._message_obstacles(message)
        # A last turn of the model's would be continued, which newer models refuse and OpenAI's
        # format does not mean.
        turns = self._turns(request.messages)
        if not turns or turns[-1]["role"] == "model":
            yield "messages"

    def _tool_obstacles(self, request: ChatRequest) -> Iterator[str]:
        if not request.tools:
            if request.tool_choice not in (None, "auto", "none"):
                yield "tool_choice"
            return
        if request.parallel_tool_calls is False and request.tool_choice != "none":
            yield "parallel_tool_calls"
        if self._is_before_3 and request.response_format:
            yield "response_format"  # one of the two at a time

    def _message_obstacles(self, message: Message) -> Iterator[str]:
        if message.name and message.role != "tool":  # a result is named by its call already
            yield "name"
        if any(_arguments(call) is None for call in message.tool_calls):
            yield "tool_calls"
        for part in message.content:
            if isinstance(part, Image):
                if message.role != "user" or _image(part) is None:
                    yield "image_url"
                if part.detail == "low" and self._is_before_3:
                    yield "detail"

    def encode(self, request: ChatRequest, *, stream: bool) -> HTTPCall:
        system = _system(request.messages)
        body = {
            "systemInstruction": {"parts": [{"text": system}]} if system else None,
            "contents": self._turns(request.messages),
            "tools": [{"functionDeclarations": list(map(_declaration, request.tools))}]
            if request.tools
            else None,
            "toolConfig": _tool_config(request),
            "generationConfig": self._generation_config(request),
        }
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return HTTPCall(
            f"{self._path}:{method}",
            self._headers,
            json_fields.dump(json_fields.without_none(body)),
        )

    def _generation_config(self, request: ChatRequest) -> dict[str, Any]:
        config: dict[str, Any] = {
            "maxOutputTokens": request.max_output_tokens,
            "stopSequences": list(request.stop) or None,
            "seed": request.seed,
            "thinkingConfig": self._thinking_config(),
            "responseMimeType": "application/json" if request.response_format else None,
            "responseJsonSchema": _schema(request.response_format),
        }
        if self._takes_sampling:
            config |= {"temperature": request.temperature, "topP": request.top_p}
        return json_fields.without_none(config)

    def _thinking_config(self) -> dict[str, Any] | None:
        match self._settings.thinking:
            case "unset":
                return None
            case "off":
                return {"thinkingBudget": 0}
            case level:
                return {"thinkingLevel": level.upper()}

    def _turns(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Alternating turns of user and model. The results of tools are the user's."""
        turns: list[dict[str, Any]] = []
        names: dict[str | None, str] = {}
        for message in messages:
            names |= {call.id: call.name for call in message.tool_calls}
            parts = [] if message.role == "system" else self._parts(message, names)
            role = "model" if message.role == "assistant" else "user"
            if not parts:
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["parts"].extend(parts)
            else:
                turns.append({"role": role, "parts": parts})
        return turns

    def _parts(self, message: Message, names: Mapping[str | None, str]) -> list[dict[str, Any]]:
        if message.role == "tool":
            return [_result(message, names.get(message.tool_call_id, message.name or ""))]
        parts = [part for item in message.content if (part := _part(item))]
        return parts + self._calls(message.tool_calls)

    def _calls(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """From Gemini 3 on, the first call of a step is not taken without a signature."""
        parts = []
        for index, call in enumerate(calls):
            part: dict[str, Any] = {
                "functionCall": {"id": call.id, "name": call.name, "args": _arguments(call)}
            }
            if call.signature:
                part["thoughtSignature"] = _base64(call.signature)
            elif index == 0 and not self._is_before_3:
                part["thoughtSignature"] = _NO_SIGNATURE
            parts.append(part)
        return parts

    def decode(self, body: bytes) -> ChatReply:
        decoder = self.open_stream()
        builder = ReplyBuilder()
        try:
            for chunk in decoder.read(json_fields.parse(body)):
                builder.add(chunk)
            if builder.finish_reason is None:
                raise Unreadable("no finish reason")
        except Unreadable:
            raise failures.not_understood(_NAME, "a reply") from None
        return builder.reply()

    def open_stream(self) -> "_StreamDecoder":
        return _StreamDecoder(self._refusal, self._redacted)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        # It may stand alone in an array.
        text = body.strip().removeprefix(b"[").removesuffix(b"]")
        try:
            error = json_fields.fields(json_fields.parse(text), "error")
        except Unreadable:
            error = {}
        return failures.refused(_NAME, status, headers, self._refusal(error, status), now=self._now)

    def _refusal(self, error: Fields, status: int | None = None) -> Refusal:
        details = _details(error)
        prose = error.get("message")
        prose = prose if isinstance(prose, str) else ""
        kind = error.get("status")
        code = json_fields.identifier(kind.lower() if isinstance(kind, str) else None)
        param, is_ours = _parameter(details, prose)
        blame = _KINDS.get(code or "", failures.blame_of(status or _status(error)))
        if is_ours or _is_about_the_account(details) or _ACCOUNT_PROSE.match(prose):
            blame = Blame.ACCOUNT
        if blame is Blame.REQUEST and _TOO_LONG.search(prose):
            code = "context_length_exceeded"
        return Refusal(blame, code, param, self._redacted(prose), _retry_delay(details))

    def _redacted(self, prose: str) -> str:
        return prose.replace(self._settings.api_key.get_secret_value(), "***")


Adapter = Gemini
"""The name by which the composition root finds it."""


class _StreamDecoder:
    """A reply in one piece is read as a stream of one event."""

    def __init__(
        self, refusal: Callable[[Fields], Refusal], redacted: Callable[[str], str]
    ) -> None:
        self._refusal = refusal
        self._redacted = redacted
        self._finished = False
        self._calls = 0

    def feed(self, event: ServerSentEvent) -> tuple[Chunk, ...]:
        try:
            return self.read(json_fields.parse(event.data))
        except Unreadable:
            raise failures.not_understood(_NAME, "an event") from None

    def close(self) -> None:
        if not self._finished:
            raise failures.cut_off(_NAME)

    def read(self, data: Fields) -> tuple[Chunk, ...]:
        """Raises `Unreadable` for what is not the documented form, `ProviderError` for errors."""
        if data.get("error") is not None:
            raise failures.broken_off(_NAME, self._refusal(json_fields.fields(data, "error")))
        self._refuse_blocked(json_fields.fields(data, "promptFeedback"))
        if not data.keys() & {"candidates", "usageMetadata", "promptFeedback"}:
            raise Unreadable("none of the known members")
        candidates = map(json_fields.as_fields, json_fields.items(data, "candidates"))
        candidate = next((c for c in candidates if json_fields.count(c, "index") == 0), {})
        chunk = self._chunk(data, candidate)
        says_something = chunk.text or chunk.tool_calls or chunk.finish_reason or chunk.usage
        return (chunk,) if says_something else ()

    def _refuse_blocked(self, feedback: Fields) -> None:
        reason = json_fields.text(feedback, "blockReason")
        if reason:
            kind = json_fields.identifier(reason.lower()) or "other"
            prose = self._redacted(json_fields.text(feedback, "blockReasonMessage"))
            detail = prose or f"The prompt was blocked: {kind}."
            refusal = Refusal(Blame.REQUEST, "content_policy_violation", "messages", detail)
            raise failures.broken_off(_NAME, refusal)

    def _chunk(self, data: Fields, candidate: Fields) -> Chunk:
        content = json_fields.fields(candidate, "content")
        parts = [json_fields.as_fields(part) for part in json_fields.items(content, "parts")]
        response_id = json_fields.text(data, "responseId")
        calls = tuple(
            self._call(part, response_id) for part in parts if part.get("functionCall") is not None
        )
        finish_reason = self._finish_reason(candidate)
        is_refusal = finish_reason == "content_filter"
        return Chunk(
            text="".join(json_fields.text(part, "text") for part in parts if not _is_thought(part)),
            tool_calls=calls,
            finish_reason=finish_reason,
            # The counts on the way are running totals, which lag behind what has been written.
            usage=_usage(data) if self._finished else None,
            id=response_id or None,
            model=json_fields.text(data, "modelVersion") or None,
            refusal=json_fields.text(candidate, "finishMessage") if is_refusal else "",
        )

    def _call(self, part: Fields, response_id: str) -> ToolCallDelta:
        call = json_fields.fields(part, "functionCall")
        name = json_fields.text(call, "name")
        arguments = json_fields.dump(json_fields.fields(call, "args")).decode()
        index = self._calls
        self._calls += 1
        # Older models give their calls no id.
        made_of = f"{response_id}/{index}/{name}/{arguments}".encode()
        return ToolCallDelta(
            index,
            json_fields.text(call, "id") or f"call_{blake2b(made_of, digest_size=12).hexdigest()}",
            name,
            arguments,
            signature=_base64url(json_fields.text(part, "thoughtSignature")) or None,
        )

    def _finish_reason(self, candidate: Fields) -> FinishReason | None:
        reason = json_fields.text(candidate, "finishReason")
        if reason in _FAILURES:
            refusal = Refusal(_FAILURES[reason], json_fields.identifier(reason.lower()))
            raise failures.broken_off(_NAME, refusal)
        if not reason:
            return None
        self._finished = True
        finish_reason = _FINISH_REASONS.get(reason, "stop")
        return "tool_calls" if finish_reason == "stop" and self._calls else finish_reason


def _system(messages: Iterable[Message]) -> str:
    texts = (message.text for message in messages if message.role == "system")
    return "\n\n".join(text for text in texts if text.strip())


def _part(part: Text | Image) -> dict[str, Any] | None:
    if isinstance(part, Image):
        return _image(part)
    # Blank parts say nothing, and empty ones are refused.
    return {"text": part.text} if part.text.strip() else None


def _image(image: Image) -> dict[str, Any] | None:
    source = _inline_data(image.url) or _file_data(image.url)
    if source is None or image.detail == "auto":
        return source
    return {**source, "mediaResolution": {"level": f"MEDIA_RESOLUTION_{image.detail.upper()}"}}


def _inline_data(url: str) -> dict[str, Any] | None:
    match = _DATA_URL.fullmatch(url)
    return {"inlineData": {"mimeType": match[1], "data": match[2]}} if match else None


def _file_data(url: str) -> dict[str, Any] | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    mime_type = _IMAGE_TYPES.get(parts.path.rpartition(".")[2].lower())
    host = f".{parts.hostname or ''}".rstrip(".")
    if parts.scheme != "https" or mime_type is None:
        return None
    if any(host.endswith(f".{other}") for other in _NO_IMAGE_HOSTS):
        return None
    return {"fileData": {"fileUri": url, "mimeType": mime_type}}


def _result(message: Message, name: str) -> dict[str, Any]:
    result = {"id": message.tool_call_id, "name": name, "response": {"output": message.text}}
    return {"functionResponse": result}


def _arguments(call: ToolCall) -> dict[str, Any] | None:
    """The arguments as an object, which is the only form that is taken."""
    try:
        return dict(json_fields.parse(call.arguments or "{}"))
    except Unreadable:
        return None


def _declaration(tool: Tool) -> dict[str, Any]:
    return json_fields.without_none(
        {
            "name": tool.name,
            "description": tool.description,
            "parametersJsonSchema": tool.parameters,
        }
    )


def _tool_config(request: ChatRequest) -> dict[str, Any] | None:
    if not request.tools:
        return None
    config: dict[str, Any]
    match request.tool_choice:
        case "none":
            config = {"mode": "NONE"}
        case "required":
            config = {"mode": "ANY"}
        case str(choice) if choice.startswith("tool:"):
            config = {"mode": "ANY", "allowedFunctionNames": [choice.removeprefix("tool:")]}
        case _ if any(tool.strict for tool in request.tools):
            config = {"mode": "VALIDATED"}  # like AUTO, and held to the schemas
        case None:
            return None
        case _:
            config = {"mode": "AUTO"}
    return {"functionCallingConfig": config}


def _schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    schema = (wanted.json_schema or {}).get("schema") if wanted else None
    return schema if isinstance(schema, dict) else None


def _base64url(signature: str) -> str:
    """In letters that every client and every other vendor takes in an id."""
    return signature.replace("+", "-").replace("/", "_").rstrip("=")


def _base64(signature: str) -> str:
    """The signature as it came."""
    whole = signature.replace("-", "+").replace("_", "/")
    return whole + "=" * (-len(whole) % 4)


def _is_thought(part: Fields) -> bool:
    return part.get("thought") is True


def _usage(source: Fields) -> TokenUsage | None:
    """What was billed; `None` when that cannot be known, which is no reason to lose a reply."""
    try:
        usage = json_fields.fields(source, "usageMetadata")
        json_fields.require(usage, "promptTokenCount")
        thoughts = json_fields.count(usage, "thoughtsTokenCount")
        return token_usage(
            input_tokens=json_fields.count(usage, "promptTokenCount")
            + json_fields.count(usage, "toolUsePromptTokenCount"),
            output_tokens=json_fields.count(usage, "candidatesTokenCount") + thoughts,
            cached=json_fields.count(usage, "cachedContentTokenCount"),
            cache_write=0,
            reasoning=thoughts,
        )
    except Unreadable:
        return None


def _details(error: Fields) -> list[Fields]:
    """https://google.aip.dev/193#statusdetails"""
    return [detail for detail in _list(error, "details") if isinstance(detail, dict)]


def _entries(details: Iterable[Fields], key: str) -> list[Fields]:
    entries = (entry for detail in details for entry in _list(detail, key))
    return [entry for entry in entries if isinstance(entry, dict)]


def _list(source: Fields, key: str) -> list[Any]:
    value = source.get(key)
    return value if isinstance(value, list) else []


def _status(error: Fields) -> int:
    """The HTTP status that an error inside a 200 tells of itself."""
    code = error.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _is_about_the_account(details: Sequence[Fields]) -> bool:
    """A key that is refused, or a quota that no wait of seconds brings back."""
    if any(_ACCOUNT_REASONS.fullmatch(str(detail.get("reason"))) for detail in details):
        return True
    quotas = _entries(details, "violations")
    return any(
        "PerDay" in str(quota.get("quotaId")) or str(quota.get("quotaValue")) == "0"
        for quota in quotas
    )


def _parameter(details: Sequence[Fields], prose: str) -> tuple[str | None, bool]:
    """The parameter at fault, by its name in OpenAI's format, and whether it is our setting."""
    match = _PLACE.match(prose)
    places = [violation.get("field") for violation in _entries(details, "fieldViolations")]
    for place in (*places, match[1] if match else None):
        words = re.findall(r"[a-z_]+", re.sub(r"([A-Z])", r"_\1", str(place)).lower())
        for word in reversed(words):
            if word in _PARAMETERS:
                return _PARAMETERS[word], _PARAMETERS[word] is None
    return None, False


def _retry_delay(details: Iterable[Fields]) -> float | None:
    delays = (_DURATION.fullmatch(str(detail.get("retryDelay"))) for detail in details)
    return max((float(delay[1]) for delay in delays if delay), default=None)
