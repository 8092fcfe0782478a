"""Curves as small charts side by side, as SVG, readable on a light and a dark page, without a font
or script of its own. Both axes are logarithmic: what grows as its input goes up at one angle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from .curves import Drawn

ACROSS, WIDTH, HEIGHT, GAP = 2, 370, 250, 20
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 74
HEAD, NOTE = 44, 16
DECADES = 2
"""An axis shows at least so many, so that no noise looks like a slope."""

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #59636e; }
.title { font-weight: 600; font-size: 15px; fill: #1f2328; }
.panel { font-weight: 600; font-size: 11px; fill: #1f2328; }
.frame { fill: none; stroke: #d1d9e0; } .guide { stroke: #8c959f; stroke-dasharray: 3 3; }
.curve { fill: none; stroke-width: 2; }
.c0 { stroke: #0969da; } .c1 { stroke: #bc4c00; } .c2 { stroke: #1a7f37; } .c3 { stroke: #8250df; }
.dot { stroke-width: 5; stroke-linecap: round; }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1; } .title, .panel { fill: #f0f6fc; } .frame { stroke: #3d444d; }
  .c0 { stroke: #4493f8; } .c1 { stroke: #f0883e; } .c2 { stroke: #3fb950; }
  .c3 { stroke: #ab7df8; }
}
"""


@dataclass(frozen=True, slots=True)
class Axes:
    """From figures to places in a panel. The ranges are powers of ten."""

    x: tuple[int, int]
    y: tuple[int, int]

    @classmethod
    def around(cls, curves: Sequence[Drawn]) -> Axes:
        points = [point for drawn in curves for point in drawn.points]
        xs, ys = zip(*points, strict=True)
        return cls(_range(xs), _range(ys))

    def place(self, x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        along = (math.log10(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (math.log10(y) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + width * along, TOP + height * (1 - up)


def draw(title: str, curves: Sequence[Drawn], notes: Sequence[str] = ()) -> str:
    """A panel for all curves with the same one. The dashed line is the slope of the input."""
    panels = [list(group) for _, group in groupby(curves, lambda drawn: drawn.curve.panel)]
    # Stores are measured one after the other, and belong together.
    merged: dict[str, list[Drawn]] = {}
    for panel in panels:
        merged.setdefault(panel[0].curve.panel, []).extend(panel)
    rows = math.ceil(len(merged) / ACROSS)
    width = ACROSS * (WIDTH + GAP) + GAP
    bottom = HEAD + rows * (HEIGHT + GAP)
    height = bottom + NOTE * (len(notes) + 1) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(title, quote=True)}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{GAP}" y="26">{escape(title)}</text>',
    ]
    for number, (name, panel) in enumerate(merged.items()):
        x = GAP + number % ACROSS * (WIDTH + GAP)
        y = HEAD + number // ACROSS * (HEIGHT + GAP)
        parts += [f'<g transform="translate({x} {y})">', *_panel(name, panel), "</g>"]
    told = [*notes, "Dashed: what grows as its input does. Both axes are logarithmic."]
    for number, note in enumerate(told):
        y = bottom + NOTE * (number + 1)
        parts.append(f'<text x="{GAP}" y="{y}">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, curves: Sequence[Drawn]) -> Iterator[str]:
    axes, first = Axes.around(curves), curves[0]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield f'<text class="panel" x="0" y="16">{escape(name)}, {escape(first.curve.unit)}</text>'
    yield (
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"/>'
    )
    for power in range(axes.x[0], axes.x[1] + 1):
        x, _ = axes.place(10.0**power, 10.0 ** axes.y[0])
        yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{_short(power)}</text>'
    for power in range(axes.y[0], axes.y[1] + 1):
        _, y = axes.place(10.0 ** axes.x[0], 10.0**power)
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(power)}</text>'
    yield _guide(axes, first)
    for number, drawn in enumerate(curves):
        yield from _curve(axes, drawn, number)
    # The legend: two lines of two.
    for number, drawn in enumerate(curves if len(curves) > 1 else ()):
        x, y = 8 + number % 2 * 204, bottom + 34 + number // 2 * 16
        yield (
            f'<line class="curve c{number % 4}" x1="{x}" x2="{x + 14}" y1="{y - 4}" y2="{y - 4}"/>'
        )
        yield f'<text x="{x + 18}" y="{y}">{escape(drawn.curve.line)}</text>'


def _curve(axes: Axes, drawn: Drawn, number: int) -> Iterator[str]:
    places = [axes.place(*point) for point in drawn.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline class="curve c{number % 4}" points="{line}"/>'
    for x, y in places:
        yield f'<path class="dot c{number % 4}" d="M{x:.1f} {y:.1f}h0"/>'


def _guide(axes: Axes, drawn: Drawn) -> str:
    """From the first point on: level where a figure is for each one of the input. It ends where
    the panel does."""
    x, y = drawn.points[0]
    last = float(drawn.points[-1][0])
    end = y if drawn.curve.per_input else y * last / x
    most = 10.0 ** axes.y[1]
    if end > most:
        last, end = x * most / y, most
    (x1, y1), (x2, y2) = axes.place(x, y), axes.place(last, end)
    return f'<line class="guide" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _range(values: Sequence[float]) -> tuple[int, int]:
    least = math.floor(math.log10(min(values)))
    most = math.ceil(math.log10(max(values)))
    return least, max(most, least + DECADES)


def _short(power: int) -> str:
    if power < 0:
        return f"{10.0**power:g}"
    return f"{10 ** (power % 3)}{('', 'k', 'M', 'G')[power // 3]}"
