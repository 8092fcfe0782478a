"""What settings and errors show of themselves, and what a start says of a wrong environment."""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import pytest

from app.errors import ProviderError, ServiceError
from app.guardrails.environment.settings import Settings
from app.guardrails.environment.startup import Configuration
from app.messages import ChatRequest, Message, Text
from app.providers.provider import Provider
from app.providers.transport import Timeouts, Transport
from app.storage.base import StoreSettings
from app.variables import Variables
from sandbox.server import Sandbox

from ..matrix.combinations import read_axes
from ..rendering import render, take_snapshot
from ..stores import stores_with_servers
from .driving import PLAIN, PROMPT, QUOTED, SECRET, faults

V = TypeVar("V", bound=Variables)

AXES = {axis.name: axis.values for axis in read_axes()}
URL = f"http://{SECRET}:{SECRET}@example.com/{SECRET}"

SERVICE = {
    "SERVICE_API_KEYS": f"one:{SECRET}-of-one,two:{SECRET}-of-two",
    "METRICS_TOKEN": f"{SECRET}-token",
    "ALERT_WEBHOOK_URL": URL,
    "SENTRY_DSN": f"{URL}/1",
}
STORES = {
    "REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
    "DATABASE_URL": f"postgresql://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}",
}


def _settings() -> Configuration:
    """Of every provider; the stores' have a test of their own."""
    values = {"API_KEY": f"{SECRET}-key", "MODEL": "m", "BASE_URL": "https://example.com"}
    prices = dict.fromkeys(("INPUT_USD_PER_MTOK", "OUTPUT_USD_PER_MTOK"), "1")
    providers = {
        name: _made(
            importlib.import_module(f"app.providers.{name}").Adapter.settings_type, values | prices
        )
        for name in AXES["providers"]
    }
    return Configuration(_made(Settings, SERVICE), providers, StoreSettings(), {})


def _made(kind: type[V], variables: Mapping[str, str]) -> V:
    """Settings from what stands in their variables, without the prefix."""
    fields = {name.lower(): value for name, value in variables.items()}
    return kind(**{name: value for name, value in fields.items() if name in kind.model_fields})


def _shown(thing: Any) -> Iterator[str]:
    yield from (repr(thing), str(thing), f"{thing}")
    if hasattr(thing, "__dict__"):
        yield repr(vars(thing))


@pytest.mark.promise("V7")
def test_no_settings_show_a_secret() -> None:
    """As text, as repr, as their members, as a dump, as JSON."""
    configuration = _settings()
    assert configuration.service.named_keys[0] == ("one", f"{SECRET}-of-one")
    every: list[Any] = [configuration.service, *configuration.providers.values()]
    for storage in AXES["storage"]:
        kind = importlib.import_module(f"app.storage.{storage}").Store.settings_type
        every.append(_made(kind, STORES))
    for settings in every:
        texts = [*_shown(settings), repr(settings.model_dump()), settings.model_dump_json()]
        texts += [repr(settings.model_copy()), repr(dict(settings)), repr(list(settings))]
        assert [text for text in texts if SECRET in text.lower()] == []
    assert SECRET not in repr(configuration)


# Errors


@asynccontextmanager
async def _opened(sandbox: Sandbox) -> AsyncIterator[dict[str, Provider]]:
    variables = sandbox.environment()
    async with AsyncExitStack() as stack:
        providers = {}
        for vendor in sandbox.vendors:
            adapter = importlib.import_module(f"app.providers.{vendor}").Adapter
            prefix = f"{vendor.upper()}_"
            # One's own server has a name that begins with another's; no field has such a rest.
            own = {name.removeprefix(prefix): value for name, value in variables.items()}
            settings = _made(adapter.settings_type, own)
            transport = Transport(
                variables[f"{vendor.upper()}_BASE_URL"],
                Timeouts(0.2, 0.2, 0.2),
                max_reply_bytes=10_000,
                max_connections=4,
                keep_alive_seconds=4,
            )
            providers[vendor] = Provider(adapter(settings), transport)
            stack.push_async_callback(providers[vendor].aclose)
        yield providers


async def _errors(provider: Provider, sandbox: Sandbox, key: str) -> list[ProviderError]:
    """What each fault becomes, of a whole reply and of a stream."""
    said = (Text(f"{PLAIN} {QUOTED}"),)
    request = ChatRequest((Message("user", said),), max_output_tokens=50)

    async def streamed() -> None:
        async with provider.stream(request, headers={}) as chunks:
            async for _ in chunks:
                pass

    found: list[ProviderError] = []
    for fault in faults(key):
        for attempt in (lambda: provider.complete(request, headers={}), streamed):
            sandbox.script(provider.name, [fault])
            try:
                async with asyncio.timeout(0.7):
                    await attempt()
            except ProviderError as error:
                found.append(error)
            except TimeoutError:
                pass
    return found


@pytest.mark.promise("V7")
@pytest.mark.anyio
async def test_no_provider_error_shows_a_secret_or_a_prompt() -> None:
    """Nor what it came of, whatever the vendor has said; but for what the caller is to be told."""
    with Sandbox.in_thread() as sandbox:
        keys = {v: sandbox.environment()[f"{v.upper()}_API_KEY"] for v in sandbox.vendors}
        async with _opened(sandbox) as providers:
            found = await asyncio.gather(
                *(_errors(p, sandbox, keys[name]) for name, p in providers.items())
            )
    every = [error for errors in found for error in errors]
    assert len({type(error) for error in every}) == 4
    assert any(PROMPT in (getattr(error, "detail_for_caller", "") or "") for error in every)
    for error in every:
        for part in _chain(error):
            texts = list(_shown(part))
            assert [t for t in texts for key in keys.values() if key in t] == []
            texts[3:] = [repr({n: v for n, v in vars(part).items() if n != "detail_for_caller"})]
            assert [text for text in texts if PROMPT in text.lower()] == []


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """As a traceback shows it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_an_error_to_a_caller_shows_what_it_was_given() -> None:
    """And nothing else: it is made of a detail, and finds nothing by itself."""
    error = ServiceError("The limit is 5.", param="n")
    assert next(_shown(error)) == "ServiceError('The limit is 5.')"


# The start


Check = Callable[[Mapping[str, str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module", params=stores_with_servers())
def check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """`python -m app --check` of a service with every provider, under these variables."""
    root = tmp_path_factory.mktemp("checked") / "service"
    template = take_snapshot(tmp_path_factory.mktemp("template"))
    render(template, root, {"storage": request.param, "providers": [*AXES["providers"]]})

    def check(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", "--check"],
            cwd=root,
            env={"PATH": "", **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return check


def _providers(**variables: str) -> dict[str, str]:
    return {
        f"{provider}_{name}".upper(): value
        for provider in AXES["providers"]
        for name, value in variables.items()
    }


@pytest.mark.promise("V7")
def test_a_start_names_secrets_and_says_none(check: Check) -> None:
    """Of a malformed one only the variable is named, with what to do; all at once."""
    prices = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1", "model": "m"}
    variables = {
        "SERVICE_API_KEYS": f"{SECRET}-without-a-name",
        "METRICS_TOKEN": f"<{SECRET}>",
        "ALERT_WEBHOOK_URL": f"gopher://{SECRET}:{SECRET}@h/{SECRET}",
        "SENTRY_DSN": f"https://{SECRET}@sentry.example.com/{SECRET}",
        **dict.fromkeys(STORES, f"mysql://{SECRET}:{SECRET}@h/{SECRET}"),
        **_providers(api_key=f"your-{SECRET}-here", base_url=f"{URL}?key={SECRET}", **prices),
    }
    result = check(variables)
    assert result.returncode == 2
    said = result.stdout + result.stderr
    assert SECRET not in said.lower()
    stores = [name for name in STORES if name in said]
    assert len(stores) == 1
    named = set(re.findall(r"(?m)^  ([A-Z_]+) ", said))
    expected = {n for n in variables if not n.endswith(("MTOK", "MODEL")) and n not in STORES}
    assert named == expected | set(stores)


def test_a_store_that_is_not_there_is_told_without_its_password(check: Check) -> None:
    """The reason and the variable, and nothing of the address that is secret."""
    good = _providers(api_key="good-key", base_url="https://example.com", model="m")
    prices = _providers(input_usd_per_mtok="1", output_usd_per_mtok="1")
    result = check({**STORES, **SERVICE, **good, **prices, "ENVIRONMENT": "development"})
    assert result.returncode == 2 and "store that can be used" in result.stderr
    assert SECRET not in (result.stdout + result.stderr).lower()
