"""Two hundred turns of one conversation, each sent with all that was said before, as clients do."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.guardrails.context.token_count import TokenCounter
from sandbox.chat_completions import prompt
from sandbox.model import Reply, complete
from sandbox.server import ReceivedRequest, Sandbox

from ..rendering import render, take_snapshot
from .asking import WEATHER
from .report import Figures, Tell
from .serving import Project, Service

CHAT = "/v1/chat/completions"
TURNS = 200
TOOL_EVERY = 10
LIMIT = 3_000
KEPT_MESSAGES = 20
DOLLARS = 10
NANO_PER_TOKEN = {"input": 1_000, "output": 10_000}
SETTINGS = {
    "PROVIDERS": "openai",
    "OPENAI_INPUT_USD_PER_MTOK": "1",
    "OPENAI_OUTPUT_USD_PER_MTOK": "10",
    "MAX_INPUT_TOKENS": str(LIMIT),
    "MAX_HISTORY_MESSAGES": str(KEPT_MESSAGES),
    "RATE_LIMIT_REQUESTS": "100000",
    "DAILY_BUDGET_PER_CALLER_USD": str(DOLLARS),
}
MARK = re.compile(r"mark-\d+-[a-z]")

Message = dict[str, Any]


@pytest.fixture(scope="module", params=["sqlite", "memory"])
def long_service(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    variables: dict[str, str],
) -> Iterator[tuple[str, Service]]:
    """A service on each of these stores."""
    root: Path = tmp_path_factory.mktemp("long") / "service"
    template = take_snapshot(tmp_path_factory.mktemp("template"))
    render(template, root, {"storage": request.param})
    project = Project(root, variables | SETTINGS, root.parent / "service.db")
    with project.serve() as service:
        yield request.param, service


def said(role: str, turn: int, part: str, **more: Any) -> Message:
    """Grows with the turns; `part` tells the messages of one turn apart."""
    return {"role": role, "content": f"mark-{turn}-{part}" + " word" * (8 + turn), **more}


def marks(messages: object) -> list[str]:
    return MARK.findall(json.dumps(messages))


@dataclass
class Talk:
    """A client with its history, and the books that it keeps of what the provider was sent."""

    client: httpx.Client
    sandbox: Sandbox
    count: Callable[[str], int]
    history: list[Message] = field(default_factory=list)
    covered: Counter[str] = field(default_factory=Counter)
    gist: str = ""
    gists: int = 0
    requests: int = 0
    said_tokens: int = 0
    sent: list[int] = field(default_factory=list)
    summarised: list[int] = field(default_factory=list)
    bill_nano_usd: int = 0
    summaries_nano_usd: int = 0
    told_nano_usd: int = 0
    budget_left_nano_usd: int = 0

    def take_turn(self, turn: int) -> None:
        with_tool = turn % TOOL_EVERY == TOOL_EVERY // 2
        question = said("user", turn, "q")
        if with_tool:
            question["content"] += " And the weather?"
        self.history.append(question)
        if with_tool:
            choice = self.ask(streamed=False, tools=[WEATHER])["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            calls = [{**call, "id": f"call-{turn}"} for call in choice["message"]["tool_calls"]]
            for call in calls:
                city = json.dumps({"city": f"mark-{turn}-c"})
                call["function"] = {**call["function"], "arguments": city}
            self.history.append({"role": "assistant", "content": None, "tool_calls": calls})
            self.history.append(said("tool", turn, "t", tool_call_id=f"call-{turn}"))
        self.ask(streamed=turn % 3 == 0, tools=[WEATHER] if with_tool else None)
        self.history.append(said("assistant", turn, "a"))

    def ask(self, *, streamed: bool, tools: list[Any] | None) -> dict[str, Any]:
        """Sends all of it, and looks at what the provider has received."""
        messages = [{"role": "system", "content": "Be brief."}, *self.history]
        body: dict[str, Any] = {"messages": messages, "stream": streamed, "max_tokens": 50}
        if tools:
            body["tools"] = tools
        # A long summary, if there is one now: the first of what the provider is asked.
        gist = None if tools else Reply(text=f"gist-{self.gists + 1}-" + " gist" * 400)
        self.sandbox.reset()
        self.sandbox.script("openai", [gist] if gist else [])
        response = self.client.post(CHAT, json=body)
        assert response.status_code == 200, response.text
        *summarising, answering = received = self.sandbox.requests("openai")
        assert len(summarising) <= 1
        self.requests += 1
        self.said_tokens += self.tokens(body)
        for request in received:
            tokens = self.tokens(request.body)
            assert tokens <= LIMIT
            self.sent.append(tokens)
        for request in summarising:
            self.note_summary(request)
            self.gist = f"gist-{self.gists}-" if gist else "Summary of 1 messages."
        self.check_answering(answering.body, response.headers)
        for request, reply in zip(received, (gist or Reply(), Reply()), strict=False):
            self.bill_nano_usd += cost(request.body, reply)
        for request in summarising:
            self.summaries_nano_usd += cost(request.body, gist or Reply())
        self.note_cost(response)
        return {} if streamed else dict(response.json())

    def note_summary(self, request: ReceivedRequest) -> None:
        """It holds the one before, if there is one, and what nobody has summarised yet."""
        assert self.gist in json.dumps(request.body)
        self.covered.update(marks(request.body))
        self.gists += 1
        self.summarised.append(self.tokens(request.body))

    def check_answering(self, body: Any, headers: httpx.Headers) -> None:
        """It sees the end of the conversation, and a summary of just what it does not see."""
        everything, seen = marks(self.history), marks(body["messages"])
        dropped = everything[: len(everything) - len(seen)]
        assert seen == everything[len(dropped) :]
        assert body["messages"][0]["content"] == "Be brief."
        kept = [message for message in body["messages"] if message["role"] != "system"]
        assert len(kept) <= KEPT_MESSAGES
        assert kept[0]["role"] == "user"
        assert Counter(dropped) == self.covered
        if trimmed := len(self.history) - len(kept):
            assert self.gist in body["messages"][1]["content"]
            assert headers["x-context"] == f"trimmed={trimmed}; summarized={trimmed}"
        else:
            assert "x-context" not in headers

    def note_cost(self, response: httpx.Response) -> None:
        told = {**response.headers}
        for line in re.findall(r"^: (x-cost-usd=.*)$", response.text, re.MULTILINE):
            told |= dict(item.split("=") for item in line.split("; "))
        self.told_nano_usd += nano(told["x-cost-usd"])
        self.budget_left_nano_usd = nano(told["x-budget-remaining-usd"])

    def tokens(self, body: Any) -> int:
        """What OpenAI counts of a request, by its cookbook: three for a message, its strings, one
        for a name, three for the reply; and the tools' definitions."""
        total = 3 + sum(self.count(json.dumps(tool)) for tool in body.get("tools") or ())
        for message in body["messages"]:
            total += 3 + sum(map(self.count, strings(message)))
        return total


def strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from strings(inner)
        case list():
            for inner in value:
                yield from strings(inner)


def nano(dollars: str) -> int:
    return int(Decimal(dollars) * 10**9)


def cost(body: Any, reply: Reply) -> int:
    """What the stand-in has billed for it."""
    usage = complete(prompt(body), reply).usage
    assert usage is not None
    return (
        usage.input_tokens * NANO_PER_TOKEN["input"]
        + usage.output_tokens * NANO_PER_TOKEN["output"]
    )


@pytest.mark.promise("C4", "C5")
def test_a_long_conversation_stays_within_its_limits(
    long_service: tuple[str, Service], sandbox: Sandbox, tell_conversation: Tell
) -> None:
    """At each turn the provider sees no more than it may, and a summary of all the rest, for which
    each message was read once; few turns need a call for one, and the ledger is the bill."""
    store, service = long_service
    talk = Talk(service.http("key-of-caller1"), sandbox, cache(TokenCounter().text))
    for turn in range(TURNS):
        talk.take_turn(turn)
    assert set(talk.covered.values()) == {1}
    assert talk.gists <= TURNS // 4
    assert talk.bill_nano_usd == talk.told_nano_usd == DOLLARS * 10**9 - talk.budget_left_nano_usd
    if store != "memory":
        assert service.account("key-of-caller1") == (talk.bill_nano_usd, 0)
        assert service.books.balanced
        book = json.loads(service.spend("--json").stdout)
        assert (book["settled_nano_usd"], book["reserved"]) == (talk.bill_nano_usd, [])
    tell_conversation(
        store,
        Figures(
            turns=TURNS,
            requests=talk.requests,
            said_tokens=talk.said_tokens,
            sent_tokens=sum(talk.sent),
            longest=max(talk.sent),
            limit=LIMIT,
            dropped=len(talk.covered),
            summaries=talk.gists,
            summarised_tokens=sum(talk.summarised),
            cost_nano_usd=talk.bill_nano_usd,
            summaries_nano_usd=talk.summaries_nano_usd,
        ),
    )
