"""What every framework is asked, in this order, and with which status it has to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from sandbox.faults import Fault
from sandbox.model import Reply

CHAT = "/v1/chat/completions"
RATE_LIMIT = 25


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what becomes of it.

    `content` goes out as it is; an iterator's pieces go out chunked. `faults` are scripted at the
    providers named by `at`. After `leaves_after` bytes of the answer the caller is gone.
    """

    name: str
    status: int
    path: str = CHAT
    method: str = "POST"
    content: bytes | tuple[bytes, ...] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    caller: str | None = "usual"
    faults: tuple[Fault, ...] = ()
    at: tuple[str, ...] = ("openai",)
    breaks: bool = False
    """The connection ends before the response does."""
    leaves_after: int | None = None


def question(text: str = "What is a guardrail?", **parameters: Any) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": text}], **parameters})


def get(name: str, status: int, path: str, **rest: Any) -> Exchange:
    return Exchange(name, status, path, "GET", **rest)


TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
JSON = {"content-type": "application/json"}


def script() -> Iterator[Exchange]:
    """Each chapter has a caller of its own, so that the rate limit is met where it is wanted."""
    for chapter in CHAPTERS:
        for exchange in chapter():
            own = f"caller-of-{chapter.__name__}" if exchange.caller == "usual" else exchange.caller
            yield replace(exchange, caller=own)


def completions() -> Iterator[Exchange]:
    yield Exchange("a completion", 200, content=question())
    yield Exchange("a pinned model", 200, content=question(model="anthropic/claude-haiku-5-5"))
    yield Exchange("a call of a tool", 200, content=question("What is the weather?", tools=[TOOL]))
    yield Exchange(
        "a history that is trimmed",
        200,
        content=orjson.dumps(
            {
                "messages": [
                    {"role": role, "content": f"turn {turn}"}
                    for turn in range(12)
                    for role in ("user", "assistant")
                ]
                + [{"role": "user", "content": "And now?"}]
            }
        ),
    )
    yield Exchange(
        "a request id of one's own", 200, content=question(), headers={"x-request-id": "mine-1"}
    )
    yield Exchange(
        "a request id that is none", 200, content=question(), headers={"x-request-id": "a b\tc"}
    )


def bodies() -> Iterator[Exchange]:
    yield Exchange("no body", 400)
    yield Exchange("no JSON", 400, content=b'{"messages": [')
    yield Exchange("no UTF-8", 400, content=b'{"messages": "\xff\xfe"}')
    yield Exchange("a list", 400, content=b"[]")
    yield Exchange("no messages", 400, content=b"{}")
    yield Exchange("an unknown parameter", 400, content=question(colour="red"))
    yield Exchange("a wrong type", 400, content=question(temperature="hot"))
    yield Exchange("an unknown model", 404, content=question(model="no-such-model"))
    yield Exchange("no content type", 200, content=question(), headers={"content-type": ""})
    yield Exchange("a form", 200, content=question(), headers={"content-type": "text/plain"})
    yield Exchange("a body in pieces", 200, content=(question()[:9], question()[9:]))
    yield Exchange("a body over the cap", 413, content=question("x" * 70_000))
    yield Exchange("a body over the cap in pieces", 413, content=(b"x" * 40_000,) * 2)
    yield Exchange("an input over the limit", 413, content=question("many words " * 5_000))


def routing() -> Iterator[Exchange]:
    yield get("an unknown route", 404, "/no/such/route")
    yield get("the root", 404, "/")
    yield get("a slash too many", 404, "/v1/models/")
    yield get("two slashes", 404, "//v1/models")
    yield get("another case", 404, "/V1/models")
    yield get("a query", 200, "/v1/models?page=1&page=2")
    yield get("a query that is no UTF-8", 200, "/v1/models?page=%FF")
    yield get("an escaped path", 200, "/v1/mode%6Cs")
    yield get("a path that is no UTF-8", 200, "/things/%FF")
    yield get("a parameter that is missing", 404, "/things/")
    yield get("a parameter with a slash", 404, "/things/a%2Fb")
    yield get("a slash that is escaped", 404, "/v1%2Fmodels%2F")
    yield get("the wrong method", 405, CHAT)
    yield Exchange("the other wrong method", 405, "/v1/models", content=b"{}")
    yield Exchange("a method for nothing", 405, "/livez", "DELETE")
    yield Exchange("a head", 405, "/livez", "HEAD")
    yield get("what is never routed", 404, "/../etc/passwd")


def identities() -> Iterator[Exchange]:
    yield Exchange("no key", 401, content=question(), caller=None)
    yield Exchange("a wrong key", 401, content=question(), caller="nobody")
    yield get("no key for no route", 401, "/no/such/route", caller=None)
    yield get("no key for an owner's route", 401, "/things/key", caller=None)
    yield get("no key for the wrong method", 401, CHAT, caller=None)
    yield get("no key for a probe", 200, "/livez", caller=None)


def limits() -> Iterator[Exchange]:
    for number in range(RATE_LIMIT):
        yield get(f"admitted {number + 1}", 200, "/things/pen", caller="limited")
    yield Exchange("over the rate", 429, content=question(), caller="limited")
    yield Exchange("a stream over the rate", 429, content=question(stream=True), caller="limited")
    yield get("an owner's route over the rate", 429, "/things/pen", caller="limited")
    key = {"idempotency-key": "one"}
    yield Exchange("the first under a key", 200, content=question("Hm?"), headers=key)
    yield Exchange("its repeat", 200, content=question("Hm?"), headers=key)
    yield Exchange("its repeat as a stream", 200, content=question("Hm?", stream=True), headers=key)
    yield Exchange("another body under its key", 422, content=question("Oh?"), headers=key)
    yield Exchange("a key that is none", 400, content=question(), headers={"idempotency-key": ""})


def failures() -> Iterator[Exchange]:
    yield Exchange(
        "a provider that is down", 200, content=question(), faults=(Fault(status=500),) * 2
    )
    yield Exchange(
        "a pinned provider that is down",
        503,
        content=question(model="openai/gpt-6-luna"),
        faults=(Fault(status=500),) * 2,
    )
    yield Exchange(
        "a request that the provider refuses",
        400,
        content=question(),
        faults=(Fault(status=400, message="Not like this."),),
    )
    yield Exchange(
        "a stream that does not begin",
        503,
        content=question(stream=True, model="openai/gpt-6-luna"),
        faults=(Fault(status=500),) * 2,
    )


def streams() -> Iterator[Exchange]:
    yield Exchange("a stream", 200, content=question(stream=True))
    yield Exchange(
        "a stream with its usage",
        200,
        content=question(stream=True, stream_options={"include_usage": True}),
    )
    yield Exchange("a stream with a tool", 200, content=question(stream=True, tools=[TOOL]))
    yield Exchange(
        "a stream that breaks",
        200,
        content=question(stream=True),
        faults=(Fault(action="close", after_chunks=3),),
    )
    slow = Fault(reply=Reply(chunks=400, chunk_delay_seconds=0.02))
    yield Exchange(
        "a stream that is left", 200, content=question(stream=True), faults=(slow,), leaves_after=1
    )


def owners() -> Iterator[Exchange]:
    article = orjson.dumps({"text": "A text about guardrails."})
    yield Exchange("an owner's call", 200, "/summaries", content=article, headers=JSON)
    yield Exchange("an owner's stream", 200, "/stories", content=article, headers=JSON)
    yield Exchange(
        "an owner's empty text", 422, "/summaries", content=b'{"text": ""}', headers=JSON
    )
    yield Exchange("an owner's missing text", 422, "/summaries", content=b"{}", headers=JSON)
    yield Exchange(
        "an owner's wrong type",
        422,
        "/summaries",
        content=b'{"text": "A", "words": "many"}',
        headers=JSON,
    )
    yield Exchange("an owner's broken JSON", 422, "/summaries", content=b"{", headers=JSON)
    yield Exchange("an owner's missing body", 422, "/summaries", headers=JSON)
    yield Exchange(
        "an owner's call that is too long",
        413,
        "/summaries",
        content=orjson.dumps({"text": "many words " * 5_000}),
        headers=JSON,
    )
    yield Exchange(
        "an owner's call that nobody answers",
        503,
        "/stories",
        content=article,
        headers=JSON,
        faults=(Fault(error="invalid_api_key"),),
        at=("openai", "anthropic"),
    )
    yield get("an owner's parameters", 200, "/things/pen?times=3")
    yield get("an owner's default", 200, "/things/a%20pen")
    yield get("an owner's wrong parameter", 422, "/things/pen?times=often")
    yield get("an owner's HTTP error", 418, "/teapot")
    yield get("an owner's 404", 404, "/lost")
    yield get("an owner's refusal", 400, "/refused")
    yield get("an owner's bug", 500, "/crash")
    yield get("an owner's bug in mid-stream", 200, "/halves", breaks=True)
    yield get("an owner's endless stream that is left", 200, "/ticks", leaves_after=20)


def operations() -> Iterator[Exchange]:
    for path in ("/livez", "/readyz", "/v1/models", "/metrics"):
        yield get(path, 200, path)
    yield get("the docs", 200, "/docs", caller=None)


CHAPTERS = (
    completions,
    bodies,
    routing,
    identities,
    limits,
    failures,
    streams,
    owners,
    operations,
)
