"""A service on each store, with as many workers as the store allows, and what its books say."""

import asyncio
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.storage.base import DayBook, Store
from sandbox.server import Sandbox

from ..rendering import render, set_policy, take_snapshot
from ..service.serving import Project, Service, eventually
from ..stores import SHARED_STORES, STORES

NAME = "resources"
WORKERS = 4
CALLERS = 400
CENT = 10_000_000
PRICES = {"OPENAI_INPUT_USD_PER_MTOK": "0", "OPENAI_OUTPUT_USD_PER_MTOK": "100"}
"""An answer of a hundred tokens costs a cent, whatever the question."""

# What an owner may set for patient tests: no breaker opens and no retry is denied.
POLICY = {"BREAKER_FAILURES": "1_000", "RETRY_BUDGET_RESERVE": "1_000.0"}


@dataclass(frozen=True, slots=True)
class Money:
    """Of today, in nano-dollars."""

    settled: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Contender:
    """A service on one store, with what is the store's own."""

    storage: str
    project: Project
    new_place: Callable[[], AbstractContextManager[dict[str, str]]]

    @property
    def shared(self) -> bool:
        return self.storage in SHARED_STORES

    @property
    def workers(self) -> int:
        return WORKERS if self.shared else 1

    @contextmanager
    def serve(self, **settings: str) -> Iterator[Service]:
        """On a new store of its own."""
        with (
            self.new_place() as variables,
            self.project.serve(
                **{"WORKERS": str(self.workers), **variables, **settings}
            ) as service,
        ):
            yield service

    def money(self, service: Service) -> Money:
        """What the books say, or, where no other process can read them, what `/metrics` does."""
        if self.shared:
            book = asyncio.run(self._day_book(service))
            return Money(book.settled_nano_usd, book.reserved_nano_usd)
        metrics = service.http().get("/metrics").text
        settled = round(sum(_values(metrics, "llm_cost_usd_total")) * 1e9)
        budget = float(service.environment["DAILY_BUDGET_USD"])
        committed = round(sum(_values(metrics, "llm_daily_budget_used_ratio")) * budget * 1e9)
        return Money(settled, committed - settled)

    async def _day_book(self, service: Service) -> DayBook:
        store_type = importlib.import_module(f"app.storage.{self.storage}").Store
        variable = importlib.import_module(f"sandbox.stores.{self.storage}").VARIABLE
        settings = store_type.settings_type(**{variable.lower(): service.environment[variable]})
        store: Store = store_type(settings, NAME)
        try:
            await store.open()
            return await store.day_book(datetime.now(UTC).date().isoformat())
        finally:
            await store.close()

    def settled_money(self, service: Service) -> Money:
        """The same once nothing is reserved any more."""
        money: list[Money] = []

        def look() -> bool:
            money[:] = [self.money(service)]
            return money[0].reserved == 0

        eventually(look)
        return money[0]


def _values(metrics: str, name: str) -> list[float]:
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    return [float(value) for value in found]


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox.in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The stand-ins of the vendors, with nothing scripted and nothing received."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take_snapshot(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def contenders(
    template: Path, _sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Contender]:
    """Renders a service on that store, once."""
    made: dict[str, Contender] = {}

    def make(storage: str) -> Contender:
        if storage not in made:
            root = tmp_path_factory.mktemp(storage) / "service"
            about = {"project_name": NAME, "storage": storage}
            render(template, root, {**about, "providers": ["openai"]})
            set_policy(root, POLICY)
            made[storage] = Contender(
                storage,
                Project(root, _variables(_sandbox), tmp_path_factory.mktemp("logs") / "none.db"),
                lambda: _place(storage),
            )
        return made[storage]

    return make


@pytest.fixture(params=STORES)
def contender(request: pytest.FixtureRequest, contenders: Callable[[str], Contender]) -> Contender:
    return contenders(request.param)


@pytest.fixture(scope="session")
def _keys() -> Iterator[str]:
    return (f"key-of-caller{number}" for number in itertools.count())


@pytest.fixture
def key(_keys: Iterator[str]) -> str:
    """The key of a caller that no other test has."""
    return next(_keys)


def _variables(sandbox: Sandbox) -> dict[str, str]:
    return {
        **sandbox.environment(),
        **PRICES,
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": ",".join(f"caller{n}:key-of-caller{n}" for n in range(CALLERS)),
        "RATE_LIMIT_REQUESTS": "100000",
        "MAX_OUTPUT_TOKENS": "100",
        "DAILY_BUDGET_USD": "1000",
        "DAILY_BUDGET_PER_CALLER_USD": "1000",
        "FIRST_BYTE_TIMEOUT_SECONDS": "20",
        "IDLE_TIMEOUT_SECONDS": "5",
        "DEADLINE_SECONDS": "30",
        "MAX_ATTEMPTS": "1",
    }


@contextmanager
def _place(storage: str) -> Iterator[dict[str, str]]:
    """The variable that leads to a store nobody else uses, if the store needs one."""
    with ExitStack() as stack:
        try:
            store = importlib.import_module(f"sandbox.stores.{storage}")
        except ModuleNotFoundError:
            yield {}
        else:
            yield {store.VARIABLE: stack.enter_context(store.run())}
