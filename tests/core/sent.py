"""What a provider would count of the bytes that it is sent, told from these bytes alone.

OpenAI's count is its own rule for text, names and tools. The others' is less than they may count:
the tokens of every text, as many for each of o200k's as their adapters declare, and of tools.
"""

import json
from collections.abc import Callable
from typing import Any

import tiktoken

from app.messages import ChatRequest
from app.providers.base import ProviderAdapter

Count = Callable[[str], int]

LEAST_IMAGE = 85
"""Of a picture that OpenAI sees in its lowest resolution."""


def sent_tokens(adapter: ProviderAdapter, request: ChatRequest, encoding: tiktoken.Encoding) -> int:
    body = json.loads(adapter.encode(request, stream=False).body)

    def count(text: str) -> int:
        return len(encoding.encode_ordinary(text))

    if adapter.name == "openai":
        return _openai(body, count)
    texts = [body["system"]] if "system" in body else []
    texts += _texts(body.get("systemInstruction", {}))
    texts += _texts(body.get("messages", body.get("contents")))
    definitions = sum(count(json.dumps(tool)) for tool in body.get("tools", ()))
    return int(sum(map(count, texts)) * adapter.input_token_factor) + definitions


def _texts(part: Any) -> list[str]:
    """The texts of turns, the arguments of calls among them; no keys, kinds and addresses."""
    if isinstance(part, list):
        return [text for item in part for text in _texts(item)]
    if not isinstance(part, dict) or part.get("type") == "image":
        return []
    texts = [part["text"]] if isinstance(part.get("text"), str) else []
    for key in ("input", "args"):
        texts += [json.dumps(part[key])] if key in part else []
    nested = ("parts", "content", "functionCall", "functionResponse", "response", "output")
    return texts + [text for key in nested for text in _texts(part.get(key))]


def _openai(body: dict[str, Any], count: Count) -> int:
    """https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken"""
    total = 3
    for message in body["messages"]:
        total += 3 + count(message["role"])
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            total += count(part["text"]) if part["type"] == "text" else LEAST_IMAGE
        total += 1 + count(message["name"]) if "name" in message else 0
        for call in message.get("tool_calls", ()):
            total += count(call["function"]["name"]) + count(call["function"]["arguments"])
    tools = [tool["function"] for tool in body.get("tools", ())]
    return total + sum(_openai_tool(tool, count) for tool in tools) + (12 if tools else 0)


def _openai_tool(tool: dict[str, Any], count: Count) -> int:
    properties = tool.get("parameters", {}).get("properties", {})
    total = 7 + count(f"{tool['name']}:{tool.get('description', '').removesuffix('.')}")
    total += 3 if properties else 0
    for name, value in properties.items():
        total += 3
        about = value.get("description", "").removesuffix(".")
        total += count(f"{name}:{value['type']}:{about}")
        if "enum" in value:
            total += sum(3 + count(choice) for choice in value["enum"]) - 3
    return total
