"""What is printed and written of a run: a table for each curve, JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..guardrails.report import Machine, versions
from .curves import TOLERANCE, Drawn


def print_curve(console: Console, drawn: Drawn) -> None:
    """Each figure beside its input, and how many times the first of both they are."""
    curve = drawn.curve
    table = Table(title=f"{curve.name} ({curve.unit})", title_justify="left", title_style="bold")
    for column in (curve.input, "x the first", curve.unit, "x the first", "least-most"):
        table.add_column(column, justify="right")
    first = curve.sizes[0]
    for (size, figure), ratio in zip(drawn.points, drawn.ratios, strict=True):
        samples = drawn.samples[size]
        table.add_row(
            f"{size:,}",
            f"{size / first:,.0f}",
            rounded(figure),
            Text(f"{ratio:.2f}", "bold"),
            f"{rounded(min(samples))}-{rounded(max(samples))}",
        )
    console.print(table)
    console.print(drawn.told, style="bold red" if drawn.is_steeper else "green")


def print_verdicts(console: Console, curves: Sequence[Drawn]) -> None:
    table = Table(title="The whole grows as n to the power of", title_justify="left")
    for column in ("", "all", "at its end", ""):
        table.add_column(column, justify="right" if column else "left")
    for drawn in curves:
        table.add_row(
            drawn.curve.name,
            f"{drawn.exponent:.2f}",
            f"{drawn.exponent_at_end:.2f}",
            Text("STEEPER", "bold red") if drawn.is_steeper else Text("no steeper", "green"),
        )
    console.print(table)


def conclusion(curves: Sequence[Drawn]) -> str:
    steeper = sum(drawn.is_steeper for drawn in curves)
    return f"{steeper} of {len(curves)} curves are steeper than their input."


def write_json(
    path: Path, machine: Machine, settings: dict[str, Any], curves: Sequence[Drawn]
) -> None:
    document = {
        "machine": asdict(machine),
        "versions": versions(),
        "settings": settings,
        "tolerance": TOLERANCE,
        "curves": [_document(drawn) for drawn in curves],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _document(drawn: Drawn) -> dict[str, Any]:
    curve = drawn.curve
    return {
        "name": curve.name,
        "input": curve.input,
        "unit": curve.unit,
        "per_input": curve.per_input,
        "points": [
            {
                "size": size,
                "median": round(figure, 4),
                "ratio": round(ratio, 3),
                "samples": [round(sample, 4) for sample in drawn.samples[size]],
            }
            for (size, figure), ratio in zip(drawn.points, drawn.ratios, strict=True)
        ],
        "exponent": round(drawn.exponent, 3),
        "exponent_at_end": round(drawn.exponent_at_end, 3),
        "steeper": drawn.is_steeper,
    }


def rounded(figure: float) -> str:
    """Three digits that say something."""
    return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
