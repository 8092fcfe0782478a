"""What `scaffold` costs: that both ways make the same service, and what is made of the samples."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import generator
from benchmarks.generator import (
    CHECKOUT,
    COMMANDS,
    COPY,
    COPY_AND_COMMIT,
    FIRST_COMMIT,
    FLOOR,
    HELP,
    NEW,
    REVERSED,
    Figures,
    Round,
    Sample,
    Unequal,
    judge,
    require_equal,
    set_up,
)
from tests.rendering import CommandFailed

from ..cli.conftest import git


def taken(**seconds: float) -> Round:
    """A round in which everything took a tenth of a second, unless it is told otherwise."""
    given = {"copy": COPY, "commit": FIRST_COMMIT, "new": NEW, "help": HELP, "floor": FLOOR}
    samples = {command: Sample(0.1, 0.05) for command in COMMANDS}
    return samples | {given[name]: Sample(took, took / 2) for name, took in seconds.items()}


def seen(figures: Figures) -> dict[str, tuple[float, str]]:
    return {verdict.text: (verdict.seen, verdict.told) for verdict in judge({CHECKOUT: figures})}


def test_both_ways_make_the_same_service_and_commit_it(tmp_path: Path) -> None:
    """The templates and answers are the same, and so are the files: else there are no figures."""
    (place,) = set_up(tmp_path, CHECKOUT)
    samples = place.measure(COMMANDS, keep=True)

    assert set(samples) == set(COMMANDS)
    assert all(sample.cpu_seconds > 0 for sample in samples.values())
    services = [place.folder / name for name in ("by-new", "by-copy")]
    assert (services[0] / "app/storage/sqlite.py").is_file()
    assert len({git(service, "rev-parse", "HEAD:app") for service in services}) == 1
    assert [git(service, "status", "--porcelain") for service in services] == ["", ""]
    records = [(service / ".copier-answers.yml").read_bytes() for service in services]
    assert records[0] == records[1]


def test_what_fails_gives_no_figures(tmp_path: Path) -> None:
    (place,) = set_up(tmp_path, CHECKOUT)
    with pytest.raises(CommandFailed, match=r"ended with status 1"):
        replace(place, template=tmp_path / "nothing").measure([COPY])


@pytest.mark.parametrize("change", ["content", "mode", "more", "less"])
def test_services_that_differ_give_no_figures(tmp_path: Path, change: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for service in (one, other):
        (service / ".git").mkdir(parents=True)
        (service / "x.py").write_text("x = 1\n")
        (service / ".git/HEAD").write_text(service.name)
        (service / ".copier-answers.yml").write_text(service.name)
    require_equal(one, other)

    if change == "content":
        (other / "x.py").write_text("x = 2\n")
    elif change == "mode":
        (other / "x.py").chmod(0o755)
    elif change == "more":
        (other / "y.py").touch()
    else:
        (other / "x.py").unlink()
    with pytest.raises(Unequal, match=r"one and other differ: [xy]\.py$"):
        require_equal(one, other)


def test_every_second_round_goes_the_other_way() -> None:
    """And a copy is made before it is committed, in both."""
    assert set(REVERSED) == set(COMMANDS)
    assert COMMANDS.index(COPY) < COMMANDS.index(NEW)
    assert REVERSED.index(NEW) < REVERSED.index(COPY)
    for order in (COMMANDS, REVERSED):
        assert order.index(FIRST_COMMIT) == order.index(COPY) + 1


def test_a_ratio_is_taken_within_each_round() -> None:
    """The middle round is ten times as slow, which is nobody's doing."""
    figures = Figures([taken(copy=2, new=2), taken(copy=20, new=22), taken(copy=2, new=2.4)])

    assert figures.ratios(NEW, COPY) == pytest.approx([1.0, 1.1, 1.2])
    assert figures.cpu_ratios(NEW, COPY) == pytest.approx([1.0, 1.1, 1.2])
    ratio, told = seen(figures)[f"{CHECKOUT}: {NEW}, of {COPY}"]
    assert (round(ratio, 6), told) == (1.1, "reached")


def test_what_new_commits_is_told_beside_what_it_renders() -> None:
    figures = Figures([taken(copy=2, commit=0.5, new=2.5)])

    assert figures.seconds(COPY_AND_COMMIT) == [2.5]
    verdicts = seen(figures)
    assert verdicts[f"{CHECKOUT}: {NEW}, of {COPY_AND_COMMIT}"] == (1.0, "reached")
    assert verdicts[f"{CHECKOUT}: {NEW}, of {COPY}"][1] == "missed by 14%"


def test_the_median_is_held_to_the_target() -> None:
    figures = Figures([taken(help=0.2), taken(help=0.9), taken(help=0.25)])
    assert seen(figures)[f"{CHECKOUT}: {HELP}"] == (0.25, "reached")
    figures = Figures([taken(help=0.33)])
    assert seen(figures)[f"{CHECKOUT}: {HELP}"] == (0.33, "missed by 10%")


def test_a_missed_target_says_why() -> None:
    """What was reached needs no reason."""
    figures = Figures([taken(floor=0.02, help=0.4, copy=2, commit=0.5, new=2.5)])

    reasons = {verdict.text: verdict.why for verdict in judge({CHECKOUT: figures})}
    why = "20 times as long as `python -c pass`, which takes 20 ms here; where that takes 13 ms"
    assert why in reasons[f"{CHECKOUT}: {HELP}"]
    assert "1.25 to 1.25" in reasons[f"{CHECKOUT}: {NEW}, of {COPY}"]
    assert "is 25% of its time" in reasons[f"{CHECKOUT}: {NEW}, of {COPY}"]
    assert reasons[f"{CHECKOUT}: {NEW}, of {COPY_AND_COMMIT}"] == ""


def test_the_table_has_medians_spread_and_ratios() -> None:
    figures = Figures([taken(copy=2, new=2), taken(copy=2, new=2.2), taken(copy=2, new=2.6)])
    console = Console(file=io.StringIO(), width=150, color_system=None)
    console.print(generator.table_of(CHECKOUT, figures))
    assert isinstance(console.file, io.StringIO)

    (line,) = (line for line in console.file.getvalue().splitlines() if NEW in line)
    numbers = re.findall(r"[\d.]+(?:-[\d.]+)?", line)
    assert numbers == ["2.200", "2.000-2.600", "1.100", "1.10", "1.00-1.30", "1.10"]
