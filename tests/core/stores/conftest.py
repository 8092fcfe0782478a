"""The stores under test. One more store is one more fixture, and its name in the lists below."""

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from app.storage.base import Store

from ..backends import Backend

STORES = ("sqlite", "memory", "postgres")
SHARED_STORES = ("sqlite", "postgres")
"""Those that several processes may use at once."""


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture(params=SHARED_STORES)
def shared_backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = backend.connect()
    await store.open()
    yield store
    await store.close()


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Names that nothing has yet, for examples that share a store."""
    return (f"example{number}" for number in itertools.count())
