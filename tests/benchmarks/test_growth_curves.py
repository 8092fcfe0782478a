"""From figures to how steeply they grow, what is printed of it and how it is drawn."""

import io
import json
import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks.growth import chart, report
from benchmarks.growth.conversations import conversation, known, unknown
from benchmarks.growth.curves import Curve, Drawn, drawn, exponent
from benchmarks.growth.scenes import SCENES, chosen
from benchmarks.guardrails.report import Machine

from ..matrix.combinations import read_axes

SVG = "{http://www.w3.org/2000/svg}"
SIZES = (1, 10, 100, 1_000)


def curve(*figures: float, per_input: bool = False, panel: str = "CPU", line: str = "") -> Drawn:
    given = Curve(panel, "streams", "us", SIZES, line, per_input)
    return drawn(given, [{(given.name, n): f for n, f in zip(SIZES, figures, strict=True)}])


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_exponent_is_that_of_the_power_law(power: float) -> None:
    assert exponent([(n, 7 * n**power) for n in SIZES]) == pytest.approx(power)


def test_a_single_figure_off_the_line_bends_it_by_its_share() -> None:
    """By least squares: the last of three points, twice as high, adds half of its own slope."""
    assert exponent([(1, 1.0), (10, 1.0), (100, 10.0)]) == pytest.approx(0.5)


def test_figures_are_medians_over_the_rounds() -> None:
    given = Curve("CPU", "streams", "us", (1, 2))
    rounds = [{("CPU", 1): first, ("CPU", 2): 8.0} for first in (4.0, 1.0, 2.0)]
    found = drawn(given, rounds)

    assert found.points == ((1, 2.0), (2, 8.0))
    assert found.samples[1] == (4.0, 1.0, 2.0)
    assert found.ratios == (1.0, 4.0)


def test_a_figure_for_each_of_the_input_is_multiplied_by_it() -> None:
    """What costs the same for each chunk costs ten times as much for ten times the chunks."""
    assert curve(5, 5, 5, 5).exponent == pytest.approx(0)
    assert curve(5, 5, 5, 5, per_input=True).exponent == pytest.approx(1)
    assert not curve(5, 5, 5, 5, per_input=True).is_steeper
    assert curve(5, 7, 9.8, 13.7, per_input=True).is_steeper


def test_what_a_fixed_cost_hides_shows_at_the_end() -> None:
    """A square behind a large base is less than linear on the whole, and steeper."""
    hidden = curve(*(5_000 + n * n for n in SIZES))

    assert hidden.exponent < 1
    assert hidden.exponent_at_end > 1
    assert hidden.is_steeper
    assert "STEEPER than its input" in hidden.told


def test_a_straight_line_is_no_steeper_than_its_input() -> None:
    straight = curve(*(3.0 * n for n in SIZES))

    assert not straight.is_steeper
    assert straight.told == (
        "the whole grows as n^1.00, at its end as n^1.00: no steeper than its input"
    )


def test_a_curve_is_printed_with_its_ratios() -> None:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    report.print_curve(console, curve(2.0, 3.0, 250.4, 40.0))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines() if "│" in line]

    assert [[cell for cell in line if cell != "│"] for line in lines] == [
        ["1", "1", "2", "1.00", "2-2"],
        ["10", "10", "3", "1.50", "3-3"],
        ["100", "100", "250", "125.20", "250-250"],
        ["1,000", "1,000", "40", "20.00", "40-40"],
    ]


def test_the_verdicts_count_those_that_are_steeper() -> None:
    curves = [curve(1, 1, 1, 1), curve(1, 100, 10_000, 1_000_000, panel="square")]
    console = Console(file=io.StringIO(), width=120, color_system=None)
    report.print_verdicts(console, curves)
    assert isinstance(console.file, io.StringIO)

    told = console.file.getvalue()
    assert told.count("STEEPER") == 1
    assert report.conclusion(curves) == "1 of 2 curves are steeper than their input."


def test_the_file_holds_every_sample(tmp_path: Path) -> None:
    given = Curve("CPU", "streams", "us", (1, 10))
    rounds = [{("CPU", 1): figure, ("CPU", 10): 2 * figure} for figure in (1.0, 3.0)]
    path = tmp_path / "new" / "growth.json"
    machine = Machine("A CPU", 2, 8.0, "Linux", "3.11.7", 0.1)
    report.write_json(path, machine, {"rounds": 2}, [drawn(given, rounds)])
    document = json.loads(path.read_text(encoding="utf-8"))

    (told,) = document["curves"]
    assert [point["samples"] for point in told["points"]] == [[1.0, 3.0], [2.0, 6.0]]
    assert [point["ratio"] for point in told["points"]] == [1.0, 2.0]
    assert told["exponent"] == pytest.approx(math.log10(2), abs=0.001)
    assert document["machine"]["cores"] == 2
    assert document["versions"]["uvloop"]


# The chart


def test_curves_of_one_panel_are_drawn_together() -> None:
    curves = [
        curve(1, 1, 1, 1, panel="a < b", line="one"),
        curve(1, 2, 3, 4, panel="other"),
        curve(2, 2, 2, 2, panel="a < b", line="two & three"),
    ]
    drawing = ElementTree.fromstring(chart.draw("Title", curves, ["a note"]))

    first, second = drawing.iter(f"{SVG}g")
    assert [len(list(panel.iter(f"{SVG}polyline"))) for panel in (first, second)] == [2, 1]
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert {"Title", "a < b, us", "other, us", "one", "two & three", "a note"} <= set(texts)


def places(panel: ElementTree.Element) -> list[tuple[float, float]]:
    (line,) = panel.iter(f"{SVG}polyline")
    pairs = (pair.split(",") for pair in line.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_powers_of_ten_are_as_far_apart_as_each_other() -> None:
    drawing = ElementTree.fromstring(chart.draw("Title", [curve(1, 10, 100, 1_000)]))

    found = places(drawing)
    steps = [(x2 - x1, y1 - y2) for (x1, y1), (x2, y2) in pairwise(found)]
    for across, up in steps:
        assert across == pytest.approx(steps[0][0], abs=0.2)
        assert up == pytest.approx(steps[0][1], abs=0.2)
        assert min(across, up) > 10


@pytest.mark.parametrize("per_input", [False, True])
def test_the_dashed_line_is_what_grows_as_its_input(per_input: bool) -> None:
    """It lies on such a curve: level where each of the input has a figure of its own."""
    figures = (5.0, 5.0, 5.0, 5.0) if per_input else (5.0, 50.0, 500.0, 5_000.0)
    drawing = ElementTree.fromstring(chart.draw("Title", [curve(*figures, per_input=per_input)]))

    (guide,) = drawing.iter(f"{SVG}line")
    first, *_, last = places(drawing)
    assert (float(guide.attrib["x1"]), float(guide.attrib["y1"])) == first
    assert (float(guide.attrib["x2"]), float(guide.attrib["y2"])) == last


def test_no_line_leaves_its_panel() -> None:
    """Also where the input grows a thousandfold and the figure does not."""
    drawing = ElementTree.fromstring(chart.draw("Title", [curve(5, 5.1, 4, 30)]))

    (frame,) = drawing.iter(f"{SVG}rect")
    left, top = float(frame.attrib["x"]), float(frame.attrib["y"])
    right, bottom = left + float(frame.attrib["width"]), top + float(frame.attrib["height"])
    (guide,) = drawing.iter(f"{SVG}line")
    ends = [(float(guide.attrib[f"x{n}"]), float(guide.attrib[f"y{n}"])) for n in (1, 2)]
    for x, y in [*ends, *places(drawing)]:
        assert left - 0.1 <= x <= right + 0.1
        assert top - 0.1 <= y <= bottom + 0.1


# What is grown


def test_every_store_is_filled_with_callers_and_with_days() -> None:
    """As `copier.yml` has them."""
    (axis,) = (axis for axis in read_axes() if axis.name == "storage")
    for kind in ("callers", "ledger"):
        stores = {scene.storage for scene in chosen([kind])}  # type: ignore[attr-defined]
        assert stores == set(axis.values)


def test_scenes_are_chosen_by_a_word_of_their_name() -> None:
    assert [scene.name for scene in chosen(["REDIS"])] == ["callers, Redis", "ledger, Redis"]
    assert chosen(["no such scene"]) == []
    assert chosen([""]) == list(SCENES)


def test_no_two_curves_have_one_name_and_all_sizes_are_visited() -> None:
    names = [curve.name for scene in SCENES for curve in scene.curves]
    assert len(set(names)) == len(names)
    for scene in SCENES:
        assert {size for curve in scene.curves for size in curve.sizes} == set(scene.sizes)


def test_who_asks_again_sends_the_same_but_for_the_question() -> None:
    first, second = known(10, 2)
    assert first[:-1] == second[:-1] == conversation(10)[:-1]
    assert first[-1] != second[-1]
    assert [message["role"] for message in first[-3:]] == ["user", "assistant", "user"]
    assert {len(message["content"].split()) for message in first} == {50}


def test_new_conversations_share_no_message() -> None:
    texts = [m["content"] for messages in unknown(10, 3, first_seed=1) for m in messages]
    assert len(set(texts)) == len(texts) == 3 * 19
