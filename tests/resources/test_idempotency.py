"""When an equal body stands for a key, in the three ways that an owner may choose."""

import httpx
import pytest

from sandbox.server import Sandbox

from ..service.asking import body, calls
from .conftest import Contender

CHAT = "/v1/chat/completions"

# What each of four equal requests is: the second is no retry, the third says it is one, the last
# bears a key of its own.
EXPECTED = {
    "retries": ["anew", "anew", "replayed", "anew"],
    "always": ["anew", "replayed", "replayed", "anew"],
    "off": ["anew", "anew", "anew", "anew"],
}


@pytest.mark.promise("R6")
@pytest.mark.parametrize("from_body", EXPECTED)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_a_body_stands_for_a_key_as_the_owner_says(
    contender: Contender, sandbox: Sandbox, key: str, from_body: str, stream: bool
) -> None:
    """`IDEMPOTENCY_FROM_BODY`: for declared retries, always, or never; as JSON and as a stream."""
    with contender.serve(
        WORKERS="1", IDEMPOTENCY_FROM_BODY=from_body, ALLOW_ANONYMOUS="true"
    ) as service:
        client = service.http(key)
        retry, keyed = {"x-stainless-retry-count": "1"}, {"idempotency-key": "own"}

        def ask(client: httpx.Client, headers: dict[str, str]) -> str:
            response = client.post(CHAT, json=body(stream=stream), headers=headers)
            assert response.status_code == 200
            replayed = response.headers.get("idempotent-replayed") == "true"
            return "replayed" if replayed else "anew"

        assert [ask(client, headers) for headers in ({}, {}, retry, keyed)] == EXPECTED[from_body]
        assert ask(client, keyed) == "replayed"
        assert calls(sandbox) == EXPECTED[from_body].count("anew")
        # Callers without a key are too alike for a body to tell them apart.
        strangers = service.http()
        assert [ask(strangers, retry) for _ in range(2)] == ["anew", "anew"]
