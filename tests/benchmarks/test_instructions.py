"""Bytecode instructions per request: counted, compared with the committed counts, and told at the
end of the run. A count beyond the tolerance is told there and fails nothing."""

import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from benchmarks.guardrails.rows import Row
from benchmarks.instructions import baseline, measuring, report, table
from benchmarks.instructions.baseline import (
    OWN,
    TOLERANCE,
    TOTAL,
    Baseline,
    Difference,
    differences,
)
from benchmarks.instructions.counter import COUNTS_THREADS, InstructionCounter
from benchmarks.instructions.kinds import CHUNK, FIGURES, JSON, KINDS, REFUSAL, REPLAY
from benchmarks.instructions.measuring import COUNTED, Count, count_requests, make_service, measure
from benchmarks.instructions.service import TIMES

from ..matrix.combinations import read_axes
from ..rendering import take_snapshot
from .report import Tell

FASTAPI = Row("fastapi", "memory")

# What somebody might add to a service: to its own code, or by what it calls.
READS_EACH_CHARACTER = """

_completion_body = completion_body


def completion_body(completion: Completion) -> bytes:
    body = _completion_body(completion)
    assert all(character.isprintable() for character in body.decode())
    return body
"""
COPIES_THE_REPLY = """

_completion_body = completion_body


def completion_body(completion: Completion) -> bytes:
    from copy import deepcopy

    return orjson.dumps(deepcopy(orjson.loads(_completion_body(completion))))
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take_snapshot(tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: str(row.name))
def test_requests_are_counted(
    row: Row, template: Path, tmp_path: Path, tell_instructions: Tell
) -> None:
    """Each kind as often as it should be; what asks no provider executes less than what does."""
    measured = measure(row, template, tmp_path / "service")
    tell_instructions(row.name, measured)

    assert {kind: len(each) for kind, each in measured.requests.items()} == dict.fromkeys(
        KINDS, TIMES
    )
    counts = measured.counts()
    assert tuple(sorted(counts)) == tuple(sorted(FIGURES))
    assert all(0 < count.own < count.total for count in counts.values())
    for without_a_provider in (REPLAY, REFUSAL):
        assert counts[without_a_provider].own < counts[JSON].own
        assert counts[without_a_provider].total < counts[JSON].total


def test_every_framework_and_every_store_is_counted() -> None:
    """As `copier.yml` has them."""
    values = {axis.name: set(axis.values) for axis in read_axes()}
    assert {row.framework for row in COUNTED} == values["framework"]
    assert {row.storage for row in COUNTED} == values["storage"]


def test_the_committed_baseline_is_whole() -> None:
    """It has each figure of each service, for each version of Python that it has at all."""
    for python in baseline.pythons():
        found = baseline.read(python)
        assert found is not None
        assert {name: tuple(figures) for name, figures in found.counts.items()} == {
            row.name: FIGURES for row in COUNTED
        }


def test_the_readmes_table_is_the_baselines(tmp_path: Path) -> None:
    """As `make instructions WRITE=1` leaves it."""
    readme = tmp_path / "README.md"
    shutil.copy(table.README, readme)
    table.renew_table(readme)

    assert readme.read_text(encoding="utf-8") == table.README.read_text(encoding="utf-8")


# The guard itself


Compare = Callable[[str], list[Difference]]


@pytest.fixture(scope="module")
def compare(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """Counts a service that has this at the end of a file, and compares it with one without."""
    places = tmp_path_factory.mktemp("planted")
    make_service(FASTAPI, template, places / "untouched")
    kinds = (JSON, REFUSAL)
    expected = {FASTAPI.name: count_requests(places / "untouched", kinds).counts()}

    def run(addition: str) -> list[Difference]:
        project = places / str(len(list(places.iterdir())))
        shutil.copytree(places / "untouched", project)
        with (project / "app" / "api" / "completions.py").open("a", encoding="utf-8") as file:
            file.write(addition)
        counts = count_requests(project, kinds).counts()
        return list(differences(FASTAPI.name, counts, expected))

    return run


@pytest.mark.xdist_group("planted costs")
@pytest.mark.parametrize(
    ("addition", "seen"),
    [
        ("", []),
        (READS_EACH_CHARACTER, [(JSON, OWN), (JSON, TOTAL)]),
        (COPIES_THE_REPLY, [(JSON, TOTAL)]),
    ],
    ids=["nothing", "own code", "a library's"],
)
def test_a_planted_cost_is_seen(addition: str, seen: Sequence[object], compare: Compare) -> None:
    """Where it is and nowhere else; and a service that nobody has touched is within the
    tolerance."""
    found = compare(addition)

    assert [(difference.figure, difference.whose) for difference in found] == seen
    assert all(difference.count > difference.expected for difference in found)


def test_the_tolerance_is_both_ways_and_includes_its_end() -> None:
    expected = {"a": {JSON: Count(1000, 2000)}}
    most = round(1000 * TOLERANCE[OWN])

    def found(own: int) -> list[Difference]:
        return list(differences("a", {JSON: Count(own, 2000)}, expected))

    assert found(1000 + most) == found(1000 - most) == []
    assert found(1001 + most) == [Difference("a", JSON, OWN, 1001 + most, 1000)]
    assert found(999 - most) == [Difference("a", JSON, OWN, 999 - most, 1000)]


def test_a_figure_that_is_new_is_told() -> None:
    counts = {"a": {JSON: Count(1, 2)}, "b": {JSON: Count(1, 2), REPLAY: Count(1, 2)}}
    known = Baseline({"a": {JSON: Count(1, 2)}, "b": {JSON: Count(1, 2)}}, {})
    told = [line.text for line in report.lines(counts, "3.11", known)]

    assert told[-2:] == [
        "Not in the baseline: b, replay",
        "4 of 4 counts are the baseline's, within 2% (own code) and 5% (total)",
    ]


def test_a_count_beyond_the_tolerance_is_told_with_both_numbers() -> None:
    known = Baseline({"a": {JSON: Count(10_000, 20_000)}}, {"fastapi": "0.1"})
    first, *_ = marked = [
        line.text
        for line in report.lines({"a": {JSON: Count(13_000, 20_000)}}, "3.11", known)
        if line.is_beyond
    ]

    assert first == (
        f"BEYOND {TOLERANCE[OWN]:.0%}: a, JSON: own code 13,000, baseline 10,000 (+30.0%)"
    )
    assert marked[-1].startswith("1 of 2 counts are the baseline's")


def test_other_libraries_than_the_baselines_are_named() -> None:
    known = Baseline({"a": {JSON: Count(10, 20)}}, {"fastapi": "0.1"})
    told = [line.text for line in report.lines({"a": {JSON: Count(10, 40)}}, "3.11", known)]

    (line,) = (line for line in told if line.startswith("Libraries are others"))
    assert ", was 0.1" in line
    assert "starlette" in line


def test_a_python_without_a_baseline_is_told_so() -> None:
    counts = {"a": {JSON: Count(1, 2)}}
    *_, figures, last = report.lines(counts, "4.0", baseline.read("4.0"))

    assert figures.text == "a  JSON 1 / 2"
    assert last.text.startswith("There is no baseline for Python 4.0")
    assert not last.is_beyond


def test_each_python_has_a_baseline_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    for python, row, own in (
        ("3.11", "a", 1),
        ("3.11", "b", 2),
        ("3.12", "a", 3),
        ("3.11", "a", 4),
    ):
        baseline.write(python, {row: {JSON: Count(own, 9)}}, file)

    written = baseline.read("3.11", file)
    assert written is not None
    assert written.counts == {"a": {JSON: Count(4, 9)}}
    assert written.differing() == []
    other = baseline.read("3.12", file)
    assert other is not None
    assert other.counts == {"a": {JSON: Count(3, 9)}}
    assert baseline.read("3.13", file) is None


def test_a_chunk_is_what_a_long_stream_has_more() -> None:
    one = {"own": {"f": 1}, "others": {"g": 1}}
    document = {
        "stream of 20": [{"own": {"f": 30}, "others": {"g": 5}}, one, one],
        "stream of 120": [{"own": {"f": 301}, "others": {"g": 500}}] * 3,
    }
    assert measuring.read(document).counts()[CHUNK] == Count(3, 8)


# Counting


def rounds(number: int) -> int:
    total = 0
    for each in range(number):
        total += each
    return total


@dataclass
class Made:
    number: int


def counted(act: Callable[[], object], *ignored: str) -> dict[tuple[str, str], int]:
    counter = InstructionCounter((InstructionCounter.__module__, *ignored))
    with counter.listening():
        counter.start()
        act()
        counter.stop()
    return counter.by_function()


def test_each_round_of_a_loop_is_as_many_instructions() -> None:
    name = __name__, "rounds"
    ten, twenty, thirty = (counted(partial(rounds, number))[name] for number in (10, 20, 30))

    assert thirty - twenty == twenty - ten > 10
    assert counted(lambda: rounds(10))[name] == ten


def test_other_threads_count() -> None:
    def act() -> None:
        thread = threading.Thread(target=rounds, args=(10,))
        thread.start()
        thread.join()

    name = __name__, "rounds"
    alone = counted(lambda: rounds(10))[name]
    assert counted(act).get(name, 0) == (alone if COUNTS_THREADS else 0)


def test_what_is_made_at_run_time_is_its_modules() -> None:
    """As a dataclass's methods are."""
    found = counted(partial(Made, 1))
    assert {module for module, _ in found} == {__name__}
    assert any(name.endswith("__init__") for _, name in found)


def test_modules_may_be_left_out_and_tracing_ends() -> None:
    before = sys.gettrace(), threading.gettrace()
    assert counted(lambda: rounds(10), __name__) == {}
    assert (sys.gettrace(), threading.gettrace()) == before
