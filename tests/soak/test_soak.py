"""A service under steady load and every fault for minutes: it keeps nothing, and forgets nothing.

`make soak` is the long form of it and prints the figures, as each run does.
"""

import signal
from collections import Counter
from dataclasses import asdict

import pytest

from sandbox.server import Sandbox

from .accounts import (
    NANO,
    attempts_by_request,
    calls_by_request,
    cost_by_caller,
    from_lines,
    from_metrics,
    in_ledger,
)
from .conftest import Soaked
from .crowd import CALLERS
from .figures import ALLOWED, growth, halves, too_much
from .report import TellCounts, TellFigures

pytestmark = pytest.mark.xdist_group("soak")

COMPLAINTS = ("never retrieved", "was never awaited", "was destroyed", "Unclosed")
"""What asyncio, aiohttp and the interpreter say of what was left lying about."""


def test_nothing_grows(soaked: Soaked, minutes: float, tell_figures: TellFigures) -> None:
    """After the warm-up neither memory nor tasks, connections, open files or threads grow; when all
    is over, the tasks and files that are left are those of the start."""
    before, *rests = soaked.rests
    first, second = halves(rests)
    grown = growth(first, second)
    tell_figures(
        f"{minutes:g} minutes, {CALLERS} callers, {len(soaked.sent):,} requests",
        {
            name: {
                "at start": asdict(before)[name],
                "first half": asdict(first)[name],
                "second half": asdict(second)[name],
                "grown by": amount,
                "allowed": asdict(ALLOWED)[name],
                "let go": asdict(soaked.let_go)[name],
                **({"peak": asdict(soaked.peak)[name]} if name in asdict(soaked.peak) else {}),
            }
            for name, amount in grown.items()
        },
    )
    assert too_much(grown) == {}
    assert soaked.let_go.connections == 0
    assert soaked.let_go.tasks == before.tasks
    assert soaked.let_go.open_files <= before.open_files


def test_every_request_is_counted_once(soaked: Soaked, tell_counts: TellCounts) -> None:
    """Each request that was sent has one line and one count, with the status that its caller has
    seen; none is lost, and none crashes."""
    lines, metrics = from_lines(soaked.lines), from_metrics(soaked.metrics)
    tell_counts(
        "requests",
        f"{len(soaked.sent):,} sent, {len(soaked.lines):,} lines,"
        f" {metrics.requests.total():,} counted",
    )
    outcomes = Counter(sent.outcome for sent in soaked.sent)
    tell_counts("outcomes", ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.most_common()))
    status = {line["request_id"]: line["status"] for line in soaked.lines}
    assert len(soaked.lines) == len(soaked.sent)
    assert status.keys() == {sent.request_id for sent in soaked.sent}
    assert outcomes["lost"] == 0
    answered = {sent.request_id: sent.status for sent in soaked.sent if sent.outcome != "left"}
    assert answered == {request_id: status[request_id] for request_id in answered}
    assert metrics.requests == lines.requests
    assert (metrics.refusals, metrics.replays) == (lines.refusals, lines.replays)
    assert metrics.first_tokens == lines.first_tokens
    assert "internal_error" not in outcomes
    assert {line["outcome"] for line in soaked.lines} <= {"ok", "failed", "refused", "disconnected"}
    # Else the rest would say little.
    assert outcomes["answered"] > len(soaked.sent) / 4
    assert {"cut off", "left", "rate_limit_exceeded", "request_in_flight"} <= outcomes.keys()
    assert lines.replays > 0


def test_every_call_is_told(soaked: Soaked, sandbox: Sandbox, tell_counts: TellCounts) -> None:
    """What the vendors have received for each request is what its line says, and the metrics."""
    lines, metrics = from_lines(soaked.lines), from_metrics(soaked.metrics)
    calls, attempts = calls_by_request(sandbox), attempts_by_request(soaked.lines)
    tell_counts(
        "calls",
        f"{calls.total():,} received, {sum(a.possible for a in attempts.values()):,} in lines;"
        f" outcomes: {', '.join(f'{n:,} {outcome}' for outcome, n in _outcomes(lines.attempts))}",
    )
    assert metrics.attempts == lines.attempts
    assert calls.keys() <= attempts.keys()
    wrong = {
        request_id: (calls[request_id], told)
        for request_id, told in attempts.items()
        if not told.sure <= calls[request_id] <= told.possible
    }
    assert wrong == {}


def test_every_dollar_is_told(soaked: Soaked, tell_counts: TellCounts) -> None:
    """Lines, metrics, `spend` and the ledger agree to the nano-dollar, caller by caller, and
    nothing stays reserved."""
    lines, metrics = from_lines(soaked.lines), from_metrics(soaked.metrics)
    ledger = in_ledger(soaked.books)
    tell_counts(
        "cost",
        f"${lines.cost_nano_usd / NANO:.9f} in lines, ${metrics.cost_nano_usd / NANO:.9f} in"
        f" metrics, ${soaked.spend.settled_nano_usd / NANO:.9f} in `spend`,"
        f" ${ledger / NANO:.9f} in the ledger;"
        f" ${soaked.spend.reserved_nano_usd / NANO:.9f} reserved",
    )
    assert lines.cost_nano_usd == soaked.spend.settled_nano_usd
    assert metrics.cost_nano_usd == soaked.spend.settled_nano_usd == ledger
    assert cost_by_caller(soaked.lines) == soaked.spend.by_caller
    assert lines.tokens == metrics.tokens == soaked.spend.tokens
    assert soaked.spend.reserved_nano_usd == 0
    assert soaked.books.balanced
    assert (soaked.books.open_operations, soaked.books.running_claims) == (0, 0)


def test_nothing_is_left_lying_about(soaked: Soaked) -> None:
    """The service ends in order, and nothing complains of what it has forgotten to close; all that
    it prints is a line of its log."""
    assert soaked.status in (0, -signal.SIGTERM)
    printed = soaked.output.splitlines()
    assert [line for line in printed if any(words in line for words in COMPLAINTS)] == []
    assert [line for line in printed if not line.startswith("{")] == []


def _outcomes(attempts: Counter[tuple[str, ...]]) -> list[tuple[str, int]]:
    sums: Counter[str] = Counter()
    for (_, outcome), number in attempts.items():
        sums[outcome] += number
    return sums.most_common()
