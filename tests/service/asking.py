"""Requests as the SDK's users write them."""

from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionToolParam

from sandbox.server import Sandbox

QUESTION = "What is a guardrail?"
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def ask(client: openai.OpenAI, content: str = QUESTION, **parameters: Any) -> ChatCompletion:
    completion: ChatCompletion = client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": content}], **parameters
    )
    return completion


def text_of(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


def body(content: str = QUESTION, **parameters: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **parameters}


def calls(sandbox: Sandbox) -> int:
    """How many requests the vendors have received."""
    return sum(len(sandbox.requests(vendor)) for vendor in sandbox.vendors)
