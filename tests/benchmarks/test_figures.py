"""From samples to figures, and whether they reach their targets."""

import pytest

from benchmarks.guardrails.figures import (
    CHUNK_US,
    CPU_MS,
    FIRST_TOKEN_MS,
    ONE_P50_MS,
    PER_SECOND,
    STORE_CPU_MS,
)
from benchmarks.guardrails.rows import PEER_ROWS, ROWS, Row, chosen
from benchmarks.guardrails.targets import judge, targets

from ..matrix.combinations import read_axes
from .run import (
    GUARDED,
    GUARDED_TWO,
    LITELLM,
    OVER_AIOHTTP,
    PORTKEY,
    TWO,
    UNGUARDED,
    cpu_run,
    run,
    sample,
)


def test_what_slows_a_whole_round_leaves_its_ratio_alone() -> None:
    """A ratio is taken within each round: the middle round here is ten times as slow, and the
    medians' own ratio would be another."""
    figures = cpu_run((2.0, 1.0), (20.0, 10.0), (3.0, 1.5))

    assert figures.ratio(CPU_MS, GUARDED, UNGUARDED) == 0.5
    assert cpu_run((1.0, 3.0), (2.0, 1.0), (3.0, 2.0)).ratio(CPU_MS, GUARDED, UNGUARDED) == (
        pytest.approx(2 / 3)
    )


def test_a_row_is_there_if_it_was_measured() -> None:
    """A peer that did not start has no samples, and is no row of the tables."""
    figures = cpu_run((2.0, 1.0), (2.0, 3.0))

    assert [row for row in (UNGUARDED, GUARDED, LITELLM) if figures.has(row)] == [
        UNGUARDED,
        GUARDED,
    ]


def test_each_round_counts_in_the_spread() -> None:
    figures = cpu_run((2.0, 1.0), (2.0, 3.0), (2.0, 1.4))

    assert figures.spread(CPU_MS, GUARDED) == (0.5, 1.5)
    assert figures.value(CPU_MS, GUARDED) == 1.4


def test_figures_are_per_request_and_per_chunk() -> None:
    figures = run({UNGUARDED: sample(2.0, p50_ms=4.0), GUARDED: sample(5.0, p50_ms=4.5)})

    assert figures.value(CPU_MS, GUARDED) == 5.0
    assert figures.value(CHUNK_US, GUARDED) == 50.0  # a hundred chunks a stream
    assert figures.value(PER_SECOND, GUARDED) == 500.0
    assert figures.value(FIRST_TOKEN_MS, GUARDED) == 13.5
    assert figures.value(STORE_CPU_MS, GUARDED) == 0.0
    assert figures.beyond(ONE_P50_MS, GUARDED, UNGUARDED) == 0.5


def test_two_processes_are_compared_with_two() -> None:
    assert GUARDED_TWO.baseline == TWO
    assert chosen(["redis, 2"]) == [TWO, GUARDED_TWO]


def test_a_row_brings_what_it_is_compared_with() -> None:
    assert chosen(["Django"]) == [UNGUARDED, Row("django", "memory")]
    assert chosen(["no such row"]) == []
    assert chosen([""]) == list(ROWS)


def test_a_peer_is_measured_only_when_asked_for_and_beside_fastapi() -> None:
    rows = (*ROWS, *PEER_ROWS)

    assert chosen(["LiteLLM"]) == []
    assert chosen(["LiteLLM"], rows) == [UNGUARDED, GUARDED, LITELLM]
    assert chosen(["portkey"], rows) == [UNGUARDED, GUARDED, PORTKEY]
    assert chosen(["django"], rows) == chosen(["django"])
    assert not any(row.peer for row in ROWS)


def test_another_transport_is_a_row_of_its_own() -> None:
    assert OVER_AIOHTTP in ROWS
    assert OVER_AIOHTTP.name == "unguarded, over aiohttp"
    assert chosen(["aiohttp"]) == [UNGUARDED, OVER_AIOHTTP]


def test_every_framework_and_every_store_is_measured() -> None:
    """As `copier.yml` has them."""
    values = {axis.name: set(axis.values) for axis in read_axes()}
    assert {row.framework for row in ROWS} == {"", *values["framework"]}
    assert {row.storage for row in ROWS} == {"", *values["storage"]}
    assert len({row.name for row in (*ROWS, *PEER_ROWS)}) == len(ROWS) + len(PEER_ROWS)


def test_a_miss_says_by_how_much() -> None:
    missed, *_ = judge(cpu_run((2.0, 1.5)), [UNGUARDED, GUARDED])

    assert (missed.at_most, missed.seen, missed.hit) == (0.60, 0.75, False)
    assert missed.told == "missed by 25%"
    assert missed.why == "Where the time and the memory go: benchmarks/README.md."


def test_a_miss_that_some_round_reached_is_told_as_one() -> None:
    missed, *_ = judge(cpu_run((2.0, 1.5), (2.0, 1.0), (2.0, 1.6)), [UNGUARDED, GUARDED])

    assert missed.why.startswith("Some of the rounds reached it (0.5 to 0.8): the machine may")


def test_a_target_is_reached_at_its_very_figure() -> None:
    reached, latency, memory = judge(cpu_run((10.0, 6.0)), [UNGUARDED, GUARDED])

    assert (reached.seen, reached.told, reached.why) == (0.6, "reached", "")
    assert (latency.unit, latency.seen) == ("ms", 0.0)
    assert (memory.unit, memory.at_most, memory.told) == ("MB", 180.0, "reached")


def test_a_framework_is_held_against_fastapi() -> None:
    django = Row("django", "memory")
    figures = run({UNGUARDED: sample(2.0), GUARDED: sample(1.0), django: sample(2.5)})
    verdicts = judge(figures, [UNGUARDED, GUARDED, django])

    (verdict,) = (v for v in verdicts if v.text.startswith("Django") and "CPU" in v.text)
    assert (verdict.at_most, verdict.seen) == (2.0, 2.5)


def test_fastapi_is_held_against_litellm_in_time_and_memory() -> None:
    rows = [UNGUARDED, GUARDED, LITELLM, PORTKEY]
    figures = run(
        {
            UNGUARDED: sample(2.0),
            GUARDED: sample(1.0, memory_mb=170.0),
            LITELLM: sample(16.0, memory_mb=200.0),
            PORTKEY: sample(1.0),
        }
    )
    time, memory = (v for v in judge(figures, rows) if "LiteLLM" in v.text)

    assert (time.seen, time.told) == (1 / 16, "reached")
    assert time.at_most == pytest.approx(1 / 15)
    assert (memory.seen, memory.at_most, memory.told) == (0.85, 0.5, "missed by 70%")
    assert "times" not in memory.why
    # What is compared with has no target itself, and none but these names it.
    assert len(judge(figures, rows)) == len(judge(figures, rows[:2])) + 2


def test_what_litellm_costs_today_is_told_where_its_target_is_missed() -> None:
    """The target is a share of what it cost when that was set."""
    figures = run({UNGUARDED: sample(2.0), GUARDED: sample(1.0), LITELLM: sample(12.0)})
    (time, _) = (v for v in judge(figures, [UNGUARDED, GUARDED, LITELLM]) if "LiteLLM" in v.text)

    assert "was set when LiteLLM cost 9.6 times what the unguarded service does" in time.why
    assert "here it costs 6.0 times as much" in time.why


def test_no_target_without_its_rows() -> None:
    assert [t.rows for t in targets([UNGUARDED])] == []
    assert all(set(t.rows) <= {UNGUARDED, GUARDED} for t in targets([UNGUARDED, GUARDED]))
    assert len(list(targets(ROWS))) > 15
