"""One account of a run from each place that keeps one, so that they can be held side by side."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sandbox.server import Sandbox

from ..core.backends import Books

NANO = 10**9
NOT_ASKED = "breaker_open"
"""The outcome of an attempt that was not made."""
CUT = "Cut"
"""The outcome of one that was cut off at any moment, perhaps before it was sent."""
OWN_ROUTES = {"/metrics", "/livez", "/readyz", "/v1/models"}
"""What the test itself asks for."""

Line = Mapping[str, Any]
Counts = Counter[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Account:
    """What was counted, by labels; money and its like in whole numbers."""

    requests: Counts
    """By method, route and status."""
    attempts: Counts
    """By provider and outcome."""
    refusals: Counts
    replays: int
    first_tokens: int
    tokens: Counts
    """By direction."""
    cost_nano_usd: int


def from_lines(lines: Sequence[Line]) -> Account:
    return Account(
        requests=Counter((x["method"], x["route"], str(x["status"])) for x in lines),
        attempts=Counter((a["provider"], a["outcome"]) for x in lines for a in attempts_of(x)),
        refusals=Counter((x["refusal"],) for x in lines if "refusal" in x and not attempts_of(x)),
        replays=sum(x.get("replayed", False) for x in lines),
        first_tokens=sum("first_token_ms" in x for x in lines),
        tokens=Counter(
            {
                ("input",): sum(x.get("input_tokens", 0) for x in lines),
                ("output",): sum(x.get("output_tokens", 0) for x in lines),
            }
        ),
        cost_nano_usd=sum(map(cost_of, lines)),
    )


def from_metrics(text: str) -> Account:
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]

    def counts(name: str, *labels: str) -> Counts:
        found: Counts = Counter()
        for sample in samples:
            if sample.name == name and sample.labels.get("route") not in OWN_ROUTES:
                found[tuple(sample.labels[label] for label in labels)] += round(sample.value)
        return found

    return Account(
        requests=counts("http_requests_total", "method", "route", "status"),
        attempts=counts("llm_provider_attempts_total", "provider", "outcome"),
        refusals=counts("llm_refusals_total", "reason"),
        replays=counts("llm_idempotent_replays_total").total(),
        first_tokens=counts("llm_time_to_first_token_seconds_count").total(),
        tokens=counts("llm_tokens_total", "direction"),
        cost_nano_usd=sum(
            round(sample.value * NANO) for sample in samples if sample.name == "llm_cost_usd_total"
        ),
    )


def attempts_of(line: Line) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = line.get("attempts", [])
    return attempts


def cost_of(line: Line) -> int:
    """In nano-dollars."""
    cost_usd: float = line.get("cost_usd", 0)
    return round(cost_usd * NANO)


@dataclass(frozen=True, slots=True)
class Spend:
    """What `python -m app spend --json` prints."""

    by_caller: Mapping[str, int]
    tokens: Counts
    settled_nano_usd: int
    reserved_nano_usd: int


def read_spend(text: str) -> Spend:
    book = json.loads(text)
    by_caller: Counter[str] = Counter()
    tokens: Counts = Counter()
    for row in book["spent"]:
        by_caller[row["caller"]] += row["cost_nano_usd"]
        tokens["input",] += row["input_tokens"]
        tokens["output",] += row["output_tokens"]
    return Spend(by_caller, tokens, book["settled_nano_usd"], book["reserved_nano_usd"])


def cost_by_caller(lines: Iterable[Line]) -> Mapping[str, int]:
    costs: Counter[str] = Counter()
    for line in lines:
        costs[line["caller"]] += cost_of(line)
    return {caller: cost for caller, cost in costs.items() if cost}


def in_ledger(books: Books) -> int:
    """What the operations' rows add up to, whatever day they were on."""
    return sum(settled for (_, caller), (settled, _) in books.ledger.items() if not caller)


def calls_by_request(sandbox: Sandbox) -> Counter[str]:
    """How many calls for each request have reached the vendors."""
    received = (request for vendor in sandbox.vendors for request in sandbox.requests(vendor))
    return Counter(request.headers["x-request-id"] for request in received)


@dataclass(frozen=True, slots=True)
class Attempts:
    """Of one request: those that were certainly sent, and those that may have been."""

    sure: int
    possible: int


def attempts_by_request(lines: Iterable[Line]) -> Mapping[str, Attempts]:
    return {line["request_id"]: _attempts(attempts_of(line)) for line in lines if attempts_of(line)}


def _attempts(attempts: Iterable[Mapping[str, Any]]) -> Attempts:
    outcomes = Counter(attempt["outcome"] for attempt in attempts)
    made = outcomes.total() - outcomes[NOT_ASKED]
    return Attempts(made - outcomes[CUT], made)
