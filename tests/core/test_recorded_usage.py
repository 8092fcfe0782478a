"""The estimate, held to what vendors have really counted.

Each figure is published, with the request that it belongs to. Exact is exact; a declared bound is
never crossed, and stands no further above the figure than is written beside it.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from app.guardrails.context.gate import ContextGate
from app.guardrails.context.token_count import TokenCounter
from app.messages import ChatRequest, Image, Message, Role, Text, Tool
from app.providers.anthropic import Anthropic, AnthropicSettings
from app.providers.base import ProviderAdapter
from app.providers.gemini import Gemini, GeminiSettings
from app.providers.openai import OpenAI, OpenAISettings
from app.providers.openai_compatible import OpenAICompatible, OpenAICompatibleSettings

from .conversations import text

pytestmark = pytest.mark.anyio

EXACT = 1.0
KEY = SecretStr("key")
PICTURE = Image("https://example.com/picture.jpg")

COOKBOOK = "https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken"
OPENAI = "https://developers.openai.com/api/reference/resources/chat"
ANTHROPIC = "https://platform.claude.com/docs/en/build-with-claude/token-counting"
GEMINI = "https://ai.google.dev/gemini-api/docs/tokens"
OLLAMA = "https://github.com/ollama/ollama/blob/main/docs/api.md"
OLLAMA_ISSUE = "https://github.com/ollama/ollama/issues/11676"


@dataclass(frozen=True, slots=True)
class Recorded:
    """`billed` tokens are what the vendor counted; the estimate is at most `within` times that."""

    source: str
    adapter: ProviderAdapter
    request: ChatRequest
    billed: int
    within: float


def openai(model: str) -> OpenAI:
    return OpenAI(OpenAISettings(api_key=KEY, model=model))


def anthropic(model: str) -> Anthropic:
    return Anthropic(AnthropicSettings(api_key=KEY, model=model))


def gemini(model: str) -> Gemini:
    return Gemini(GeminiSettings(api_key=KEY, model=model))


def ollama(model: str) -> OpenAICompatible:
    """With the factor that its setting's description names for these models."""
    return OpenAICompatible(
        OpenAICompatibleSettings(
            model=model,
            base_url="http://localhost:11434/v1",
            input_usd_per_mtok=0,
            output_usd_per_mtok=0,
            token_factor=1.2,
        )
    )


def ask(*turns: tuple[Role, str], **parameters: Any) -> ChatRequest:
    return ChatRequest(tuple(text(role, content) for role, content in turns), **parameters)


def show(question: str) -> ChatRequest:
    return ChatRequest((Message("user", (Text(question), PICTURE)),))


def schema(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [next(iter(properties))]}


CITY = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
UNIT = {
    "type": "string",
    "description": "The unit of temperature to return",
    "enum": ["celsius", "fahrenheit"],
}
NUMBER = {"type": "number"}
ABOUT_WEATHER = "Get the current weather in a given location"
WEATHER = "What's the weather like in San Francisco?"
FOX = "The quick brown fox jumps over the lazy dog."
SKY = "why is the sky blue?"

JARGON = ChatRequest(
    (
        text(
            "system",
            "You are a helpful, pattern-following assistant that translates corporate jargon into"
            " plain English.",
        ),
        *(
            Message("system", (Text(content),), name=name)
            for name, content in (
                ("example_user", "New synergies will help drive top-line growth."),
                ("example_assistant", "Things working well together will increase revenue."),
                (
                    "example_user",
                    "Let's circle back when we have more bandwidth to touch base on opportunities"
                    " for increased leverage.",
                ),
                (
                    "example_assistant",
                    "Let's talk later when we're less busy about how to do better.",
                ),
            )
        ),
        text(
            "user",
            "This late pivot means we don't have time to boil the ocean for the client"
            " deliverable.",
        ),
    )
)

RECORDED = {
    "openai-names": Recorded(COOKBOOK, openai("gpt-4o"), JARGON, 124, EXACT),
    "openai-text": Recorded(
        OPENAI,
        openai("gpt-5.4"),
        ask(("system", "You are a helpful assistant."), ("user", "Hello!")),
        19,
        EXACT,
    ),
    "openai-tool": Recorded(
        COOKBOOK,
        openai("gpt-4o"),
        ask(
            (
                "system",
                "You are a helpful assistant that can answer to questions about the weather.",
            ),
            ("user", WEATHER),
            tools=(Tool("get_current_weather", ABOUT_WEATHER, schema(location=CITY, unit=UNIT)),),
        ),
        101,
        1.5,
    ),
    "openai-image": Recorded(OPENAI, openai("gpt-4.1"), show("What is in this image?"), 1117, 3.5),
    "anthropic-text": Recorded(
        ANTHROPIC,
        anthropic("claude-opus-5-5"),
        ask(("system", "You are a scientist"), ("user", "Hello, Claude")),
        14,
        2.0,
    ),
    "anthropic-tool": Recorded(
        ANTHROPIC,
        anthropic("claude-opus-5-5"),
        ask(("user", WEATHER), tools=(Tool("get_weather", ABOUT_WEATHER, schema(location=CITY)),)),
        403,
        2.5,
    ),
    "anthropic-image": Recorded(
        ANTHROPIC, anthropic("claude-sonnet-4-5"), show("Describe this image"), 1551, 1.2
    ),
    "anthropic-new-image": Recorded(
        ANTHROPIC, anthropic("claude-opus-5-5"), show("Describe this image"), 1028, 5.0
    ),
    "gemini-text": Recorded(GEMINI, gemini("gemini-2.0-flash"), ask(("user", FOX)), 11, 2.5),
    "gemini-system": Recorded(
        GEMINI,
        gemini("gemini-2.0-flash"),
        ask(("system", "You are a cat. Your name is Neko."), ("user", FOX)),
        21,
        2.6,
    ),
    "gemini-turns": Recorded(
        GEMINI,
        gemini("gemini-2.0-flash"),
        ask(
            ("user", "Hi my name is Bob"),
            ("assistant", "Hi Bob!"),
            ("user", "In one sentence, explain how a computer works to a young child."),
        ),
        25,
        2.5,
    ),
    "gemini-tools": Recorded(
        GEMINI,
        gemini("gemini-2.0-flash"),
        ask(
            (
                "user",
                "I have 57 cats, each owns 44 mittens, how many mittens is that in total?",
            ),
            tools=tuple(
                Tool(name, f"returns a {sign} b.", schema(a=NUMBER, b=NUMBER))
                for name, sign in zip(
                    ("add", "subtract", "multiply", "divide"), "+-*/", strict=True
                )
            ),
        ),
        206,
        2.5,
    ),
    "gemini-image": Recorded(
        GEMINI, gemini("gemini-2.0-flash"), show("Tell me about this image"), 264, 9.0
    ),
    "llama-text": Recorded(OLLAMA, ollama("llama3.2"), ask(("user", "Hello!")), 26, 8.0),
    "llama-turns": Recorded(
        OLLAMA,
        ollama("llama3.2"),
        ask(
            ("user", SKY),
            ("assistant", "due to rayleigh scattering."),
            ("user", "how is that different than mie scattering?"),
        ),
        61,
        4.0,
    ),
    "llama-tool": Recorded(
        OLLAMA,
        ollama("llama3.2"),
        ask(
            ("user", "What is the weather today in Paris?"),
            tools=(
                Tool(
                    "get_current_weather",
                    "Get the current weather for a location",
                    schema(
                        location={
                            "type": "string",
                            "description": "The location to get the weather for, e.g. San"
                            " Francisco, CA",
                        },
                        format={
                            "type": "string",
                            "description": "The format to return the weather in, e.g. 'celsius' or"
                            " 'fahrenheit'",
                            "enum": ["celsius", "fahrenheit"],
                        },
                    ),
                ),
            ),
        ),
        122,
        4.5,
    ),
    "gpt-oss-text": Recorded(OLLAMA_ISSUE, ollama("gpt-oss:120b"), ask(("user", SKY)), 73, 3.0),
}


@pytest.mark.promise("C2")
@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
async def test_the_estimate_holds_to_what_was_billed(
    counter: TokenCounter, recorded: Recorded
) -> None:
    """What is set aside for an input is what the vendor counts of it, or its declared bound."""
    gate = ContextGate(
        counter,
        max_input_tokens=10_000,
        max_output_tokens=100,
        max_history_messages=10,
        summary_instruction="Summarise the conversation.",
    )
    fit = await gate.fit(recorded.request, [recorded.adapter])
    estimate = fit.by_provider[recorded.adapter.name].input_tokens
    print(f"billed {recorded.billed}, estimated {estimate}: {estimate / recorded.billed:.2f}")
    assert recorded.billed <= estimate <= recorded.within * recorded.billed, recorded.source
