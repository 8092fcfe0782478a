"""Who pays and who waits is who has the key, or whose address it really is."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from sandbox.server import Sandbox

from ..service.asking import body, calls
from ..service.serving import Service
from ..stores import STORES
from .conftest import Contender

CHAT = "/v1/chat/completions"
LIMIT = 3

pytestmark = pytest.mark.xdist_group("identity")


@pytest.fixture(scope="module", params=STORES)
def service(
    request: pytest.FixtureRequest, contenders: Callable[[str], Contender]
) -> Iterator[Service]:
    """Three requests a window for each caller; strangers are served, and no proxy is trusted."""
    with contenders(request.param).serve(
        SERVICE_API_KEYS="ada:key-of-ada,rotating:the-old-key,rotating:the-new-key",
        ALLOW_ANONYMOUS="true",
        RATE_LIMIT_REQUESTS=str(LIMIT),
        RATE_LIMIT_WINDOW_SECONDS="3600",
    ) as service:
        yield service


def ask(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post(CHAT, json=body(), headers=headers)


@pytest.mark.promise("R2")
def test_a_forged_address_gains_nothing(service: Service, sandbox: Sandbox) -> None:
    """Without a trusted proxy a stranger is its peer, whatever it writes into the headers."""
    client = service.http()
    forged = [{"x-forwarded-for": f"203.0.113.{number}"} for number in range(LIMIT)]
    assert [ask(client, **headers).status_code for headers in forged] == [200] * LIMIT
    refused = [
        {},
        {"x-forwarded-for": "198.51.100.7"},
        {"x-forwarded-for": "198.51.100.8, 127.0.0.1"},
        {"x-real-ip": "198.51.100.9"},
        {"forwarded": "for=198.51.100.10"},
    ]
    assert [ask(client, **headers).status_code for headers in refused] == [429] * len(refused)
    assert calls(sandbox) == LIMIT


@pytest.mark.promise("R2")
def test_two_keys_of_one_name_are_one_caller(service: Service, sandbox: Sandbox) -> None:
    """While a key is replaced, the old and the new one share a window, and replies."""
    old, new = service.http("the-old-key"), service.http("the-new-key")
    same = {"idempotency-key": "one-payment"}
    assert ask(old, **same).status_code == 200
    replay = ask(new, **same)
    assert replay.headers["idempotent-replayed"] == "true"
    assert ask(new).status_code == 200
    assert (ask(old).status_code, ask(new).status_code) == (429, 429)
    assert calls(sandbox) == 2


@pytest.mark.promise("R2", "R1")
def test_a_wrong_key_takes_nobodys_place(service: Service, sandbox: Sandbox) -> None:
    """A request that cannot be told whose it is consumes nothing, and reaches no provider."""
    wrong = service.http("no-such-key")
    assert [ask(wrong).status_code for _ in range(10)] == [401] * 10
    assert calls(sandbox) == 0
    ada = service.http("key-of-ada")
    assert [ask(ada).status_code for _ in range(LIMIT + 1)] == [200] * LIMIT + [429]
