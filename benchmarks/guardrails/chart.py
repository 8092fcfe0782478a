"""A bar chart as SVG, readable on a light and a dark page, without a font or script of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABELS, BAR, GAP = 760, 230, 18, 10
LENGTH = WIDTH - LABELS - 60
TOP, BOTTOM = 58, 44
LONGEST = 3.0
"""A longer bar is drawn broken: beside it the others would be too short to compare."""
BEYOND = 1.15
"""How many times as long as all others a broken one is, so that none is taken to end with it."""
SLANT, TAIL = 6, 30
FIGURE = 46
"""What a bar's figure takes beside it; where its mark is nearer than that, it goes behind that."""
BROKEN = "A bar with a gap is longer than the drawing; its figure stands beside it."

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.note { font-size: 11px; fill: #59636e; }
.bar { fill: #2f6feb; } .base { fill: #8c959f; }
.target { stroke: #cf222e; stroke-width: 2; } .axis { stroke: #8c959f; stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .note { fill: #9198a1; } .bar { fill: #4493f8; }
  .target { stroke: #f85149; }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """`target` is drawn as a mark across it; `is_baseline` is what others are compared with."""

    label: str
    value: float
    target: float | None = None
    is_baseline: bool = False


def draw(title: str, bars: Sequence[Bar], notes: Sequence[str] = ()) -> str:
    """Horizontal bars with their values; a dashed line goes down at the baseline's 1."""
    drawn_whole = [bar.value for bar in bars if bar.value <= LONGEST]
    greatest = max([1.0, *drawn_whole, *(bar.target or 0 for bar in bars)])
    if any(bar.value > greatest for bar in bars):
        greatest *= BEYOND
    if any(bar.value > greatest for bar in bars):
        notes = [*notes, BROKEN]
    scale = LENGTH / greatest
    height = TOP + len(bars) * (BAR + GAP) + BOTTOM + 16 * len(notes)
    bottom = TOP + len(bars) * (BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title, quote=True)}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="10" y="26">{escape(title)}</text>',
        f'<line class="axis" x1="{LABELS + scale:.1f}" x2="{LABELS + scale:.1f}" y1="{TOP - 12}"'
        f' y2="{bottom}"/>',
    ]
    for number, bar in enumerate(bars):
        parts.extend(_bar(bar, TOP + number * (BAR + GAP), greatest))
    for number, note in enumerate(notes):
        y = bottom + 24 + 16 * number
        parts.append(f'<text class="note" x="10" y="{y}">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, y: int, greatest: float) -> list[str]:
    scale, middle = LENGTH / greatest, y + BAR - 5
    kind = "base" if bar.is_baseline else "bar"
    parts = [
        f'<text x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>',
        _broken(kind, y)
        if bar.value > greatest
        else f'<rect class="{kind}" x="{LABELS}" y="{y}"'
        f' width="{bar.value * scale:.1f}" height="{BAR}" rx="2"/>',
    ]
    end = min(bar.value, greatest)
    if bar.target is not None:
        x = LABELS + bar.target * scale
        parts.append(
            f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + BAR + 3}"/>'
        )
        if 0 <= (bar.target - end) * scale < FIGURE:
            end = bar.target
    x = LABELS + end * scale + 6
    return [*parts, f'<text x="{x:.1f}" y="{middle}">{bar.value:.2f}</text>']


def _broken(kind: str, y: int) -> str:
    """As long as the drawing is wide, with a slanted gap before its end."""
    end = LABELS + LENGTH
    gap = end - TAIL
    return (
        f'<path class="{kind}" d="M{LABELS} {y}H{gap}l-{SLANT} {BAR}H{LABELS}z'
        f'M{gap + SLANT} {y}H{end}v{BAR}H{gap}z"/>'
    )
