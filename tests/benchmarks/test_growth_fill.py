"""What is written into a store at once is what its callers would have left."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.storage.base import Admitted, Store
from benchmarks.growth import fill
from benchmarks.growth.fill import History
from sandbox.stores import postgres, redis

from ..core.backends import (
    Backend,
    PostgresSchema,
    RedisService,
    SQLiteFile,
    postgres_backend,
    redis_backend,
    sqlite_backend,
)
from ..core.stores.asking import days_around, request, reservation

NOON = datetime(2100, 1, 10, 12, tzinfo=UTC).timestamp()
HISTORY = History(callers=7, days=3, now=NOON)
Pair = tuple[Backend, Backend]


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    match request.param:
        case "sqlite":
            for name in ("one", "other"):
                (tmp_path / name).mkdir()
            yield sqlite_backend(tmp_path / "one"), sqlite_backend(tmp_path / "other")
        case "redis":
            with redis.run() as url, redis_backend(url) as first, redis_backend(url) as second:
                yield first, second
        case _:
            with (
                postgres.run() as url,
                postgres_backend(url) as first,
                postgres_backend(url) as second,
            ):
                yield first, second


def fill_at_once(backend: Backend, history: History) -> None:
    match backend.connect:
        case SQLiteFile(path):
            fill.fill_sqlite(path, history)
        case RedisService(url, service):
            fill.fill_redis(url, service, history)
        case PostgresSchema(url, service):
            fill.fill_postgres(url, service, history)


async def standing(store: Store) -> Admitted:
    """Of a caller who is known, with its next call."""
    asked = request(HISTORY.caller(3), rate=fill.RATE_LIMIT, reserve=reservation(9, moment=NOON))
    decision = await store.admit(asked, now=NOON + 1)
    assert isinstance(decision, Admitted)
    return decision


def test_a_filled_store_is_one_that_was_called(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its days' books, its sums, and where a caller stands with its next call are the same."""
    monkeypatch.setattr(fill, "BATCH", 3)  # callers come in several

    async def scene() -> None:
        filled, called = (backend.connect() for backend in pair)
        await filled.open()
        await called.open()
        fill_at_once(pair[0], HISTORY)
        await fill.fill_by_calls(called, HISTORY)
        assert HISTORY.names == ["2100-01-08", "2100-01-09", "2100-01-10"]
        for day in HISTORY.names:
            book = await filled.day_book(day)
            assert book == await called.day_book(day)
            assert len(book.spent) == HISTORY.callers
        books = [backend.books() for backend in pair]
        assert books[0].counter == books[1].counter
        assert books[0].spent == books[1].spent
        if not isinstance(pair[0].connect, RedisService):  # which forgets an operation in an hour
            assert books[0].ledger == books[1].ledger
            assert books[0].balanced
        assert await standing(filled) == await standing(called)
        await filled.close()
        await called.close()

    asyncio.run(scene())


def test_days_are_those_of_the_calendar() -> None:
    """As admission names them."""
    _, today, _ = days_around(NOON)
    assert fill.budget_day(HISTORY.names[-1]) == today
