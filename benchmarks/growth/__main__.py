"""How costs grow with what a service holds and is sent.

`python -m benchmarks.growth [--rounds N] [--only WORD]... [--output FOLDER]`. For each input that
grows, the CPU of a rendered service or of its store at some sizes, which are visited in turns,
round after round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.demo import hear_signals
from tests.rendering import ROOT, CommandFailed

from ..guardrails.load import LoadFailed
from ..guardrails.report import this_machine
from . import chart, report
from .curves import Drawn, Round, drawn
from .scenes import SCENES, Scene, chosen

OUTPUT = ROOT / "build" / "benchmarks"


def main() -> int:
    """The exit status: 0, 1 when there are no figures to be had, 130 after Ctrl-C."""
    arguments = _parse()
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 130
    scenes = chosen(arguments.only or [""])
    if not scenes:
        names = "; ".join(scene.name for scene in SCENES)
        wanted = " or ".join(arguments.only)
        console.print(f"No scene's name has {wanted} in it. There are: {names}.", style="red")
        return 1
    hear_signals()
    machine = this_machine()
    console.print(machine.told)
    curves: list[Drawn] = []
    try:
        for scene in scenes:
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                rounds = run(console, scene, Path(folder), arguments.rounds)
            found = [drawn(curve, rounds) for curve in scene.curves]
            for each in found:
                report.print_curve(console, each)
            curves += found
    except KeyboardInterrupt:
        console.print("\nStopped. What was started has ended.")
        return 130
    except (LoadFailed, CommandFailed) as error:
        console.print(f"\nNo figures: {error}", style="red", soft_wrap=True)
        return 1
    settings = {"rounds": arguments.rounds, "scenes": [scene.name for scene in scenes]}
    written = arguments.output / "growth.json"
    report.write_json(written, machine, settings, curves)
    picture = arguments.output / "growth.svg"
    notes = [machine.told, f"Medians of {arguments.rounds} rounds."]
    picture.write_text(chart.draw("How costs grow", curves, notes), encoding="utf-8")
    report.print_verdicts(console, curves)
    console.print(f"Written: {written}, {picture}. {report.conclusion(curves)}", soft_wrap=True)
    return 0


def run(console: Console, scene: Scene, folder: Path, rounds: int) -> Sequence[Round]:
    """Raises `LoadFailed` or `CommandFailed` where something does not serve."""
    console.print(f"Preparing: {scene.name}")
    measured: list[Round] = []
    with scene.open(folder) as visit:
        for number in range(1, rounds + 1):
            began = time.monotonic()
            figures: dict[tuple[str, int], float] = {}
            # Whatever drifts within a round meets first the ones, then the others.
            for size in scene.sizes if number % 2 else reversed(scene.sizes):
                for name, figure in visit(size).items():
                    figures[name, size] = figure
            seconds = time.monotonic() - began
            console.print(f"{scene.name}, round {number} of {rounds}: {seconds:.0f} s")
            measured.append(figures)
    return measured


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORD",
        help="only what has this word in its name, such as history or sqlite; repeatable",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: build/benchmarks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
