"""What is told of a run."""

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from benchmarks.guardrails import report
from benchmarks.guardrails.__main__ import chart
from benchmarks.guardrails.chart import Bar, draw
from benchmarks.guardrails.figures import Figures
from benchmarks.guardrails.report import Machine
from benchmarks.guardrails.rows import Row
from benchmarks.guardrails.targets import judge

from .run import GUARDED, GUARDED_TWO, TWO, UNGUARDED, cpu_run, run, sample

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
    (target,) = (line for line in text.splitlines() if "CPU per request" in line)
    assert re.search(r"0\.6 .* 0\.75 .* missed by 25%", target)


def test_the_file_holds_every_round_and_no_more_than_the_machines_kind(tmp_path: Path) -> None:
    rows = [UNGUARDED, GUARDED]
    figures = cpu_run((2.0, 1.0), (2.0, 1.2))
    path = tmp_path / "new" / "run.json"
    verdicts = judge(figures, rows)
    report.write_json(path, MACHINE, {"rounds": 2}, figures, rows, verdicts)
    document = json.loads(path.read_text(encoding="utf-8"))

    assert document["machine"]["cores"] == 2
    assert document["versions"]["fastapi"]
    assert [len(samples) for samples in document["rounds"]] == [6, 6]
    guarded = document["rows"][1]
    assert guarded["cpu_ratio"] == 0.55
    assert guarded["medians"]["cpu_ms_per_request"] == 1.1
    assert guarded["compared_with"] == "unguarded"
    assert [target["reached"] for target in document["targets"]] == [True, True, True]


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
