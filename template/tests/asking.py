"""Requests as a client would send them, and answers as it would read them."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.server import Sandbox

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer, read to its end. `done` says whether `[DONE]` was the last of it."""

    response: httpx.Response
    events: list[dict[str, Any]]
    done: bool

    @property
    def text(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [choice["delta"] for choice in self._choices]

    @property
    def finish_reason(self) -> str | None:
        return next((c["finish_reason"] for c in self._choices if c["finish_reason"]), None)

    @property
    def error(self) -> dict[str, Any] | None:
        """What went wrong after the stream had begun."""
        return next((event["error"] for event in self.events if "error" in event), None)

    @property
    def _choices(self) -> list[dict[str, Any]]:
        return [choice for event in self.events for choice in event.get("choices", ())]


def question(text: str = "What is a guardrail?", **parameters: Any) -> dict[str, Any]:
    """The body of a chat completion request with one user turn."""
    return {"messages": [{"role": "user", "content": text}], **parameters}


def ask(
    client: httpx.Client, text: str = "What is a guardrail?", **parameters: Any
) -> httpx.Response:
    return client.post(CHAT, json=question(text, **parameters))


def ask_stream(
    client: httpx.Client, text: str = "What is a guardrail?", **parameters: Any
) -> Stream:
    return read_stream(client.post(CHAT, json=question(text, stream=True, **parameters)))


def read_stream(response: httpx.Response) -> Stream:
    lines = response.text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    done = data[-1:] == ["[DONE]"]
    return Stream(response, [json.loads(item) for item in data[: -1 if done else None]], done)


def answer(response: httpx.Response) -> str:
    """The text of a completion."""
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def pinned(client: httpx.Client, provider: str) -> str:
    """The id of the model that is asked at this provider alone. No test chooses another model, so
    that one service tells it for all."""
    if provider not in _pinned:
        models: list[str] = [model["id"] for model in client.get("/v1/models").json()["data"]]
        _pinned[provider] = next(name for name in models if name.startswith(f"{provider}/"))
    return _pinned[provider]


_pinned: dict[str, str] = {}


def calls(sandbox: Sandbox) -> int:
    """How many requests have reached any provider."""
    return sum(len(sandbox.requests(vendor)) for vendor in sandbox.vendors)
