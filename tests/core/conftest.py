"""One tokenizer, one sandbox, the stores under test, and a guarded chat on each of them."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import settings

from app.guardrails.context.token_count import TokenCounter
from sandbox.server import Sandbox
from sandbox.stores import postgres, redis

from ..stores import SHARED_STORES, STORES
from .assembly import Assembly, Providers, assembled, open_providers
from .backends import Backend, memory_backend, postgres_backend, redis_backend, sqlite_backend

CACHED_NAME = "fb374d419588a4632f3f557e76b4b70aebbca790"
"""The SHA-1 of the address that the library would download the ranks from."""

OpenProviders = Callable[..., AbstractAsyncContextManager[Providers]]
Assemble = Callable[..., AbstractAsyncContextManager[Assembly]]

# Examples are judged by what they show: how long one takes depends on who else uses the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    return TokenCounter()


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The stand-ins of the vendors, with nothing scripted and nothing received."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def sqlite(tmp_path: Path) -> Backend:
    return sqlite_backend(tmp_path)


@pytest.fixture
def memory() -> Backend:
    return memory_backend()


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A database that all tests of this process share."""
    with postgres.run() as url:
        yield url


@pytest.fixture(name="postgres")
def postgres_service(database_url: str) -> Iterator[Backend]:
    with postgres_backend(database_url) as backend:
        yield backend


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A server that all tests share; each has a service of its own on it."""
    given = os.environ.get("TEST_REDIS_URL")
    with nullcontext(given) if given else redis.serve() as url:
        yield url


@pytest.fixture(name="redis")
def redis_service(redis_url: str) -> Iterator[Backend]:
    with redis_backend(redis_url) as backend:
        yield backend


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Of each store, by the fixture of its name."""
    backend: Backend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture(params=SHARED_STORES)
def shared_backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is asked directly, whatever this machine's own settings are."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(name="open_providers")
def _open_providers(sandbox: Sandbox, no_proxy: None) -> OpenProviders:
    """Opens `Providers` at the sandbox."""
    return partial(open_providers, sandbox.environment())


@pytest.fixture
def assemble(open_providers: OpenProviders, counter: TokenCounter) -> Assemble:
    """Puts a chat together on a backend; the limits by keyword."""

    @asynccontextmanager
    async def run(backend: Backend, **limits: Any) -> AsyncIterator[Assembly]:
        async with (
            open_providers() as providers,
            assembled(backend.connect(), providers, counter, **limits) as assembly,
        ):
            yield assembly

    return run


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiktoken.Encoding]:
    """The library's own encoding, out of a cache that holds what the service ships."""
    folder = tmp_path_factory.mktemp("tiktoken")
    ranks = resources.files("app.guardrails.context") / "encodings" / "o200k_base.tiktoken"
    with resources.as_file(ranks) as file:
        shutil.copy(file, folder / CACHED_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield tiktoken.get_encoding("o200k_base")
