"""A store that is open."""

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from app.storage.base import Store

from ..backends import Backend


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
