"""The service needs no network but its providers'."""

import openai
import pytest

from app.guardrails.context.token_count import (
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REPLY,
    TokenCounter,
)
from sandbox.server import Sandbox

from .asking import ask, calls
from .serving import Service


def test_it_boots_and_counts_without_a_network(
    service: Service, client: openai.OpenAI, sandbox: Sandbox
) -> None:
    """With every socket beyond this machine denied, it serves, counts exactly, and tries none."""
    ask(client)
    text = "Ünïcode, code() and 10,000 words. " * 1_000
    with pytest.raises(openai.APIStatusError) as failure:
        ask(client, text)
    exact = TokenCounter().text(text) + TOKENS_PER_MESSAGE + TOKENS_PER_REPLY
    assert f"has {exact} tokens" in failure.value.message
    assert calls(sandbox) == 1
    assert "network denied" not in service.output()
