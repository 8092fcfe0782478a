"""A conversation with a tool, by OpenAI's SDK, over each kind of provider: the model calls, the
caller answers, the model ends; whole and streamed."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessage

from sandbox.server import Sandbox

from ..matrix.combinations import read_axes
from ..rendering import render, take_snapshot
from .asking import WEATHER
from .serving import Project, Service

pytestmark = pytest.mark.xdist_group("tool conversation")

QUESTION = {"role": "user", "content": "How is the weather?"}
PROVIDERS = next(axis.values for axis in read_axes() if axis.multiple)


@pytest.fixture(scope="module")
def all_of_them(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]
) -> Iterator[Service]:
    """A service that may ask every provider there is."""
    root = tmp_path_factory.mktemp("all") / "service"
    template = take_snapshot(tmp_path_factory.mktemp("template"))
    render(template, root, {"providers": list(PROVIDERS)})
    with Project(root, variables, root.parent / "service.db").serve() as service:
        yield service


@pytest.fixture
def caller(all_of_them: Service, key: str, sandbox: Sandbox) -> openai.OpenAI:
    return all_of_them.sdk(key)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_tool_is_called_and_its_result_used(
    caller: openai.OpenAI, sandbox: Sandbox, provider: str, streamed: bool
) -> None:
    """The call comes through with its arguments, and its result goes back to the same model, which
    answers by it."""
    model = next(m.id for m in caller.models.list() if m.id.startswith(f"{provider}/"))
    asked, reason = turn(caller, model, [QUESTION], streamed=streamed)
    assert reason == "tool_calls"
    assert asked.tool_calls is not None
    (call,) = asked.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    result = {"role": "tool", "tool_call_id": call.id, "content": "It rains."}
    # People send the SDK's message back as it is, or as a dictionary, with or without its blanks.
    for said in (asked, asked.model_dump(), asked.model_dump(exclude_none=True)):
        conversation = [QUESTION, said, result]
        answered, reason = turn(caller, model, conversation, streamed=streamed)
        assert answered.content == "The tool answered: It rains."
        assert reason == "stop"
        assert not answered.tool_calls
    assert len(sandbox.requests(provider)) == 4


def test_what_the_sdk_has_parsed_may_go_back(caller: openai.OpenAI) -> None:
    """A strict tool's arguments, which the SDK parses into a member of its own, do no harm."""
    function = {**WEATHER["function"], "strict": True}
    tools: Any = [{"type": "function", "function": function}]
    with caller.chat.completions.stream(
        model="auto",
        messages=[QUESTION],  # type: ignore[list-item]
        tools=tools,
    ) as stream:
        asked = stream.get_final_completion().choices[0].message
    assert asked.tool_calls is not None
    (call,) = asked.tool_calls
    assert call.function.parsed_arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "It rains."}
    answered, _ = turn(caller, "auto", [QUESTION, asked.model_dump(), result], streamed=False)
    assert answered.content == "The tool answered: It rains."


def turn(
    caller: openai.OpenAI, model: str, messages: list[Any], *, streamed: bool
) -> tuple[ChatCompletionMessage, str]:
    """What the model says next, and why it ended."""
    asking: Any = {"model": model, "messages": messages, "tools": [WEATHER]}
    if streamed:
        with caller.chat.completions.stream(**asking) as stream:
            completion: Any = stream.get_final_completion()
    else:
        completion = caller.chat.completions.create(**asking)
    (choice,) = completion.choices
    return choice.message, choice.finish_reason
