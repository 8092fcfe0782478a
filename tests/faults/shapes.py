"""The shapes of failure, and what has to become of each: the rows of the table.

A new shape is one entry of `SHAPES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import ReceivedRequest
from sandbox.vendors import Request, discover

from . import places

ATTEMPTS = 3
"""`MAX_ATTEMPTS` of the service under test."""
LARGE = "x" * 200_000
"""A word longer than the largest reply that the service under test takes."""
SIXTY_TOKENS = Reply(chunks=60)
THINK_UNSEEN = ("gemini", "openai_compatible")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a failure leads to.

    `line` is what the log line calls each attempt, `attempts` their number when nobody else is
    left, `before_next` when there is: then `answered_by` answers. `status` and `code` are what the
    caller hears when nobody else is left; a stream that breaks has both. `charged` is what the
    caller's account bears for each attempt, `breaker` whether the breaker counts it.
    """

    line: str
    attempts: int
    before_next: int
    answered_by: Literal["next", "itself", "nobody"]
    status: int
    code: str
    charged: Literal["nothing", "worst", "so far", "usage"]
    breaker: bool

    def __str__(self) -> str:
        said = f"{self.status} {self.code}".strip()
        counted = ", counted" if self.breaker else ""
        tried = f"{self.attempts}/{self.before_next}"
        return f"{self.line} {tried}, {self.answered_by}, {said}, {self.charged}{counted}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a vendor is asked: `request` is the like of it, as the stand-in has received it."""

    vendor: str
    streamed: bool
    request: ReceivedRequest


@dataclass(frozen=True, slots=True)
class Shape:
    """A failure, and its outcome for a reply in one piece and for a stream.

    `fault` is what the vendor answers, time and again; `place` is where to look instead for a
    vendor who is not there. `waits_seconds` lie between the first attempt and the last at the
    least, at every vendor or at those of `who_wait`. A vendor may have outcomes of its own.
    """

    name: str
    whole: Outcome
    streamed: Outcome
    fault: Callable[[Asked], Fault] | None = None
    place: Callable[[], AbstractContextManager[str]] | None = None
    waits_seconds: float = 0.0
    who_wait: Sequence[str] = ()
    of_vendors: Mapping[tuple[str, bool], Outcome] = field(default_factory=dict)

    def outcome(self, vendor: str, streamed: bool) -> Outcome:
        return self.of_vendors.get((vendor, streamed), self.streamed if streamed else self.whole)

    def otherwise(self) -> dict[str, str]:
        """The outcomes that differ from that of a whole reply, by what they are of."""
        differing = {"stream": self.streamed} if self.streamed != self.whole else {}
        for (vendor, streamed), outcome in self.of_vendors.items():
            kind = "stream" if streamed else "whole"
            if outcome != (self.streamed if streamed else self.whole):
                differing[f"{vendor} {kind}"] = outcome
        return {name: str(outcome) for name, outcome in differing.items()}


# What happens


UNAVAILABLE = Outcome(
    line="ProviderUnavailable",
    attempts=ATTEMPTS,
    before_next=ATTEMPTS,
    answered_by="next",
    status=503,
    code="providers_unavailable",
    charged="worst",
    breaker=True,
)
"""Asked again after a wait, then left; what it did with the request nobody knows."""
NOT_THERE = replace(UNAVAILABLE, charged="nothing")
"""The request has provably not been processed."""
BUSY = replace(NOT_THERE, breaker=False)
"""It says so itself, which is no illness."""
SILENT = replace(UNAVAILABLE, line="ProviderTimeout", before_next=1)
"""It may have billed: with others left, it is not asked again."""
LATER = replace(BUSY, attempts=1, before_next=1)
"""Not asked again: the wait would cross the deadline."""
NO_CONNECTION_IN_TIME = replace(SILENT, charged="nothing")
REFUSES_ACCOUNT = replace(BUSY, line="ProviderRefusesAccount", attempts=1, before_next=1)
REFUSES_REQUEST = replace(
    BUSY,
    line="ProviderRejectsRequest",
    attempts=1,
    before_next=1,
    answered_by="nobody",
    status=400,
    code="provider_rejected_request",
)
CONTENT_REFUSED = replace(REFUSES_REQUEST, code="content_policy_violation")
OUT_OF_TIME = replace(
    UNAVAILABLE,
    line="Cut",
    attempts=1,
    before_next=1,
    answered_by="nobody",
    code="deadline_exceeded",
    breaker=False,
)
BROKEN = replace(
    UNAVAILABLE,
    attempts=1,
    before_next=1,
    answered_by="nobody",
    status=200,
    charged="so far",
)
"""A stream that had begun: an error in it, and no end."""
STALLED = replace(BROKEN, line="ProviderTimeout")
TOO_LONG = replace(BROKEN, line="Cut", code="deadline_exceeded", charged="worst", breaker=False)
FINE = Outcome(
    line="ok",
    attempts=1,
    before_next=1,
    answered_by="itself",
    status=200,
    code="",
    charged="usage",
    breaker=False,
)
USAGE_UNKNOWN = replace(FINE, charged="worst")


# What goes wrong


def absent(name: str, outcome: Outcome, place: Callable[[], AbstractContextManager[str]]) -> Shape:
    return Shape(name, outcome, outcome, place=place)


def before(
    name: str,
    outcome: Outcome,
    fault: Fault | Callable[[Asked], Fault],
    *,
    waits_seconds: float = 0.0,
    who_wait: Sequence[str] = (),
    **of_vendors: Outcome,
) -> Shape:
    """A failure before the first byte of a reply: a stream fares as a whole reply does."""
    return Shape(
        name,
        outcome,
        outcome,
        fault if callable(fault) else lambda asked: fault,
        waits_seconds=waits_seconds,
        who_wait=who_wait,
        of_vendors={
            (vendor, streamed): own
            for vendor, own in of_vendors.items()
            for streamed in (False, True)
        },
    )


def within(name: str, whole: tuple[Outcome, Fault], streamed: tuple[Outcome, Fault]) -> Shape:
    """A failure in the middle of a reply, of which a caller of a stream has seen the beginning."""
    faults = (whole[1], streamed[1])
    return Shape(
        name,
        whole[0],
        streamed[0],
        fault=lambda asked: faults[asked.streamed],
        of_vendors=_out_of_sight(streamed[0]),
    )


def _out_of_sight(streamed: Outcome) -> dict[tuple[str, bool], Outcome]:
    """Where a model may think unseen, nobody knows what the beginning of a stream has cost."""
    if streamed.charged != "so far":
        return {}
    return {(vendor, True): replace(streamed, charged="worst") for vendor in THINK_UNSEEN}


def rearranged(
    name: str,
    whole: tuple[Outcome, Callable[[str], str]],
    streamed: tuple[Outcome, Callable[[list[str]], list[str]]],
    of_vendors: Mapping[tuple[str, bool], Outcome] | None = None,
) -> Shape:
    """The vendor's own reply, changed: the body of a whole one, the list of a stream's events."""

    def fault(asked: Asked) -> Fault:
        body = _own_reply(asked)
        if not asked.streamed:
            return Fault(body=whole[1](body))
        events = re.findall(r".+?\r?\n\r?\n", body, re.DOTALL)
        return Fault(body="".join(streamed[1](events)), content_type="text/event-stream")

    own = {**_out_of_sight(streamed[0]), **(of_vendors or {})}
    return Shape(name, whole[0], streamed[0], fault, of_vendors=own)


def _own_reply(asked: Asked) -> str:
    stand_in = discover()[asked.vendor]
    keys = {"authorization": f"Bearer {stand_in.api_key}", "api-key": stand_in.api_key}
    headers = dict(asked.request.headers)
    for name in headers:
        headers[name] = next((k for end, k in keys.items() if name.endswith(end)), headers[name])
    request = Request(1, "POST", asked.request.path, headers, asked.request.body, "alt=sse")
    answer = stand_in.answer(request, Reply(text="A guard rail keeps you on the road."))
    return b"".join(piece.data for piece in answer.pieces).decode()


def _retry_at_a_date(asked: Asked) -> Fault:
    """At least a second from now: a date has no fractions."""
    then = datetime.now(UTC) + timedelta(seconds=2)
    return Fault(status=429, headers={"retry-after": format_datetime(then, usegmt=True)})


def _retry_info() -> Fault:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.6s"}
    error = {"code": 429, "message": "Slow down.", "status": "UNAVAILABLE", "details": [detail]}
    return Fault(status=429, body=json.dumps({"error": error}))


def _members_reversed(body: str) -> str:
    return json.dumps(dict(reversed(json.loads(body).items())))


SHAPES: tuple[Shape, ...] = (
    # Nobody there
    absent("connection refused", NOT_THERE, places.closed),
    absent("unknown host", NOT_THERE, places.unknown),
    absent("slow connect", NO_CONNECTION_IN_TIME, places.full),
    absent("no TLS", NOT_THERE, places.plain),
    absent("silent TLS handshake", NO_CONNECTION_IN_TIME, places.silent),
    absent("foreign certificate", NOT_THERE, places.foreign),
    # Before the first byte
    before("silent", SILENT, Fault(action="stall")),
    before("headers, then silent", SILENT, Fault(action="stall", after_chunks=0)),
    before("late first byte", FINE, Fault(delay_seconds=0.3)),
    before("one byte at a time", OUT_OF_TIME, Fault(drip_seconds=0.2)),
    before("reset before the headers", UNAVAILABLE, Fault(action="reset")),
    before("closed before the headers", UNAVAILABLE, Fault(action="close")),
    before("empty body", UNAVAILABLE, Fault(body="")),
    before("empty JSON", UNAVAILABLE, Fault(body="{}")),
    before("a proxy's error page", UNAVAILABLE, Fault(html=True)),
    before("a page instead of a reply", UNAVAILABLE, Fault(status=200, html=True)),
    before("redirect", REFUSES_ACCOUNT, Fault(status=302, body="", headers={"location": "/"})),
    # Statuses
    before("408", BUSY, Fault(status=408)),
    before("409", BUSY, Fault(status=409)),
    before("429", BUSY, Fault(status=429)),
    before("500", UNAVAILABLE, Fault(status=500)),
    before("503", UNAVAILABLE, Fault(status=503)),
    before("504", UNAVAILABLE, Fault(status=504)),
    before("529", NOT_THERE, Fault(status=529)),
    # 429, in each form of telling when to come back
    before(
        "Retry-After in seconds",
        BUSY,
        Fault(status=429, headers={"retry-after": "1"}),
        waits_seconds=2.0,
    ),
    before("Retry-After as a date", BUSY, _retry_at_a_date, waits_seconds=1.0),
    before(
        "retry-after-ms",
        BUSY,
        Fault(status=429, headers={"retry-after-ms": "600"}),
        waits_seconds=1.2,
    ),
    before("RetryInfo", BUSY, _retry_info(), waits_seconds=1.2, who_wait=["gemini"]),
    before(
        "Retry-After beyond the deadline", LATER, Fault(status=429, headers={"retry-after": "60"})
    ),
    # The account
    before("revoked key", REFUSES_ACCOUNT, Fault(error="invalid_api_key")),
    before("no permission", REFUSES_ACCOUNT, Fault(error="permission_denied")),
    before("quota exhausted", REFUSES_ACCOUNT, Fault(error="quota_exhausted")),
    before("spend limit", REFUSES_ACCOUNT, Fault(error="spend_limit")),
    before("model not found", REFUSES_ACCOUNT, Fault(error="model_not_found")),
    # The request
    before(
        "invalid request",
        replace(REFUSES_REQUEST, code="invalid_request_error"),
        Fault(error="invalid_request"),
        gemini=replace(REFUSES_REQUEST, code="invalid_argument"),
        openai_compatible=REFUSES_REQUEST,
    ),
    before(
        "context too long",
        replace(REFUSES_REQUEST, code="context_length_exceeded"),
        Fault(error="context_too_long"),
    ),
    before(
        "content refused",
        CONTENT_REFUSED,
        Fault(error="content_policy"),
        openai=replace(CONTENT_REFUSED, code="invalid_prompt"),
        # It says so inside a 200, and does not say what that costs.
        gemini=replace(CONTENT_REFUSED, charged="worst"),
    ),
    before("refusal", FINE, Fault(reply=Reply(refusal=True))),
    # In the middle
    within(
        "reset within",
        (UNAVAILABLE, Fault(action="reset", after_chunks=2)),
        (BROKEN, Fault(action="reset", after_chunks=20, reply=SIXTY_TOKENS)),
    ),
    within(
        "closed within",
        (UNAVAILABLE, Fault(action="close", after_chunks=2)),
        (BROKEN, Fault(action="close", after_chunks=20, reply=SIXTY_TOKENS)),
    ),
    within(
        "cut after 40 of 60 tokens, closed cleanly",
        (UNAVAILABLE, Fault(action="end", after_chunks=2, reply=SIXTY_TOKENS)),
        (BROKEN, Fault(action="end", after_chunks=40, reply=SIXTY_TOKENS)),
    ),
    within(
        "stalled after 20 tokens",
        (SILENT, Fault(action="stall", after_chunks=2)),
        (STALLED, Fault(action="stall", after_chunks=20, reply=SIXTY_TOKENS)),
    ),
    within(
        "malformed piece",
        (UNAVAILABLE, Fault(body='{"id": ')),
        (BROKEN, Fault(action="garble", after_chunks=20, reply=SIXTY_TOKENS)),
    ),
    within(
        "error inside a 200",
        (UNAVAILABLE, Fault(action="error_event", error="server_error")),
        (
            BROKEN,
            Fault(action="error_event", error="server_error", after_chunks=20, reply=SIXTY_TOKENS),
        ),
    ),
    within(
        "endless",
        (OUT_OF_TIME, Fault(action="endless", after_chunks=2, drip_seconds=0.02)),
        (TOO_LONG, Fault(action="endless", after_chunks=5)),
    ),
    before("oversized", UNAVAILABLE, Fault(reply=Reply(text=LARGE, chunks=1))),
    # What is odd, and what is missing
    Shape(
        "wrong content type",
        FINE,
        UNAVAILABLE,
        fault=lambda asked: Fault(content_type="text/plain"),
    ),
    rearranged(
        "said twice",
        (UNAVAILABLE, lambda body: body * 2),
        (FINE, lambda events: events + events[-1:]),
    ),
    rearranged(
        "out of order",
        (FINE, _members_reversed),
        (BROKEN, lambda events: [*events[:4], *reversed(events[4:])]),
        # Its events have neither numbers nor a last one of a kind of its own.
        {("gemini", True): FINE},
    ),
    before("usage missing", USAGE_UNKNOWN, Fault(reply=Reply(usage=False))),
)
