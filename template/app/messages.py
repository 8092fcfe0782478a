"""What a conversation is made of, in no vendor's format.

Everything here is frozen: a guardrail that wants another request makes another one.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image by reference: an https URL or a `data:` URL. It is never fetched here."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool; `arguments` is the JSON text exactly as the model wrote it.

    `signature` is the vendor's own note on the call, which it wants to see again with it.
    """

    id: str
    name: str
    arguments: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `tool_calls` belongs to assistants, `tool_call_id` to the results of tools."""

    role: Role
    content: tuple[Text | Image, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """JSON instead of prose: any object, or (`json_schema`) one of the given schema."""

    type: Literal["json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call for a completion. `None` leaves a parameter to the vendor's default.

    `model` is `auto`, a configured model's name, or `<provider>/<model>`.
    `max_output_tokens` is clamped to `MAX_OUTPUT_TOKENS` before any provider sees it.
    `tool_choice` is `auto`, `none`, `required`, or the name of one tool behind `tool:`.
    """

    messages: tuple[Message, ...]
    model: str = "auto"
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the vendor billed them.

    `input_tokens` includes `cached_input_tokens` (read from the vendor's cache, billed lower) and
    `cache_write_tokens` (written to it, billed higher); `output_tokens` includes
    `reasoning_tokens`.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Charge:
    """What calls of one model came to, in nano-dollars; unknown usage is charged its worst case.

    `calls` are those that may have been billed: answered, or sent and not heard of again.
    """

    provider: str
    model: str
    cost_nano_usd: int
    calls: int = 1
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Charge") -> "Charge":
        """Both together; the model stays the first one's."""
        return Charge(
            self.provider,
            self.model,
            self.cost_nano_usd + other.cost_nano_usd,
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A whole answer. `usage` is `None` when the vendor sent none."""

    id: str
    model: str
    text: str
    finish_reason: FinishReason
    usage: TokenUsage | None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call number `index`; `id`, `name` and `signature` come with its first."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of a stream: any of a piece of text, pieces of tool calls, the end, the usage.

    `usage` replaces any usage seen before it (vendors report running totals).
    """

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None
    id: str | None = None
    model: str | None = None
    refusal: str = ""


@dataclass(slots=True)
class ReplyBuilder:
    """Adds a stream's chunks up to the reply that the same call would have given as JSON."""

    id: str = ""
    model: str = ""
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None
    _text: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _tool_calls: dict[int, ToolCall] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        self.id = chunk.id or self.id
        self.model = chunk.model or self.model
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.refusal:
            self._refusal.append(chunk.refusal)
        for delta in chunk.tool_calls:
            call = self._tool_calls.get(delta.index, ToolCall(id="", name="", arguments=""))
            self._tool_calls[delta.index] = ToolCall(
                id=delta.id or call.id,
                name=delta.name or call.name,
                arguments=call.arguments + delta.arguments,
                signature=delta.signature or call.signature,
            )

    @property
    def emitted_text(self) -> str:
        """Everything that the model has written so far, tool calls included."""
        calls = (call.name + call.arguments for _, call in sorted(self._tool_calls.items()))
        return "".join((*self._text, *self._refusal, *calls))

    def reply(self) -> ChatReply:
        return ChatReply(
            id=self.id,
            model=self.model,
            text="".join(self._text),
            finish_reason=self.finish_reason or "stop",
            usage=self.usage,
            tool_calls=tuple(call for _, call in sorted(self._tool_calls.items())),
            refusal="".join(self._refusal) or None,
        )
