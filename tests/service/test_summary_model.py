"""A cheaper model for summaries, as its owner sets it and as everybody else hears of it."""

import json
import re
from collections.abc import Iterator

import pytest

from app.guardrails.context.token_count import TokenCounter
from sandbox.model import Reply
from sandbox.server import Sandbox

from .collector import Collector
from .serving import Project, Service

CHAT = "/v1/chat/completions"
CHEAP = "gpt-5-nano"
# Of the price list, in nano-dollars.
INPUT, OUTPUT = 50, 400
TURNS = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}."} for n in range(25)]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector.running() as collector:
        yield collector


@pytest.fixture
def frugal(project: Project, collector: Collector, sandbox: Sandbox) -> Iterator[Service]:
    """Anthropic answers, OpenAI's cheapest summarises."""
    with project.serve(
        PROVIDERS="anthropic,openai",
        SUMMARY_MODEL=f"openai/{CHEAP}",
        # What it is asked with as well: this model knows no "none".
        OPENAI_REASONING_EFFORT="minimal",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    ) as service:
        yield service


@pytest.mark.promise("C5")
def test_a_cheaper_model_makes_the_summaries(
    frugal: Service, collector: Collector, sandbox: Sandbox
) -> None:
    """It is asked for the summary alone, and stands by its own name and price in log, ledger,
    metrics and trace."""
    sandbox.script("openai", [Reply(text="They counted.", input_tokens=100, output_tokens=10)])
    client = frugal.http("key-of-caller1")
    response = client.post(CHAT, json={"messages": TURNS})
    assert response.status_code == 200
    (summarizing,) = sandbox.requests("openai")
    (answering,) = sandbox.requests("anthropic")
    assert summarizing.body["model"] == CHEAP
    assert "They counted." in json.dumps(answering.body)
    assert response.headers["x-provider"] == "anthropic"
    assert re.fullmatch(r"trimmed=(\d+); summarized=\1", response.headers["x-context"])

    cost = 100 * INPUT + 10 * OUTPUT
    line = frugal.line_of(response.headers["x-request-id"])
    summary, answer = line["attempts"]
    assert (summary["provider"], summary["model"], summary["summary"]) == ("openai", CHEAP, True)
    assert summary["cost_usd"] == cost / 1e9
    assert (answer["provider"], line["provider"]) == ("anthropic", "anthropic")
    spent = json.loads(frugal.spend("--json").stdout)
    (row,) = [row for row in spent["spent"] if row["model"] == CHEAP]
    assert (row["provider"], row["calls"], row["cost_nano_usd"]) == ("openai", 1, cost)
    assert len(spent["spent"]) == 2 and spent["reserved"] == []
    metrics = client.get("/metrics").text
    told = re.search(
        rf'^llm_cost_usd_total{{model="{CHEAP}",provider="openai"}} (\S+)$', metrics, re.M
    )
    assert told is not None and float(told[1]) == pytest.approx(cost / 1e9)
    names = ("POST /v1/chat/completions", "admission", "summary", f"chat {CHEAP}")
    spans = collector.trace(line["trace_id"], *names, "chat claude-haiku-5-5", "settlement")
    assert spans[3].attributes["gen_ai.request.model"] == CHEAP


@pytest.mark.promise("C5")
def test_what_is_declared_of_a_window_holds_for_summaries(
    project: Project, sandbox: Sandbox
) -> None:
    """The provider's own model is asked within the window that its owner has declared of it."""
    window = 1_000
    turns = [{**turn, "content": "many words " * 50} for turn in TURNS]
    with project.serve(
        PROVIDERS="anthropic,openai",
        SUMMARY_MODEL="openai/gpt-6-luna",
        OPENAI_MODEL="gpt-6-luna",
        OPENAI_CONTEXT_WINDOW_TOKENS=str(window),
        MAX_OUTPUT_TOKENS="100",
    ) as service:
        response = service.http("key-of-caller1").post(
            CHAT, json={"messages": turns, "model": "anthropic/claude-haiku-5-5"}
        )
    assert response.status_code == 200
    (summarizing,) = sandbox.requests("openai")
    told = [message["content"] for message in summarizing.body["messages"]]
    assert window / 2 < sum(map(TokenCounter().text, told)) <= window - 100
