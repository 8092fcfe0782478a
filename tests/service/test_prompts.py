"""A service whose owner has written into `app/prompts`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.model import Reply
from sandbox.server import Sandbox

from .conftest import MakeProject
from .serving import Project, Service

pytestmark = pytest.mark.xdist_group("prompts")

CHAT = "/v1/chat/completions"
RHYMES = "Answer in rhymes."
IN_DUTCH = "Vat het gesprek samen."
TO_SUMMARISE = """Message("system", (Text("Summarise the user's text in one sentence."),)),"""
QUESTION = {"role": "user", "content": "What is a guardrail?"}
TURNS = [
    {"role": ("user", "assistant")[number % 2], "content": f"turn {number}."}
    for number in range(23)
]


@pytest.fixture(scope="module")
def service(
    make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory, _sandbox: Sandbox
) -> Iterator[Service]:
    """Its owner's endpoint no longer has a system message of its own."""
    project = make_project("prompted")
    root = tmp_path_factory.mktemp("prompted") / "service"
    shutil.copytree(project.root, root)
    routes = root / "app" / "routes.py"
    code = routes.read_text(encoding="utf-8")
    assert TO_SUMMARISE in code
    routes.write_text(code.replace(TO_SUMMARISE, ""), encoding="utf-8")
    write(root, "system", RHYMES)
    write(root, "summary", IN_DUTCH)
    with Project(root, project.variables, project.store).serve() as service:
        yield service


def write(root: Path, name: str, text: str) -> None:
    """In place of what stands below the comment."""
    path = root / "app" / "prompts" / f"{name}.md"
    comment, end, _ = path.read_text(encoding="utf-8").partition("-->\n")
    assert end
    path.write_text(f"{comment}{end}\n{text}\n", encoding="utf-8")


def received(sandbox: Sandbox) -> list[list[tuple[str, str]]]:
    """Roles and texts of each call's messages, in order."""
    return [
        [(message["role"], message["content"]) for message in request.body["messages"]]
        for request in sandbox.requests("openai")
    ]


def test_the_owners_message_comes_first(service: Service, key: str, sandbox: Sandbox) -> None:
    """Whichever way a model is asked (whole, streamed, by an endpoint of the owner's), the default
    system message stands before a conversation that has none, alone: no comment comes with it."""
    client = service.http(key)
    for path, body in (
        (CHAT, {"messages": [QUESTION]}),
        (CHAT, {"messages": [QUESTION], "stream": True}),
        ("/v1/summaries", {"text": "Hm."}),
    ):
        assert client.post(path, json=body).is_success
    firsts = [messages[0] for messages in received(sandbox)]
    assert [text for _, text in firsts] == [RHYMES] * 3
    assert {role for role, _ in firsts} <= {"system", "developer"}
    assert [len(messages) for messages in received(sandbox)] == [2, 2, 2]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_message_of_the_callers_own_stands_alone(
    service: Service, key: str, sandbox: Sandbox, role: str
) -> None:
    """Whatever the caller calls it, there is one system message, and it is the caller's."""
    own = {"role": role, "content": "Be brief."}
    assert service.http(key).post(CHAT, json={"messages": [own, QUESTION]}).is_success
    ((first, _),) = received(sandbox)
    assert first[1] == "Be brief."


def test_it_is_counted_as_if_the_caller_had_sent_it(
    service: Service, key: str, sandbox: Sandbox
) -> None:
    """The estimate is the same as with the same message in the body, and what the provider bills
    for it is paid by the caller."""
    estimates, costs = [], []
    for messages in ([QUESTION], [{"role": "system", "content": RHYMES}, QUESTION]):
        sandbox.script("openai", [Reply(text="Yes.", input_tokens=700)])
        response = service.http(key).post(CHAT, json={"messages": messages})
        line = service.line_of(response.headers["x-request-id"])
        estimates.append(line["estimated_input_tokens"])
        costs.append(line["cost_usd"])
        assert line["input_tokens"] == 700
    assert estimates[0] == estimates[1] > 0
    assert costs[0] == costs[1] > 0


def test_the_owners_instruction_asks_for_the_summary(
    service: Service, key: str, sandbox: Sandbox
) -> None:
    """The summariser gets the instruction of the file in place of the default system message; the
    answer is asked for with the latter, the summary and the last turns."""
    sandbox.script("openai", [Reply(text="They took turns.")])
    response = service.http(key).post(CHAT, json={"messages": TURNS})
    assert response.is_success
    summarising, answering = received(sandbox)
    assert len(summarising) == 2
    assert summarising[0][1].startswith(f"{IN_DUTCH}\n\n")
    assert '"text": "turn 0."' in summarising[1][1]
    assert RHYMES not in summarising[0][1] + summarising[1][1]
    assert answering[0][1] == RHYMES
    assert "They took turns." in answering[1][1]
    assert answering[-1] == ("user", "turn 22.")


def test_a_repeat_is_told_by_what_the_caller_sent(
    service: Service, key: str, sandbox: Sandbox
) -> None:
    """The key stands for the caller's body: with the same message of one's own it is another."""
    client = service.http(key, **{"Idempotency-Key": "once"})
    assert client.post(CHAT, json={"messages": [QUESTION]}).is_success
    repeat = client.post(CHAT, json={"messages": [QUESTION]})
    assert repeat.headers["idempotent-replayed"] == "true"
    own = {"role": "system", "content": RHYMES}
    other = client.post(CHAT, json={"messages": [own, QUESTION]})
    assert other.status_code == 422
    assert len(sandbox.requests("openai")) == 1
