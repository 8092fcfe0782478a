"""Tries a failure on a service, at one provider and with one kind of reply, and tells what became
of it where it shows: on the wire, at the caller, in the log, in the books and at the breaker."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import ReceivedRequest, Sandbox

from ..service.serving import WITHOUT_TLS, Project, Service, eventually
from .shapes import ATTEMPTS, Asked, Outcome, Shape

CALLERS = 200
NANO_USD_PER_TOKEN = 1_000
BREAKER = "llm_circuit_breaker_open"
MAX_TOKENS = 300
DEADLINE_SECONDS = 5.0
BOUND_SECONDS = DEADLINE_SECONDS + 5.0
"""Within which a call has to end, on a busy machine."""

LIMITS = {
    "CONNECT_TIMEOUT_SECONDS": "0.5",
    "FIRST_BYTE_TIMEOUT_SECONDS": "1",
    "IDLE_TIMEOUT_SECONDS": "1",
    "DEADLINE_SECONDS": str(DEADLINE_SECONDS),
    "STREAM_MAX_SECONDS": "4",
    "MAX_ATTEMPTS": str(ATTEMPTS),
    "SERVICE_API_KEYS": ",".join(f"caller{n}:key-of-caller{n}" for n in range(CALLERS)),
    "ENVIRONMENT": "development",
    "LOG_FORMAT": "json",
}

# What an owner may set: waits are short, replies small, and the breaker opens at a single failure
# and lets the next call find out at once, so that its gauge tells of each.
POLICY = {
    "BACKOFF_BASE_SECONDS": "0.02",
    "BREAKER_FAILURES": "1",
    "BREAKER_COOL_DOWN_SECONDS": "0.0",
    "MAX_REPLY_BYTES": "65_536",
    "RETRY_BUDGET_RESERVE": "1_000.0",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller got. A stream has a `code` too when it breaks off."""

    status: int
    code: str
    headers: httpx.Headers
    tokens: int
    """Billed, as the reply tells."""
    seconds: float

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and not self.code


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome, and what is not as any outcome should be."""

    outcome: Outcome
    complaints: list[str]


@dataclass(slots=True)
class Lane:
    """One provider and one kind of reply, with stand-ins of its own."""

    vendor: str
    streamed: bool
    project: Project
    sandbox: Sandbox
    service: Service
    _keys: Iterator[str] = field(
        default_factory=lambda: (f"key-of-caller{number}" for number in range(CALLERS))
    )
    _worst_nano_usd: int = 0
    _like: ReceivedRequest | None = None

    @property
    def name(self) -> str:
        return f"{self.vendor} {'stream' if self.streamed else 'whole'}"

    def prepare(self) -> None:
        """Learns what an attempt costs at the most, and how this provider is asked."""
        self._script(Fault(reply=Reply(usage=False)))
        with self._caller(self.service) as (client, key):
            answer = self._ask(client, self._models(client)[0])
        assert answer.is_whole, answer
        self._worst_nano_usd, _ = self._settled(self.service, key)
        assert self._worst_nano_usd >= MAX_TOKENS * NANO_USD_PER_TOKEN
        (self._like,) = self.sandbox.requests(self.vendor)

    def try_(self, shape: Shape) -> Seen:
        if shape.place is None:
            return self._try(shape, self.service)
        with shape.place() as url, self._elsewhere(url) as service:
            return self._try(shape, service)

    @contextmanager
    def _elsewhere(self, url: str) -> Iterator[Service]:
        name = f"{self.vendor}_BASE_URL".upper()
        with self.project.serve(**{name: url}) as service:
            yield service

    def _try(self, shape: Shape, service: Service) -> Seen:
        complaints: list[str] = []
        self._script(self._fault(shape))
        with self._caller(service) as (client, key):
            pinned, named = self._models(client)
            alone = self._ask(client, pinned)
            at_provider = self.sandbox.requests(self.vendor)
            line = service.line_of(alone.headers["x-request-id"])
            charged, reserved = self._settled(service, key)
            is_counted = self._breaker_has_opened(client)
        attempts = [item["outcome"] for item in line["attempts"]]
        self._script(self._fault(shape))
        with self._caller(service) as (client, key):
            followed = self._ask(client, named)
            before_next = len(self.sandbox.requests(self.vendor))
            line_followed = service.line_of(followed.headers["x-request-id"])
            charged_followed, reserved_followed = self._settled(service, key)
        tried = [item["outcome"] for item in line_followed["attempts"]]
        own = [i for i in line_followed["attempts"] if i["provider"] == self.vendor]

        # What holds whatever happens.
        if shape.place is None and len(attempts) != len(at_provider):
            complaints.append(f"{len(at_provider)} on the wire, {len(attempts)} in the log")
        if shape.place is None and len(own) != before_next:
            complaints.append(f"{before_next} on the wire before the next, {len(own)} in the log")
        if len(set(attempts)) != 1 or tried[: len(own)] != attempts[:1] * len(own):
            complaints.append(f"attempts end as {attempts}, with others left as {tried}")
        if reserved or reserved_followed:
            complaints.append(f"{reserved} and {reserved_followed} nano-dollars stay reserved")
        for answer in (alone, followed):
            if answer.seconds > BOUND_SECONDS:
                complaints.append(f"took {answer.seconds:.1f} s")
            if answer.status == 503 and int(answer.headers.get("retry-after", 0)) < 1:
                complaints.append("503 without Retry-After")
        if self.vendor in shape.who_wait or not shape.who_wait:
            arrived = [request.arrived_at_seconds for request in at_provider]
            waits = [later - earlier for earlier, later in itertools.pairwise(arrived)]
            # The arrival is noted a little after the first byte has been sent.
            if waits and sum(waits) < shape.waits_seconds * 0.95:
                complaints.append(f"waited {waits} s, not {shape.waits_seconds:g} in all")
        by = self._answered_by(followed)
        once = charged // max(1, len(attempts))
        expected = once * (len(own) - (by == "itself")) + followed.tokens * NANO_USD_PER_TOKEN
        if by == "next" and charged_followed != expected:
            complaints.append(f"{charged_followed} nano-dollars with the next, not {expected}")
        outcome = Outcome(
            line=attempts[0],
            attempts=len(attempts),
            before_next=len(own),
            answered_by=by,
            status=alone.status,
            code=alone.code,
            charged=self._charge(once, alone),
            breaker=is_counted,
        )
        self._heal(service)
        return Seen(outcome, complaints)

    def _fault(self, shape: Shape) -> Fault:
        if shape.fault is None:
            return Fault()
        assert self._like is not None
        return shape.fault(Asked(self.vendor, self.streamed, self._like))

    def _script(self, fault: Fault) -> None:
        self.sandbox.reset()
        self.sandbox.script(self.vendor, [fault], times=None)

    @contextmanager
    def _caller(self, service: Service) -> Iterator[tuple[httpx.Client, str]]:
        key = next(self._keys)
        headers = {"authorization": f"Bearer {key}"}
        timeout = BOUND_SECONDS * 2
        with httpx.Client(
            base_url=service.url, headers=headers, timeout=timeout, **WITHOUT_TLS
        ) as client:
            yield client, key

    def _models(self, client: httpx.Client) -> tuple[str, str]:
        """The provider's model, pinned to it, and as the first of a chain."""
        ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
        pinned = next(name for name in ids if name.startswith(f"{self.vendor}/"))
        return pinned, pinned.removeprefix(f"{self.vendor}/")

    def _ask(self, client: httpx.Client, model: str) -> Answer:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "What is a guardrail?"}],
            "max_tokens": MAX_TOKENS,
        }
        if self.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        started = time.monotonic()
        response = client.post("/v1/chat/completions", json=body)
        seconds = time.monotonic() - started
        read = _read_stream if response.status_code == 200 and self.streamed else _read
        code, tokens = read(response.text)
        return Answer(response.status_code, code, response.headers, tokens, seconds)

    def _settled(self, service: Service, key: str) -> tuple[int, int]:
        """What the caller has spent, once nothing is under way; the log line does not wait."""

        with suppress(AssertionError):
            eventually(lambda: service.account(key)[1] == 0, 5)
        return service.account(key)

    def _answered_by(self, answer: Answer) -> Any:
        if not answer.is_whole:
            return "nobody"
        return "itself" if answer.headers["x-provider"] == self.vendor else "next"

    def _charge(self, nano_usd: int, answer: Answer) -> Any:
        if answer.is_whole and nano_usd == answer.tokens * NANO_USD_PER_TOKEN:
            return "usage"
        known = {0: "nothing", self._worst_nano_usd: "worst"}
        return known.get(nano_usd, "so far" if nano_usd < self._worst_nano_usd else nano_usd)

    def _breaker_has_opened(self, client: httpx.Client) -> bool:
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        (value,) = (
            sample.value
            for sample in samples
            if sample.name == BREAKER and sample.labels["provider"] == self.vendor
        )
        return value > 0

    def _heal(self, service: Service) -> None:
        """Closes the breaker again by a reply."""
        self.sandbox.reset()
        if service is self.service:
            with self._caller(service) as (client, _):
                answer = self._ask(client, self._models(client)[0])
            assert answer.is_whole, answer


def _read(text: str) -> tuple[str, int]:
    body = json.loads(text)
    if "error" in body:
        return str(body["error"]["code"]), 0
    return "", _tokens(body)


def _read_stream(text: str) -> tuple[str, int]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    done = data[-1:] == ["[DONE]"]
    events = [json.loads(item) for item in data if item != "[DONE]"]
    errors = [event["error"]["code"] for event in events if "error" in event]
    if done == bool(errors):
        return f"{'done, and yet' if done else 'neither done nor an error:'} {errors}", 0
    if errors:
        return str(errors[-1]), 0
    return "", sum(_tokens(event) for event in events)


def _tokens(body: Mapping[str, Any]) -> int:
    usage = body.get("usage") or {}
    return int(usage.get("prompt_tokens", 0)) + int(usage.get("completion_tokens", 0))
