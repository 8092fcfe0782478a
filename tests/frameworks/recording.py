"""Plays the script to a service and keeps what it answered and logged, without what varies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from sandbox.server import Sandbox

from ..service.serving import Service
from .script import Exchange

Recording = dict[str, Any]

HEADERS = (
    "allow",
    "cache-control",
    "connection",
    "content-type",
    "idempotent-replayed",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "server",
    "www-authenticate",
    "x-accel-buffering",
    "x-budget-remaining-usd",
    "x-context",
    "x-cost-usd",
    "x-provider",
    "x-should-retry",
    "x-spout",
)
"""Those that a client may rely on. Others, such as `date`, are the server's."""

LINE = (
    "level",
    "method",
    "route",
    "status",
    "caller",
    "outcome",
    "provider",
    "model",
    "replayed",
    "refusal",
    "error_type",
    "trimmed_messages",
)
"""What a request's log line says that is the same each time."""

VOLATILE = {"id", "created", "request_id"}


def record(service: Service, sandbox: Sandbox, exchange: Exchange) -> Recording:
    """The answer as a client reads it, and the line that the service logged."""
    sandbox.reset()
    for vendor in exchange.at:
        sandbox.script(vendor, exchange.faults)
    key = f"key-of-{exchange.caller}" if exchange.caller else None
    content = exchange.content
    # The path goes onto the wire as it stands.
    url = httpx.URL(service.url).copy_with(raw_path=exchange.path.encode())
    with service.http(key).stream(
        exchange.method,
        url,
        content=iter(content) if isinstance(content, tuple) else content,
        headers=exchange.headers,
    ) as response:
        recorded = _answer(response, exchange)
    line = service.line_of(response.headers["x-request-id"])
    return {
        **recorded,
        "line": {name: line[name] for name in LINE if name in line},
        "failed attempts": [a["outcome"] for a in line.get("attempts", ()) if a["outcome"] != "ok"],
        "stack": "stack" in line or "exception" in line,
        "asked": {vendor: len(sandbox.requests(vendor)) for vendor in sandbox.vendors},
    }


def _answer(response: httpx.Response, exchange: Exchange) -> Recording:
    headers = {
        name: _steady(name, response.headers[name]) for name in HEADERS if name in response.headers
    }
    own_id = exchange.headers.get("x-request-id")
    recorded: Recording = {
        "status": response.status_code,
        "headers": headers,
        "kept the request id": response.headers["x-request-id"] == own_id,
        "lengths": "content-length" in response.headers,
    }
    if exchange.leaves_after is not None:
        next(response.iter_raw(exchange.leaves_after))
        return recorded
    text, whole = _read(response)
    return {**recorded, "whole": whole, "body": _body(headers.get("content-type", ""), text)}


def _read(response: httpx.Response) -> tuple[str, bool]:
    parts: list[str] = []
    try:
        parts.extend(response.iter_text())
    except httpx.RemoteProtocolError:
        return "".join(parts), False
    return "".join(parts), True


def _body(content_type: str, text: str) -> Any:
    if "json" in content_type and text:
        return _without_volatile(json.loads(text))
    if content_type.startswith("text/event-stream"):
        return [_event(line) for line in text.splitlines() if line]
    if "version=" in content_type:
        return sorted(set(re.findall(r"^# TYPE (.*)$", text, re.MULTILINE)))
    return "a page" if "html" in content_type else text


def _event(line: str) -> Any:
    data = line.removeprefix("data: ")
    return _without_volatile(json.loads(data)) if data.startswith("{") else line


def _steady(name: str, value: str) -> str:
    """Without the seconds that count down; methods in one order.

    Litestar answers OPTIONS by itself on every route, and says so.
    """
    if name == "allow":
        return ", ".join(sorted(set(re.findall(r"\w+", value)) - {"OPTIONS"}))
    if name in ("ratelimit", "retry-after"):
        return re.sub(r"(?<=t=)\d+|^\d+$", "some", value)
    return value


def _without_volatile(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: "some" if name in VOLATILE and item is not None else _without_volatile(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_volatile(item) for item in value]
    if isinstance(value, str):
        # What is wrong with a value, its validator says in its own words.
        value = re.sub(r"^((?:body|query|path)\.\w+): .*", r"\1: wrong", value)
        return re.sub(r"^This route takes .*, not", "This route takes some, not", value)
    return value


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two recordings differ, one line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            if name not in one or name not in other:
                yield f"{place}/{name}: only in {'the first' if name in one else 'the second'}"
            else:
                yield from differences(one[name], other[name], f"{place}/{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}/{index}")
    elif one != other:
        yield f"{place}: {one!r} / {other!r}"
