"""The model behind every stand-in: what it answers, how many tokens that is, and why it stops.

It knows no vendor's format. A token is a word here, so that limits and chunks can be counted by
eye, and never more than the vendors' own tokenizers would count.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import pydantic.dataclasses
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

NO_EXTRA = ConfigDict(extra="forbid")

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["end", "length", "stop_sequence", "tool_calls", "refusal"]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=NO_EXTRA)
class ToolCall:
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @property
    def arguments_json(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False)


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=NO_EXTRA)
class Reply:
    """What the model is to say; what is left out follows from the request.

    `chunks` cuts the text into that many; without a text the reply is that many words. Token
    counts are totals as billed: `input_tokens` includes the cached and the cache-written ones,
    `output_tokens` the reasoning. `usage=False` leaves the usage out, as some servers do.
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: bool = False
    model: str | None = None
    chunks: PositiveInt | None = None
    chunk_delay_seconds: NonNegativeFloat = 0.0
    usage: bool = True
    input_tokens: NonNegativeInt | None = None
    output_tokens: NonNegativeInt | None = None
    cached_input_tokens: NonNegativeInt = 0
    cache_write_tokens: NonNegativeInt = 0
    reasoning_tokens: NonNegativeInt = 0


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request in no vendor's format. `tool_choice`: auto, none, required, or `tool:<name>`."""

    turns: Sequence[Turn]
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    tools: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    tool_choice: str = "auto"
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer; `pieces` is its text as a stream delivers it."""

    pieces: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    finish: Finish
    stop_sequence: str | None
    usage: Usage | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def complete(prompt: Prompt, reply: Reply) -> Completion:
    """The same request and reply always give the same completion."""
    calls = reply.tool_calls
    if not calls and reply.text is None and not reply.refusal:
        calls = _tool_calls(prompt)
    text = "" if calls and reply.text is None else _text(prompt, reply)
    text, finish, stop_sequence = _limited(text, prompt)
    if reply.refusal:
        finish = "refusal"
    elif calls and finish == "end":
        finish = "tool_calls"
    usage = _usage(prompt, reply, text, calls) if reply.usage else None
    pieces = _pieces(text, reply.chunks if reply.text is not None else None)
    return Completion(pieces, calls, finish, stop_sequence, usage)


def words(text: str) -> list[str]:
    """Cuts a text into words that keep the space before them; joined they are the text again."""
    return re.findall(r"\s*\S+|\s+$", text)


def _text(prompt: Prompt, reply: Reply) -> str:
    if reply.text is not None:
        return reply.text
    if reply.refusal:
        return "I can't help with that."
    if reply.chunks is not None:
        return " ".join(f"word{number}" for number in range(1, reply.chunks + 1))
    conversation = [turn for turn in prompt.turns if turn.role != "system"]
    last = conversation[-1].text if conversation else ""
    if prompt.json_schema is not None:
        return json.dumps(_example(prompt.json_schema, last), ensure_ascii=False)
    if conversation and conversation[-1].role == "tool":
        return f"The tool answered: {last}"
    if any(turn.role == "system" and "summar" in turn.text.lower() for turn in prompt.turns):
        return f"Summary of {len(conversation)} messages."
    return f"I received {len(prompt.turns)} messages. The last one says: {last}"


def _tool_calls(prompt: Prompt) -> tuple[ToolCall, ...]:
    """`get_weather` is called when the choice demands it or the last user turn says "weather"."""
    last = prompt.turns[-1]
    if not prompt.tools or prompt.tool_choice == "none":
        return ()
    asked = last.text.lower() if last.role == "user" else ""
    wanted = [name for name in prompt.tools if name.lower().split("_")[-1] in asked]
    if prompt.tool_choice == "required":
        wanted = wanted or list(prompt.tools)
    elif prompt.tool_choice != "auto":
        wanted = [prompt.tool_choice.removeprefix("tool:")]
    return tuple(ToolCall(name, _example(prompt.tools[name], last.text)) for name in wanted[:1])


def _example(schema: Mapping[str, Any], text: str, root: Mapping[str, Any] | None = None) -> Any:
    """A value that fits the schema, with `text` wherever a string is wanted."""
    root = root or schema
    if "$ref" in schema:
        target: Any = root
        for key in schema["$ref"].split("/")[1:]:
            target = target[key]
        return _example(target, text, root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if "anyOf" in schema:
        # The last choice: null comes last as a rule, which ends a recursive schema.
        return _example(schema["anyOf"][-1], text, root)
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "array":
            return [_example(schema.get("items", {}), text, root)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case "string":
            return text
        case _:
            fields = schema.get("properties", {"echo": {"type": "string"}})
            return {name: _example(inner, text, root) for name, inner in fields.items()}


def _limited(text: str, prompt: Prompt) -> tuple[str, Finish, str | None]:
    """Stop sequences and the token limit, whichever comes first in the text."""
    finish: Finish = "end"
    stop_sequence = None
    if found := [(text.find(stop), stop) for stop in prompt.stop if stop in text]:
        at, stop_sequence = min(found)
        text, finish = text[:at], "stop_sequence"
    tokens = words(text)
    if prompt.max_tokens is not None and len(tokens) > prompt.max_tokens:
        return "".join(tokens[: prompt.max_tokens]), "length", None
    return text, finish, stop_sequence


def _pieces(text: str, chunks: int | None) -> tuple[str, ...]:
    if chunks is None:
        return tuple(words(text))
    edges = [len(text) * number // chunks for number in range(chunks + 1)]
    return tuple(text[start:end] for start, end in pairwise(edges))


def _usage(prompt: Prompt, reply: Reply, text: str, calls: Sequence[ToolCall]) -> Usage:
    # Every message costs a few tokens beside its text, and so does opening the reply.
    read = 3 + sum(3 + len(words(turn.text)) for turn in prompt.turns)
    read += sum(len(words(json.dumps(schema))) for schema in prompt.tools.values())
    read = max(read, reply.cached_input_tokens + reply.cache_write_tokens)
    written = len(words(text)) + sum(1 + len(words(call.arguments_json)) for call in calls)
    written += reply.reasoning_tokens
    return Usage(
        input_tokens=read if reply.input_tokens is None else reply.input_tokens,
        output_tokens=written if reply.output_tokens is None else reply.output_tokens,
        cached_input_tokens=reply.cached_input_tokens,
        cache_write_tokens=reply.cache_write_tokens,
        reasoning_tokens=reply.reasoning_tokens,
    )
