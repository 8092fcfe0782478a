"""Requests as a client would send them."""

from typing import Any

import httpx

CHAT = "/v1/chat/completions"


def question(text: str = "What is a guardrail?", **parameters: Any) -> dict[str, Any]:
    """The body of a chat completion request with one user turn."""
    return {"messages": [{"role": "user", "content": text}], **parameters}


def ask(
    client: httpx.Client, text: str = "What is a guardrail?", **parameters: Any
) -> httpx.Response:
    return client.post(CHAT, json=question(text, **parameters))
