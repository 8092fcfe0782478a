"""OpenAI's chat completion request: read strictly, and described in the OpenAPI document.

Every parameter is honoured or refused by name. Parameters that no provider here honours are taken
with the value that changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from ..errors import BadRequest
from ..messages import (
    ChatRequest,
    Image,
    Message,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
)
from .tool_call_ids import split_id


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        # Else thousands of short texts that callers have sent would be kept for the next request.
        cache_strings="keys",
    )


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class RefusalPart(_Strict):
    type: Literal["refusal"]
    refusal: str


class ImageURL(_Strict):
    url: str = Field(pattern=r"^(https?://|data:image/)")
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: ImageURL


class FunctionCall(_Strict):
    """`parsed_arguments`: `arguments` once more, as OpenAI's SDK has read them."""

    name: str
    arguments: str
    parsed_arguments: Any = None


class ToolCallItem(_Strict):
    """`index`: its place in the list, as a stream has told it."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


TextContent = str | list[TextPart]


class SystemMessage(_Strict):
    role: Literal["system", "developer"]
    content: TextContent
    name: str | None = None


class UserMessage(_Strict):
    role: Literal["user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = None


class AssistantMessage(_Strict):
    """Takes back what the service answered, members without content and what OpenAI's SDK makes of
    it included. `parsed`: `content` once more, as the SDK has read it."""

    role: Literal["assistant"]
    content: str | list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]] | None = (
        None
    )
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCallItem] | None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    parsed: Any = None


class ToolMessage(_Strict):
    role: Literal["tool"]
    content: TextContent
    tool_call_id: str


def _role(value: Any) -> str:
    role = value.get("role") if isinstance(value, dict) else getattr(value, "role", None)
    return "system" if role == "developer" else str(role)


AnyMessage = Annotated[
    Annotated[SystemMessage, Tag("system")]
    | Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[ToolMessage, Tag("tool")],
    Discriminator(
        _role,
        custom_error_type="message_role",
        custom_error_message="role must be system, developer, user, assistant or tool",
    ),
]


class FunctionDefinition(_Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(_Strict):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(_Strict):
    name: str


class NamedToolChoice(_Strict):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(_Strict):
    type: Literal["text"]


class JSONObjectFormat(_Strict):
    type: Literal["json_object"]


class JSONSchemaFormat(_Strict):
    type: Literal["json_schema"]
    json_schema: dict[str, Any]


class StreamOptions(_Strict):
    include_usage: bool = False


class ChatCompletionRequest(_Strict):
    """What `POST /v1/chat/completions` takes."""

    messages: list[AnyMessage] = Field(min_length=1)
    model: str = Field(default="auto", description="`auto`, or an id from `GET /v1/models`.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=128)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: (
        Annotated[TextFormat | JSONObjectFormat | JSONSchemaFormat, Field(discriminator="type")]
        | None
    ) = None
    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """The call, and the form that its answer is wanted in."""

    chat: ChatRequest
    stream: bool
    include_usage: bool


def parse(body: bytes) -> ParsedRequest:
    """Reads a body once. Raises `BadRequest`, which names the parameter and never its value."""
    try:
        parsed = ChatCompletionRequest.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error) from None
    chat = ChatRequest(
        messages=tuple(_message(message) for message in parsed.messages),
        model=parsed.model,
        max_output_tokens=parsed.max_completion_tokens or parsed.max_tokens,
        temperature=parsed.temperature,
        top_p=parsed.top_p,
        stop=(parsed.stop,) if isinstance(parsed.stop, str) else tuple(parsed.stop or ()),
        seed=parsed.seed,
        tools=tuple(_tool(tool.function) for tool in parsed.tools or ()),
        tool_choice=_tool_choice(parsed.tool_choice),
        parallel_tool_calls=parsed.parallel_tool_calls,
        response_format=_response_format(parsed.response_format),
    )
    include_usage = parsed.stream_options is not None and parsed.stream_options.include_usage
    return ParsedRequest(chat, bool(parsed.stream), include_usage)


def _message(message: SystemMessage | UserMessage | AssistantMessage | ToolMessage) -> Message:
    role: Role = "system" if message.role == "developer" else message.role
    match message:
        case ToolMessage():
            call_id, _ = split_id(message.tool_call_id)
            return Message(role, _content(message.content), tool_call_id=call_id)
        case AssistantMessage():
            calls = tuple(_tool_call(call) for call in message.tool_calls or ())
            content = _content(message.content or message.refusal or "")
            return Message(role, content, name=message.name, tool_calls=calls)
        case _:
            return Message(role, _content(message.content), name=message.name)


def _tool_call(call: ToolCallItem) -> ToolCall:
    call_id, signature = split_id(call.id)
    return ToolCall(call_id, call.function.name, call.function.arguments, signature)


def _content(
    content: str | Sequence[TextPart | ImagePart | RefusalPart],
) -> tuple[Text | Image, ...]:
    if isinstance(content, str):
        return (Text(content),) if content else ()
    return tuple(_part(part) for part in content)


def _part(part: TextPart | ImagePart | RefusalPart) -> Text | Image:
    match part:
        case TextPart():
            return Text(part.text)
        case RefusalPart():
            return Text(part.refusal)
        case ImagePart():
            return Image(part.image_url.url, part.image_url.detail)


def _tool(function: FunctionDefinition) -> Tool:
    return Tool(function.name, function.description, function.parameters, function.strict)


def _tool_choice(choice: str | NamedToolChoice | None) -> str | None:
    return f"tool:{choice.function.name}" if isinstance(choice, NamedToolChoice) else choice


def _response_format(
    wanted: TextFormat | JSONObjectFormat | JSONSchemaFormat | None,
) -> ResponseFormat | None:
    match wanted:
        case JSONObjectFormat():
            return ResponseFormat("json_object")
        case JSONSchemaFormat():
            return ResponseFormat("json_schema", wanted.json_schema)
        case _:
            return None


def _bad_request(error: ValidationError) -> BadRequest:
    first = _most_precise(error.errors(include_input=False, include_url=False))
    if first["type"] == "json_invalid":
        return BadRequest("The body is not valid JSON.", code="invalid_json")
    name = _parameter_name(first["loc"])
    if first["type"] == "extra_forbidden":
        return BadRequest(
            f"{name} is not supported here; leave it out.",
            code="unsupported_parameter",
            param=name,
        )
    message = (
        first["msg"].replace("Input should", "should").replace("Field required", "is required")
    )
    if first["type"] == "union_tag_invalid":  # pydantic's words repeat the value
        message = f"its type should be one of {first['ctx']['expected_tags']}"
    return BadRequest(f"{name}: {message}.", param=name)


def _most_precise(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """For a value that fits no branch of a union: what the branch says that it came furthest in."""
    place = errors[0]["loc"][:-1]
    same = [error for error in errors if error["loc"][: len(place)] == place]
    return max(same, key=lambda error: len(error["loc"]))


def _parameter_name(location: tuple[int | str, ...]) -> str:
    """`messages.0.content`: pydantic's path without the names of the union's branches."""
    fields = {name for model in _Strict.__subclasses__() for name in model.model_fields}
    *outer, last = location or ("body",)
    kept = [part for part in outer if isinstance(part, int) or part in fields]
    if isinstance(last, int) or ("[" not in last and last not in ("str", "float", "int")):
        kept.append(last)
    # A branch may be called as its field is: `image_url.image_url.url`.
    return ".".join(str(part) for part, _ in groupby(kept))
