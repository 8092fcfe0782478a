"""The ledger as people read it: at the command line, at /metrics, and on each response."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from ..service.asking import body
from ..service.serving import Service, eventually
from ..stores import SHARED_STORES
from .conftest import CENT, Contender

CHAT = "/v1/chat/completions"
NANO = 10**9


def ask_around(service: Service, sandbox: Sandbox) -> dict[str, int]:
    """Two callers' calls: answered, streamed, failed for nothing and failed at full price. What
    each has been told that it spent, in nano-dollars."""
    told: dict[str, int] = defaultdict(int)
    script: list[Fault | Reply] = [Reply(output_tokens=30), Fault(status=500), Fault(status=429)]
    for name in ("caller1", "caller2"):
        client = service.http(f"key-of-{name}")
        sandbox.script("openai", [*script, Reply(output_tokens=7, chunks=2, text="a b")])
        for _ in script:
            response = client.post(CHAT, json=body())
            told[name] += round(Decimal(response.headers["x-cost-usd"]) * NANO)
        text = client.post(CHAT, json=body(stream=True)).text
        (cost,) = re.findall(r"^: x-cost-usd=([\d.]+);", text, re.MULTILINE)
        told[name] += round(Decimal(cost) * NANO)
    return told


def in_metrics(service: Service) -> dict[tuple[str, str], int]:
    """By provider and model."""
    text = service.http().get("/metrics").text
    found = re.findall(
        r'^llm_cost_usd_total{model="(.*)",provider="(.*)"} (\S+)$', text, re.MULTILINE
    )
    return {(provider, model): round(float(cost) * NANO) for model, provider, cost in found}


@pytest.mark.promise("R3", "R8")
def test_spend_agrees_with_metrics_and_headers(contender: Contender, sandbox: Sandbox) -> None:
    """Who spent what on which model, to the nano-dollar, wherever one looks."""
    with contender.serve(WORKERS="1") as service:
        told = ask_around(service, sandbox)
        lines = eventually(lambda: [] if len(service.lines("request")) < 8 else [True])
        assert lines
        metrics = in_metrics(service)
        assert sum(metrics.values()) == sum(told.values())
        assert set(told.values()) == {(30 + 100 + 7) * CENT // 100}
        if contender.shared:
            book = json.loads(service.spend("--json").stdout)
            assert {line["caller"] for line in book["spent"]} == set(told)
            for line in book["spent"]:
                assert line["cost_nano_usd"] == told[line["caller"]]
                assert (line["calls"], line["output_tokens"]) == (3, 37)
                assert (line["provider"], line["model"]) in metrics
            assert book["settled_nano_usd"] == sum(told.values())
            assert (book["reserved"], book["timezone"]) == ([], "UTC")
        else:
            refused = service.spend("--json")
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "serving process" in refused.stderr and "/metrics" in refused.stderr


@pytest.mark.promise("R3")
@pytest.mark.parametrize("storage", SHARED_STORES)
def test_spend_reads_as_a_table(
    contenders: Callable[[str], Contender], storage: str, sandbox: Sandbox
) -> None:
    """For people: a line for each caller and model, what is still set aside, and the budget."""
    with contenders(storage).serve(
        DAILY_BUDGET_USD="50", DAILY_BUDGET_PER_CALLER_USD="50"
    ) as service:
        ask_around(service, sandbox)
        today = datetime.now(UTC).date().isoformat()
        title, _, header, *rows, total, _, budget = service.spend().stdout.splitlines()
        assert title in (f"{today} (UTC)", f"{datetime.now(UTC).date().isoformat()} (UTC)")
        assert re.split(" {2,}", header) == [
            *("caller", "provider", "model", "calls", "input tokens", "output tokens", "USD")
        ]
        assert [row.split()[0] for row in rows] == ["caller1", "caller2"]
        assert [row.split()[-1] for row in rows] == ["0.0137", "0.0137"]
        assert total.split() == ["total", "0.0274"]
        assert budget == "$0.0274 of the daily budget of $50, 0.1%"
        other = service.spend("--day", "2020-02-29")
        assert "Nothing was spent." in other.stdout
        wrong = service.spend("--day", "yesterday")
        assert wrong.returncode == 2
        assert "yesterday is no day; write it like 2026-01-31" in wrong.stderr
