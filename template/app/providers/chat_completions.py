"""The chat completions format as all its speakers write it, from OpenAI to a server of one's own.

What only one of them says, takes or sends stands in that one's adapter.
"""

from collections.abc import Mapping
from typing import Any, Final

from ..messages import ChatRequest, FinishReason, Image, Message, ResponseFormat, Text, Tool
from . import json_fields

PATH: Final = "/chat/completions"

ACCOUNT_CODES: Final = frozenset(
    (
        "access_terminated",
        "account_deactivated",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_organization",
        "model_not_found",
    )
)
REQUEST_CODES: Final = frozenset(
    ("content_filter", "content_policy_violation", "context_length_exceeded", "invalid_prompt")
)
FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def has_image_of_another(request: ChatRequest) -> bool:
    """Whether a message has an image that is not the user's, which the format has no place for."""
    return any(
        isinstance(part, Image)
        for message in request.messages
        if message.role != "user"
        for part in message.content
    )


def message(turn: Message) -> dict[str, Any]:
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in turn.tool_calls
    ]
    return json_fields.without_none(
        {
            "role": turn.role,
            "content": _content(turn) or (None if calls else ""),
            # The result of a tool is named by its call.
            "name": turn.name if turn.role != "tool" else None,
            "tool_calls": calls or None,
            "tool_call_id": turn.tool_call_id,
        }
    )


def parameters(request: ChatRequest) -> dict[str, Any]:
    """What goes by the same name everywhere; what the caller has not set is `None`."""
    return {
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _response_format(request.response_format),
    }


def _content(turn: Message) -> str | list[dict[str, Any]]:
    if len(turn.content) == 1 and isinstance(turn.content[0], Text):
        return turn.content[0].text
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "image_url", "image_url": {"url": part.url, "detail": _detail(part)}}
        for part in turn.content
    ]


def _detail(image: Image) -> str:
    # Left to itself, `auto` bills up to 36,000 tokens for one image on GPT-5.5 and later.
    return "high" if image.detail == "auto" else image.detail


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": json_fields.without_none(function)}


def _tool_choice(choice: str | None) -> str | dict[str, Any] | None:
    if choice is None or not choice.startswith("tool:"):
        return choice
    return {"type": "function", "function": {"name": choice.removeprefix("tool:")}}


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    return json_fields.without_none({"type": wanted.type, "json_schema": wanted.json_schema})
