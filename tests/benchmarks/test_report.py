"""What is told of a run."""

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks.guardrails import report
from benchmarks.guardrails.__main__ import chart
from benchmarks.guardrails.chart import BROKEN, Bar, draw
from benchmarks.guardrails.figures import Figures
from benchmarks.guardrails.report import Machine
from benchmarks.guardrails.rows import Row
from benchmarks.guardrails.targets import judge

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

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = Machine("A CPU", 2, 8.0, "Linux", "3.11.7", 0.1)


def printed(rows: list[Row], figures: Figures) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    report.print_figures(console, figures, rows)
    report.print_verdicts(console, judge(figures, rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_targets_stand_beside_the_figures() -> None:
    rows = [UNGUARDED, GUARDED]
    text = printed(rows, cpu_run((2.0, 1.5), (4.0, 3.2), (2.0, 1.4)))

    (line, *_) = (line for line in text.splitlines() if "FastAPI, memory" in line)
    assert re.findall(r"[\d.]+(?:-[\d.]+)?", line)[:3] == ["1.50", "0.75", "0.70-0.80"]
    target, why = (line for line in text.splitlines() if "CPU per request" in line)
    assert re.search(r"0\.6 .* 0\.75 .* missed by 25%", target)
    assert why.startswith(
        "FastAPI, memory: CPU per request, of the unguarded service's: missed by 25%."
    )


def test_the_file_holds_every_round_and_no_more_than_the_machines_kind(tmp_path: Path) -> None:
    rows = [UNGUARDED, GUARDED]
    figures = cpu_run((2.0, 1.0), (2.0, 1.2))
    path = tmp_path / "new" / "run.json"
    verdicts = judge(figures, rows)
    report.write_json(
        path, MACHINE, {"rounds": 2}, figures, rows, verdicts, {"Peer": {"its": "1.0"}}
    )
    document = json.loads(path.read_text(encoding="utf-8"))

    assert document["machine"]["cores"] == 2
    assert document["versions"]["fastapi"]
    assert document["peers"] == {"Peer": {"its": "1.0"}}
    assert [len(samples) for samples in document["rounds"]] == [6, 6]
    guarded = document["rows"][1]
    assert guarded["cpu_ratio"] == 0.55
    assert guarded["medians"]["cpu_ms_per_request"] == 1.1
    assert guarded["compared_with"] == "unguarded"
    assert [target["reached"] for target in document["targets"]] == [True, True, True]


def test_a_small_ratio_is_told_to_one_digit_more() -> None:
    rows = [UNGUARDED, GUARDED, LITELLM]
    text = printed(rows, run(dict(zip(rows, map(sample, (2.0, 1.0, 18.0)), strict=True))))

    (target,) = (t for t in text.splitlines() if "LiteLLM" in t and "CPU per request" in t)
    assert re.search(r"0\.0667 .* 0\.056 .* reached", target)


def test_this_machine_is_told_by_its_kind() -> None:
    machine = report.this_machine()

    assert machine.cores > 0
    assert machine.memory_gib > 0
    assert f"{machine.cores} cores" in machine.told


def test_bars_are_as_long_as_their_values() -> None:
    bars = [Bar("by hand", 1.0, is_baseline=True), Bar("a < b & c", 0.5, target=0.25)]
    drawing = ElementTree.fromstring(draw("Title", bars, ["a note"]))

    base, half = drawing.iter(f"{SVG}rect")
    assert float(half.attrib["width"]) * 2 == float(base.attrib["width"])
    assert (base.attrib["class"], half.attrib["class"]) == ("base", "bar")
    axis, mark = drawing.iter(f"{SVG}line")
    end = float(base.attrib["x"]) + float(base.attrib["width"])
    assert float(axis.attrib["x1"]) == end
    assert float(mark.attrib["x1"]) < float(half.attrib["x"]) + float(half.attrib["width"])
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert texts == ["Title", "by hand", "1.00", "a < b & c", "0.50", "a note"]


def test_a_figure_stands_beside_its_bar_and_on_no_mark() -> None:
    """Behind the mark only where there is no room before it: else it would be taken for its."""
    bars = [Bar("by hand", 1.0, is_baseline=True), Bar("far", 0.4, 0.6), Bar("near", 0.4, 0.45)]
    drawing = ElementTree.fromstring(draw("Title", bars))

    _, *ends = (float(r.attrib["x"]) + float(r.attrib["width"]) for r in drawing.iter(f"{SVG}rect"))
    _, *marks = (float(line.attrib["x1"]) for line in drawing.iter(f"{SVG}line"))
    far, near = (float(t.attrib["x"]) for t in drawing.iter(f"{SVG}text") if t.text == "0.40")
    assert ends[0] < far < marks[0] - 30
    assert ends[1] < marks[1] < near


def test_no_bar_leaves_the_drawing() -> None:
    drawing = ElementTree.fromstring(draw("Title", [Bar("slow", 7.0, target=9.0)]))

    width = float(drawing.attrib["viewBox"].split()[2])
    (bar,) = drawing.iter(f"{SVG}rect")
    assert float(bar.attrib["x"]) + float(bar.attrib["width"]) < width
    assert all(float(text.attrib["x"]) < width for text in drawing.iter(f"{SVG}text"))


def test_the_chart_shows_one_process() -> None:
    rows = [UNGUARDED, GUARDED, TWO, GUARDED_TWO]
    figures = run({row: sample(2.0 if not row.framework else 1.0) for row in rows})
    drawing = ElementTree.fromstring(chart(figures, rows, []))

    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert texts[1:5] == ["unguarded", "1.00", "FastAPI, memory", "0.50"]
    assert len(list(drawing.iter(f"{SVG}rect"))) == 2


def test_a_bar_that_would_dwarf_the_others_is_broken_and_said_to_be() -> None:
    others = [Bar("by hand", 1.0, is_baseline=True), Bar("ours", 0.5, target=0.6)]
    plain = ElementTree.fromstring(draw("Title", others))
    drawing = ElementTree.fromstring(draw("Title", [*others, Bar("slow", 9.4, is_baseline=True)]))

    base, half = (bar.attrib for bar in drawing.iter(f"{SVG}rect"))
    assert float(base["width"]) == pytest.approx(2 * float(half["width"]), abs=0.2)
    assert not list(plain.iter(f"{SVG}path"))
    (broken,) = drawing.iter(f"{SVG}path")
    assert broken.attrib["class"] == "base"
    assert broken.attrib["d"].count("M") == 2
    end = max(float(x) for x in re.findall(r"[MH](\d+)", broken.attrib["d"]))
    # Nobody takes it to end where the others do.
    assert float(base["x"]) + float(base["width"]) + 20 < end
    assert end < float(drawing.attrib["viewBox"].split()[2])
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert texts[-3:] == ["slow", "9.40", BROKEN]
    assert BROKEN not in [text.text for text in plain.iter(f"{SVG}text")]


def test_the_longest_whole_bar_is_not_taken_for_a_broken_one() -> None:
    for hundredths in range(101, 400):
        drawing = draw("Title", [Bar("by hand", 1.0), Bar("slower", hundredths / 100)])
        assert ("<path" in drawing) == (BROKEN in drawing) == (hundredths > 300)


def test_only_what_is_rendered_is_drawn_as_ours() -> None:
    rows = [UNGUARDED, OVER_AIOHTTP, GUARDED, LITELLM, PORTKEY]
    cpu_ms = (2.0, 0.8, 1.2, 20.0, 1.3)
    drawing = ElementTree.fromstring(
        chart(run(dict(zip(rows, map(sample, cpu_ms), strict=True))), rows, [])
    )

    kinds = [bar.attrib["class"] for bar in drawing.iter(f"{SVG}rect")]
    assert kinds == ["base", "base", "bar", "base"]
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert texts[7:9] == ["LiteLLM", "10.00"]
    assert str(texts[-2]).startswith("LiteLLM and Portkey: as documented for production")
