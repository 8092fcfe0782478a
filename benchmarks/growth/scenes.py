"""What is grown, and how each point of a curve is measured."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.rendering import ROOT, set_policy

from ..guardrails import usage
from ..guardrails.load import LoadFailed
from ..guardrails.rows import NAMES, Row
from ..guardrails.stage import Running, Stage, stage
from . import load
from .conversations import body, known, unknown
from .curves import Curve

ROW = Row("fastapi", "memory")
"""The service that is asked: where nothing of the store is grown, the store is the cheapest one."""
LONG = 20_000
"""Chunks of a stream that nobody reads to its end."""

Visit = Callable[[int], Mapping[str, float]]
"""Measures one size: figures by the names of curves. Raises `LoadFailed`."""


class Scene(Protocol):
    """One input that grows. `sizes` are those that are visited."""

    @property
    def name(self) -> str: ...

    @property
    def curves(self) -> tuple[Curve, ...]: ...

    @property
    def sizes(self) -> tuple[int, ...]: ...

    def open(self, folder: Path) -> AbstractContextManager[Visit]:
        """Everything that the visits need, up until the block ends."""


# History


class Histories:
    """CPU per request by turns of its conversation: all of them fit, or most are trimmed."""

    name = "history"
    sizes = (1, 10, 50, 100, 200)
    requests: Mapping[int, int] = {1: 300, 10: 200, 50: 100, 100: 50, 200: 30}
    _panel = ("CPU a request by turns of history", "turns", "ms")
    all_known = Curve(*_panel, sizes, "all fit, one question is new")
    all_unknown = Curve(*_panel, sizes, "all fit, all are new")
    trimmed_known = Curve(*_panel, sizes, "trimmed, one question is new")
    trimmed_unknown = Curve(*_panel, sizes, "trimmed, all are new")
    curves = (all_known, all_unknown, trimmed_known, trimmed_unknown)

    @contextmanager
    def open(self, folder: Path) -> Iterator[Visit]:
        with stage(folder) as here:
            upstream = here.start_upstream()
            project = here.render(ROW)
            # As they are by default: 4,000 tokens and 10 messages. Else more than the longest has.
            trimming = here.serve(project, ROW, upstream.url)
            roomy = {"MAX_INPUT_TOKENS": "100000", "MAX_HISTORY_MESSAGES": "1000"}
            holding = here.serve(project, ROW, upstream.url, roomy)
            seeds = itertools.count(1, 1_000)

            def visit(turns: int) -> dict[str, float]:
                number = self.requests[turns]
                figures: dict[str, float] = {}
                for service, of_known, of_unknown in (
                    (holding, self.all_known, self.all_unknown),
                    (trimming, self.trimmed_known, self.trimmed_unknown),
                ):
                    # What is said before has been said once: a summary of it is stored.
                    _cpu_of(service, map(_chat, known(turns, 1)))
                    again = _cpu_of(service, map(_chat, known(turns, number)))
                    new = _cpu_of(service, map(_chat, unknown(turns, number, next(seeds))))
                    figures[of_known.name] = 1e3 * again / number
                    figures[of_unknown.name] = 1e3 * new / number
                return figures

            yield visit


def _chat(messages: list[dict[str, str]]) -> bytes:
    return load.request(body(messages), idempotency_key=secrets.token_hex(8))


# Callers


class Keys:
    """CPU per request by the keys in `SERVICE_API_KEYS`, of which one variable holds no more: on
    Linux it has 128 KiB at most."""

    name = "keys"
    sizes = (1, 10, 100, 500, 2_000)
    requests = 600
    curve = Curve("CPU a request by API keys", "keys", "ms", sizes)
    curves = (curve,)

    @contextmanager
    def open(self, folder: Path) -> Iterator[Visit]:
        with stage(folder) as here:
            upstream = here.start_upstream()
            project = here.render(ROW)
            services = {
                size: here.serve(project, ROW, upstream.url, self._variables(size))
                for size in self.sizes
            }

            def visit(size: int) -> dict[str, float]:
                step = max(1, size // self.requests)
                numbers = itertools.islice(itertools.cycle(range(0, size, step)), self.requests)
                requests = (
                    load.request(
                        body([{"role": "user", "content": "What is a bulkhead?"}]),
                        key=_key(number),
                        idempotency_key=secrets.token_hex(8),
                    )
                    for number in numbers
                )
                cpu = _cpu_of(services[size], requests)
                return {self.curve.name: 1e3 * cpu / self.requests}

            yield visit

    def _variables(self, size: int) -> dict[str, str]:
        return {"SERVICE_API_KEYS": ",".join(f"caller-{n}:{_key(n)}" for n in range(size))}


def _key(number: int) -> str:
    """As long as the keys that a service's README has its owner make."""
    return f"benchmark-key-{number:0>29}"


@dataclass(frozen=True, slots=True)
class Steps:
    """CPU of a store's steps, the server's included. `kind`: what grows, `callers` or `ledger`."""

    storage: str
    kind: str
    sizes: tuple[int, ...]
    step: Curve
    book: Curve | None = None
    steps: int = 1_000
    """Calls that are admitted and settled for one figure."""
    books: int = 10

    @property
    def name(self) -> str:
        return f"{self.kind}, {NAMES[self.storage]}"

    @property
    def curves(self) -> tuple[Curve, ...]:
        return (self.step,) if self.book is None else (self.step, self.book)

    @contextmanager
    def open(self, folder: Path) -> Iterator[Visit]:
        with stage(folder) as here, ExitStack() as stack:
            project = here.render(Row("fastapi", self.storage))
            # A year of days, as an owner may keep them.
            set_policy(project, {"LEDGER_DAYS": "400"})
            worker = stack.enter_context(self._worker(here, project, folder / "worker.log"))
            _heard(worker, folder / "worker.log")

            def visit(size: int) -> dict[str, float]:
                assert worker.stdin is not None
                worker.stdin.write(f"{size} {self.steps} {self.books if self.book else 0}\n")
                worker.stdin.flush()
                told = _heard(worker, folder / "worker.log")
                figures = {self.step.name: 1e6 * told["step_seconds"]}
                if self.book is not None:
                    figures[self.book.name] = 1e3 * told["book_seconds"]
                return figures

            yield visit

    @contextmanager
    def _worker(self, here: Stage, project: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
        command = [here.environment.python, "-m", "benchmarks.growth.steps"]
        command += [self.storage, self.kind, *map(str, self.sizes)]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                # `app` and `sandbox` are the rendered service's.
                env={**here.environment.variables(), "PYTHONPATH": str(project)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.close()
                process.wait()
                process.stdout.close()


def _heard(worker: subprocess.Popen[str], log: Path) -> dict[str, float]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise LoadFailed(f"The store's steps ended: {log.read_text(encoding='utf-8')}")
    told: dict[str, Any] = json.loads(line)
    if "failed" in told:
        raise LoadFailed(str(told["failed"]))
    return told


# Streams


class Streams:
    """CPU per chunk and memory per stream by streams that are open at once.

    However many there are, a thousand chunks come in a second. Each visit has a service of its own,
    so that what an earlier one has left behind is not taken for memory of this one.
    """

    name = "streams"
    sizes = (1, 10, 100, 500, 1_000, 2_000)
    chunks_a_second = 1_000
    settling = 1.0
    seconds = 5.0
    first = 250
    """These fit into memory that a new process has to spare."""
    cpu = Curve("CPU a chunk by open streams", "streams", "us", sizes, per_input=True)
    memory = Curve(
        "Memory a stream by open streams, beyond the first 250",
        "streams",
        "kB",
        sizes[3:],
        per_input=True,
    )
    curves = (cpu, memory)
    variables: Mapping[str, str] = {
        "MAX_OUTPUT_TOKENS": "20000",
        "STREAM_MAX_SECONDS": "3600",
        "GRACE_PERIOD_SECONDS": "1",
    }

    @contextmanager
    def open(self, folder: Path) -> Iterator[Visit]:
        # A caller's, the provider's: the service has two for each stream.
        load.allow_files(2 * max(self.sizes))
        with stage(folder / "project") as here:
            project = here.render(ROW)
            # More wait within their deadline, which is what the limit is for.
            set_policy(project, {"MAX_CONCURRENT_CALLS": "4096"})
            visits = itertools.count()

            def visit(size: int) -> dict[str, float]:
                place = folder / f"visit-{next(visits)}"
                place.mkdir()
                with stage(place) as there:
                    upstream = there.start_upstream(size / self.chunks_a_second)
                    service = there.serve(project, ROW, upstream.url, self.variables)
                    with usage.bound_to(usage.cores_for_load()):
                        return asyncio.run(self._hold(service, size))

            yield visit

    async def _hold(self, service: Running, size: int) -> dict[str, float]:
        first = min(self.first, size)
        async with load.held(service.url, map(_stream, [LONG] * first)) as few:
            without = usage.largest_mb(service.pid)
            async with load.held(service.url, map(_stream, [LONG] * (size - first))) as more:
                await asyncio.sleep(self.settling)
                chunks, cpu = few.chunks + more.chunks, usage.cpu_seconds(service.pid)
                await asyncio.sleep(self.seconds)
                chunks = few.chunks + more.chunks - chunks
                cpu = usage.cpu_seconds(service.pid) - cpu
                memory = usage.largest_mb(service.pid) - without
        figures = {self.cpu.name: 1e6 * cpu / chunks}
        if size > first:
            figures[self.memory.name] = 1e3 * memory / (size - first)
        return figures


class Chunks:
    """CPU per chunk by the chunks of a stream, which come as fast as they are read."""

    name = "chunks"
    sizes = (10, 100, 1_000, 10_000)
    at_once = 2
    chunks = 20_000
    """Of all streams of a visit."""
    curve = Curve("CPU a chunk by chunks of a stream", "chunks", "us", sizes, per_input=True)
    curves = (curve,)

    @contextmanager
    def open(self, folder: Path) -> Iterator[Visit]:
        with stage(folder) as here:
            upstream = here.start_upstream()
            service = here.serve(here.render(ROW), ROW, upstream.url, Streams.variables)

            def visit(size: int) -> dict[str, float]:
                streams = self.chunks // size
                cpu = _cpu_of(service, (_stream(size) for _ in range(streams)), self.at_once)
                return {self.curve.name: 1e6 * cpu / self.chunks}

            yield visit


def _stream(chunks: int) -> bytes:
    question = [{"role": "user", "content": "What is a bulkhead?"}]
    return load.request(
        body(question, stream=True, max_tokens=chunks), idempotency_key=secrets.token_hex(8)
    )


def _cpu_of(service: Running, requests: Iterable[bytes], connections: int = 4) -> float:
    """CPU seconds of the service while it answers them."""
    requests = list(requests)
    with usage.bound_to(usage.cores_for_load()):
        before = usage.cpu_seconds(service.pid)
        load.ask(service.url, requests, connections)
        return usage.cpu_seconds(service.pid) - before


def _callers(storage: str, steps: int) -> Steps:
    sizes = (10, 1_000, 10_000, 100_000, 1_000_000)
    curve = Curve(
        "CPU of admission and settlement by callers", "callers", "us", sizes, NAMES[storage]
    )
    return Steps(storage, "callers", sizes, curve, steps=steps)


def _ledger(storage: str, steps: int) -> Steps:
    sizes = (1, 30, 90, 365)
    name = NAMES[storage]
    step = Curve("CPU of admission and settlement by days of the ledger", "days", "us", sizes, name)
    book = Curve("CPU of reading one day's book by days of the ledger", "days", "ms", sizes, name)
    return Steps(storage, "ledger", sizes, step, book, steps=steps)


STEPS = {"memory": 20_000, "sqlite": 3_000, "redis": 2_000, "postgres": 1_000}
SCENES: tuple[Scene, ...] = (
    Histories(),
    Keys(),
    *(_callers(storage, steps) for storage, steps in STEPS.items()),
    *(_ledger(storage, steps) for storage, steps in STEPS.items()),
    Streams(),
    Chunks(),
)


def chosen(words: Iterable[str], scenes: Iterable[Scene] = SCENES) -> list[Scene]:
    """Those whose name has one of these words."""
    wanted = [word.lower() for word in words]
    return [scene for scene in scenes if any(word in scene.name.lower() for word in wanted)]
