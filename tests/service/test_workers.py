"""Several workers are one service to Prometheus: whichever of them it reaches tells of all."""

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox

from ..metrics import Scrape
from ..processes import standing_still
from ..rendering import set_policy
from .asking import body, calls
from .conftest import MakeProject
from .serving import Project, Service, eventually

pytestmark = pytest.mark.xdist_group("workers")

CHAT = "/v1/chat/completions"
WORKERS = 4
BRISK = {
    "BREAKER_FAILURES": "1",
    "BREAKER_COOL_DOWN_SECONDS": "0.5",
    "SAMPLE_SECONDS": "0.1",
}
"""A policy under which a worker's breaker opens at once and half-opens soon, and all know."""


@pytest.fixture(scope="module")
def brisk(make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project("brisk")
    root = tmp_path_factory.mktemp("brisk") / "service"
    shutil.copytree(project.root, root)
    set_policy(root, BRISK)
    return Project(root, project.variables, project.store)


@pytest.fixture(scope="module")
def _several(brisk: Project) -> Iterator[Service]:
    with brisk.serve(WORKERS=str(WORKERS), MAX_ATTEMPTS="1") as service:
        yield service


@pytest.fixture
def several(_several: Service, sandbox: Sandbox) -> Service:
    """A service of four workers, all of them up."""
    eventually(lambda: len(workers_of(_several)) == WORKERS)
    eventually(lambda: scrape(_several)("service_workers") == WORKERS)
    return _several


def workers_of(service: Service) -> list[psutil.Process]:
    """Their parent's other child, which tracks resources, is none of them."""
    children = psutil.Process(service.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def alone(service: Service, worker: psutil.Process) -> Iterator[None]:
    """Nobody else takes requests."""
    with standing_still([other for other in workers_of(service) if other != worker]):
        yield


def scrape(service: Service) -> Scrape:
    return Scrape.of(service.http(connection="close").get("/metrics").text)


def scrape_each(service: Service) -> Iterator[Scrape]:
    for worker in workers_of(service):
        with alone(service, worker):
            yield scrape(service)


def ask(service: Service, key: str, **parameters: Any) -> int:
    client = service.http(key, connection="close")
    return client.post(CHAT, json=body(**parameters)).status_code


@pytest.mark.promise("V4")
def test_every_worker_tells_of_all(several: Service, key: str) -> None:
    """Requests, tokens, cost and the day's budget are the same whichever worker is asked, and
    those of all of them."""
    before = scrape(several)
    for number, worker in enumerate(workers_of(several)):
        with alone(several, worker):
            assert [ask(several, key) for _ in range(number + 1)] == [200] * (number + 1)
    asked = sum(range(1, WORKERS + 1))
    spent = several.account(key)[0] / 1e9

    def all_are_counted() -> bool:
        return scrape(several)("http_requests_total", route=CHAT) == asked + before(
            "http_requests_total", route=CHAT
        )

    eventually(all_are_counted)
    eventually(lambda: {seen("http_requests_in_flight") for seen in scrape_each(several)} == {1.0})
    for seen in scrape_each(several):
        grown = {
            name: seen(name, **labels) - before(name, **labels)
            for name, labels in (
                ("http_requests_total", {"route": CHAT, "status": "200"}),
                ("http_request_duration_seconds_count", {"route": CHAT}),
                ("http_request_duration_seconds_bucket", {"route": CHAT, "le": "+Inf"}),
                ("llm_provider_attempts_total", {"provider": "openai", "outcome": "ok"}),
            )
        }
        assert set(grown.values()) == {asked}, grown
        assert seen("llm_cost_usd_total") - before("llm_cost_usd_total") == pytest.approx(spent)
        (_, (settled, reserved)) = next(
            item for item in several.books.counter.items() if not item[0][1]
        )
        used = (settled + reserved) / 50e9
        assert seen("llm_daily_budget_used_ratio") == pytest.approx(used)
        assert seen("service_workers", environment="development") == WORKERS
        assert seen("store_up") == 1


def test_one_workers_breaker_shows_at_all(several: Service, key: str, sandbox: Sandbox) -> None:
    """A breaker that is open in one worker is open to whoever asks, and half-open when its time is
    over although nobody has asked that worker again."""
    sandbox.script("openai", [Fault(status=500)])
    first, *_, last = workers_of(several)
    with alone(several, first):
        assert ask(several, key, model="openai/gpt-6-luna", max_tokens=5) == 503
    eventually(lambda: breaker_seen_by(several, last) > 0)
    eventually(lambda: breaker_seen_by(several, last) == 0.5)
    with alone(several, first):
        eventually(lambda: ask(several, key, max_tokens=5) == 200)
    eventually(lambda: breaker_seen_by(several, last) == 0)


def breaker_seen_by(service: Service, worker: psutil.Process) -> float:
    with alone(service, worker):
        return scrape(service)("llm_circuit_breaker_open", provider="openai")


@pytest.mark.promise("V4")
def test_a_killed_workers_requests_are_not_in_flight(
    several: Service, key: str, sandbox: Sandbox
) -> None:
    """What it had under way is no more, what it had counted stays, another takes its place."""
    sandbox.script("openai", [Fault(action="stall")])
    worker = workers_of(several)[0]
    counted = scrape(several)("http_requests_total", route=CHAT)
    with ThreadPoolExecutor(1) as pool:
        with alone(several, worker):
            lost = pool.submit(ask, several, key)
            eventually(lambda: calls(sandbox))
        assert scrape(several)("http_requests_in_flight") == 2
        worker.kill()
        assert lost.exception() is not None
    eventually(lambda: scrape(several)("http_requests_in_flight") == 1)
    eventually(lambda: scrape(several)("service_workers") == WORKERS)
    assert worker.pid not in {other.pid for other in workers_of(several)}
    assert scrape(several)("http_requests_total", route=CHAT) == counted


@pytest.mark.parametrize("signals", [1, 2])
def test_nothing_is_left_of_the_metrics(project: Project, tmp_path: Path, signals: int) -> None:
    """The workers' folder goes with the service, be it told to end once or twice."""
    patient = (
        {"GRACE_PERIOD_SECONDS": "600", "SHUTDOWN_DELAY_SECONDS": "600"} if signals > 1 else {}
    )
    with project.serve(WORKERS="2", TMPDIR=str(tmp_path), **patient) as service:
        eventually(lambda: len(service.lines("started")) == 2)
        assert len(list(tmp_path.iterdir())) == 1
        service.signal(signal.SIGTERM)
        if signals > 1:
            eventually(lambda: service.lines("stopping"))
            service.signal(signal.SIGTERM)
        service.process.wait(10)
    assert not list(tmp_path.iterdir())


def test_one_worker_needs_no_folder(project: Project, tmp_path: Path) -> None:
    """It keeps its metrics to itself, and a folder that is already named is not for it."""
    with project.serve(TMPDIR=str(tmp_path)) as service:
        assert scrape(service)("service_workers") == 1
        assert not list(tmp_path.iterdir())
