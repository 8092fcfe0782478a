"""Starts what is measured, all of it at once, and measures one of it at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.rendering import ROOT, Environment, render, service, serving, stand_ins, take_snapshot

from . import load, peers, usage
from .figures import Sample
from .load import Callers, Load, LoadFailed
from .rows import Row

COMPLAINTS = 10
"""Lines of a service's log that are shown when it has refused a request."""
SETTINGS = {
    "ENVIRONMENT": "development",  # takes a provider without TLS
    "LOG_FORMAT": "json",
    "SERVICE_API_KEYS": load.callers(),
    # Every guardrail counts and none refuses.
    "RATE_LIMIT_REQUESTS": "100000",
    "DAILY_BUDGET_USD": "1000000",
    "DAILY_BUDGET_PER_CALLER_USD": "1000000",
}


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is up."""

    url: str
    pid: int
    store_pid: int | None = None
    log: Path | None = None
    callers: Callers = field(default_factory=Callers)
    times_as_long: int = 1
    """As others it is put under load."""
    warm_up_seconds: int = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a run takes place, until its block ends."""

    folder: Path
    stack: ExitStack
    environment: Environment = field(default_factory=lambda: Environment(Path(sys.prefix)))

    def start_upstream(self, interval_seconds: float = 0.0) -> Running:
        """Whose streams wait so long before each chunk."""
        with usage.bound_to(usage.cores_for_load()):
            pace = {"INTERVAL_SECONDS": str(interval_seconds)}
            return self._serve("upstream", pace, ready="/")

    def start(self, row: Row, upstream: str) -> Running:
        if row.peer:
            return self._start_peer(row, upstream)
        if row.framework:
            return self.serve(self.render(row), row, upstream)
        variables = {**_asking(upstream, row), "TRANSPORT": row.transport}
        with usage.bound_to(usage.cores_to_serve(row.processes)):
            return self._serve("unguarded", variables, ready="/openapi.json")

    def _start_peer(self, row: Row, upstream: str) -> Running:
        peer, installed = peers.PEERS[row.peer], peers.place(row.peer)
        # No settings of this project lie where it runs.
        place = self.folder / row.peer
        place.mkdir()
        variables = {**peer.variables(installed), **_asking(upstream, row)}
        with usage.bound_to(usage.cores_to_serve(row.processes)):
            started = serving(
                peer.command(installed), place, variables, place / "log", ready=peer.ready
            )
            running = self.stack.enter_context(started)
        return Running(
            running.url,
            running.pid,
            log=place / "log",
            callers=peer.callers(upstream),
            times_as_long=peer.times_as_long,
            warm_up_seconds=peer.warm_up_seconds,
        )

    def render(self, row: Row) -> Path:
        """The guarded service as a user gets it."""
        project = self.folder / row.name.replace(", ", "-").replace(" ", "-") / "service"
        template = self.folder / "template"
        if not template.exists():
            take_snapshot(template)
        answers = {"project_name": "benchmark", "framework": row.framework, "storage": row.storage}
        render(template, project, {**answers, "providers": ["openai", "anthropic"]})
        return project

    def serve(
        self, project: Path, row: Row, upstream: str, variables: Mapping[str, str] | None = None
    ) -> Running:
        """A rendered service; `variables` take the place of `SETTINGS`."""
        place = project.parent
        with usage.bound_to(usage.cores_for_load()):
            store = self.stack.enter_context(stand_ins(self.environment, project))
        variables = {
            **SETTINGS,
            **store.variables,
            **_asking(upstream, row),
            "SQLITE_PATH": str(place / "service.db"),
            **(variables or {}),
        }
        log = place / f"{len(list(place.glob('*.log')))}.log"
        with usage.bound_to(usage.cores_to_serve(row.processes)):
            started = service(self.environment, project, variables, log)
            running = self.stack.enter_context(started)
        return Running(running.url, running.pid, store.pid, log)

    def _serve(self, module: str, variables: Mapping[str, str], *, ready: str) -> Running:
        number = len(list(self.folder.glob(f"{module}*.log")))
        command = [self.environment.python, "-m", f"benchmarks.guardrails.{module}"]
        started = serving(
            command,
            ROOT,
            {**self.environment.variables(), **variables},
            self.folder / f"{module}-{number}.log",
            ready=ready,
        )
        running = self.stack.enter_context(started)
        return Running(running.url, running.pid)


def _asking(upstream: str, row: Row) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": upstream,
        "OPENAI_API_KEY": "sk-benchmark-3f6c2d9e7b1a",
        "WORKERS": str(row.processes),
    }


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(folder, stack)


def warm_up(running: Running, row: Row, loads: Sequence[Load]) -> None:
    """What is only slow the first time. Raises `LoadFailed` if it serves anything but what the
    provider's stand-in says."""
    with usage.bound_to(usage.cores_for_load()):
        try:
            load.check(running.url, running.callers)
            for each in loads:
                load.run(running.url, each, running.warm_up_seconds, running.callers)
        except LoadFailed as error:
            raise LoadFailed(f"{row.name}: {error}{_complaints(running)}") from error


def measure(running: Running, row: Row, under: Load, seconds: float) -> Sample:
    """Raises `LoadFailed` if not every request was served."""
    with usage.bound_to(usage.cores_for_load()):
        before = _cpu(running)
        try:
            measured = load.run(
                running.url,
                under,
                seconds * running.times_as_long,
                running.callers,
                keyed=row.keyed,
            )
        except LoadFailed as error:
            raise LoadFailed(f"{row.name}, {under.name}: {error}{_complaints(running)}") from error
        after = _cpu(running)
        return Sample(
            requests=measured.requests,
            seconds=measured.seconds,
            p50_ms=measured.p50_ms,
            p99_ms=measured.p99_ms,
            cpu_seconds=after[0] - before[0],
            store_cpu_seconds=after[1] - before[1],
            memory_mb=usage.largest_mb(running.pid),
            first_token_ms=(
                load.first_token_ms(running.url, running.callers) if under.chunks else 0.0
            ),
        )


def _complaints(running: Running) -> str:
    """The last lines of a service's log that are no routine, if it has any."""
    if running.log is None:
        return ""
    lines = running.log.read_text(encoding="utf-8", errors="replace").splitlines()
    unusual = [line for line in lines if '"level":"info"' not in line]
    return "".join(f"\n{line}" for line in unusual[-COMPLAINTS:])


def _cpu(running: Running) -> tuple[float, float]:
    """Of the service and of its store's server."""
    store = usage.cpu_seconds(running.store_pid) if running.store_pid else 0.0
    return usage.cpu_seconds(running.pid), store
