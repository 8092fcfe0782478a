"""One soak: a service under load for as long as `--minutes` says, and all that was seen of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from sandbox.server import Sandbox

from ..core.backends import Books
from ..matrix.combinations import read_axes
from ..rendering import render, set_policy, take_snapshot
from ..service.serving import WITHOUT_TLS, Project, Service, eventually
from .accounts import OWN_ROUTES, Line, Spend, read_spend
from .crowd import CALLERS, Crowd, Sent
from .faults import mixture
from .figures import Figures, Gauge, Outside
from .inside.sitecustomize import FILE

SEED = "soak"
ROUNDS = 8
PROVIDERS = next([*axis.values] for axis in read_axes() if axis.name == "providers")

# So short that breakers open and close many times, and that there is time for summaries.
POLICY = {"BREAKER_COOL_DOWN_SECONDS": "2.0", "SUMMARY_MIN_DEADLINE_SECONDS": "2.0"}


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was seen. Nothing runs any more."""

    sent: Sequence[Sent]
    rests: Sequence[Figures]
    """After each round, the first before any."""
    peak: Outside
    let_go: Figures
    lines: Sequence[Line]
    """Of the crowd's requests."""
    metrics: str
    spend: Spend
    books: Books
    output: str
    status: int


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The stand-ins, which fail in every way from the start."""
    with Sandbox.in_thread() as sandbox:
        for vendor in sandbox.vendors:
            sandbox.script(vendor, mixture(f"{SEED} {vendor}"), times=None)
        yield sandbox


@pytest.fixture(scope="session")
def project(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The default service with all providers."""
    root = tmp_path_factory.mktemp("soak") / "service"
    render(take_snapshot(tmp_path_factory.mktemp("template")), root, {"providers": PROVIDERS})
    set_policy(root, POLICY)
    own = tmp_path_factory.mktemp("own")
    return Project(root, _variables(sandbox, own), own / "service.db")


@pytest.fixture(scope="session")
def soaked(project: Project, minutes: float) -> Soaked:
    """Rounds of load with a rest after each, in which what is still alive is counted."""
    with project.serve() as service:
        gauge = Gauge(service, Path(project.variables[FILE]))
        crowd = Crowd(service.url, _models(service), SEED)
        rests = [gauge.let_go()]
        with gauge.watching():
            for _ in range(ROUNDS):
                crowd.ask(minutes * 60 / ROUNDS)
                rests.append(gauge.at_rest())
                print(rests[-1], gauge.peak)
        let_go = gauge.let_go()
        lines = eventually(lambda: _lines_of(service, crowd), 30)
        metrics = httpx.get(f"{service.url}/metrics", **WITHOUT_TLS).text
        spend = read_spend(service.spend("--json").stdout)
        books = service.books
    return Soaked(
        sent=crowd.sent,
        rests=rests,
        peak=gauge.peak,
        let_go=let_go,
        lines=lines,
        metrics=metrics,
        spend=spend,
        books=books,
        output=service.output(),
        status=service.process.returncode,
    )


def _models(service: Service) -> list[str]:
    key = {"authorization": "Bearer key-of-caller1"}
    answer = httpx.get(f"{service.url}/v1/models", headers=key, **WITHOUT_TLS)
    return [model["id"] for model in answer.json()["data"]]


def _lines_of(service: Service, crowd: Crowd) -> list[Line]:
    """All of them, once there are as many as were sent; they come through a pipe."""
    lines: list[Line] = [x for x in service.lines("request") if x["route"] not in OWN_ROUTES]
    return lines if len(lines) >= len(crowd.sent) else []


def _variables(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    return {
        **sandbox.environment(),
        "PYTHONPATH": str(Path(__file__).with_name("inside")),
        FILE: str(folder / "figures.json"),
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "json",
        "SERVICE_API_KEYS": ",".join(f"caller{n}:key-of-caller{n}" for n in range(CALLERS)),
        # Enough for all but the greedy one.
        "RATE_LIMIT_REQUESTS": "25",
        "RATE_LIMIT_WINDOW_SECONDS": "10",
        "DAILY_BUDGET_USD": "100000",
        "DAILY_BUDGET_PER_CALLER_USD": "100000",
        "BUDGET_TIMEZONE": _where_it_is_noon(),
        "FIRST_BYTE_TIMEOUT_SECONDS": "1",
        "IDLE_TIMEOUT_SECONDS": "0.5",
        "DEADLINE_SECONDS": "6",
        "STREAM_MAX_SECONDS": "5",
    }


def _where_it_is_noon() -> str:
    """So that a run has one day."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
