"""The README's pictures of a session, and what makes pictures of a terminal's text."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.text import Text

from tests.rendering import ROOT
from tools.record_session import (
    COLUMNS,
    OWNERS,
    TEMPLATES,
    NotRecorded,
    picture,
    read,
    record,
    shortened,
    without,
)

SVG = "{http://www.w3.org/2000/svg}"
SHOWN = re.compile(r"!\[([^\]]+)\]\((docs/[^)]+)\)")
HOST = re.compile(r"\b\w+://([^/\s\"')<]+)")
MACHINE = re.compile(r"/(?:work|tmp|home|root|Users|var|private)\b")


def seen_in(svg: str) -> list[str]:
    """The lines of a picture, each text in the column where it is drawn."""
    rows: dict[float, list[str]] = defaultdict(list)
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if "textLength" in text.attrib:
            written = (text.text or "").replace("\xa0", " ")
            column = float(text.attrib["x"]) / (float(text.attrib["textLength"]) / len(written))
            row = rows[float(text.attrib["y"])]
            row.append(" " * (round(column) - sum(map(len, row))) + written)
    return ["".join(rows[y]).rstrip() for y in sorted(rows) if "".join(rows[y]).strip()]


def colour_of(svg: str, written: str) -> str:
    drawn = {
        text.text: text.attrib["class"] for text in ElementTree.fromstring(svg).iter(f"{SVG}text")
    }
    style = re.search(rf"\.{drawn[written]} {{([^}}]*)}}", svg)
    assert style is not None
    return style[1].strip()


def shown(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_the_readme_shows_a_session() -> None:
    """Its pictures show the four commands, the verdict and an edit that is kept; they ask no other
    host for anything, and tell nothing of the machine that recorded them."""
    pictures = SHOWN.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    texts = [(ROOT / path).read_text(encoding="utf-8") for _, path in pictures]
    for (described, path), text in zip(pictures, texts, strict=True):
        assert len(described) > 40, f"{path}: say what is seen"
        assert set(HOST.findall(text)) == {"www.w3.org"}
        assert not re.search(r"@import|@font-face|url\((?!#)|href", text)
        assert not MACHINE.search(text)
    lines = [line for text in texts for line in seen_in(text)]
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    commands = [part for line in typed for part in line.split(" && ") if "scaffold" in part]
    assert commands == [
        "scaffold new my-service",
        "scaffold check",
        "scaffold update --dry-run",
        "scaffold update",
    ]
    assert "12 of 12: ready for production" in lines
    assert lines[-2:] == [f"{name}: Final = {value}" for name, value in (OWNERS, TEMPLATES)]
    assert max(map(len, lines)) <= COLUMNS
    assert len(lines) <= 110


def test_a_terminals_text_becomes_a_picture() -> None:
    """Each text keeps its column and its colour, a long line is broken where a terminal does it,
    and the prompt that waits at the end is left out."""
    recorded = (
        "$ tell\n"
        "\x1b[1m\x1b[32m yes\x1b[0m   <b> & \x1b[31mred\n"  # tmux says it once for several lines
        "still red\x1b[39m\n"
        f"{'x' * COLUMNS}yz\n"
        "\n"
        "  over\n"
        "$ \n\n\n"
    )
    svg = picture(read(recorded), "A title & more")
    assert seen_in(svg) == [
        "$ tell",
        " yes   <b> & red",
        "still red",
        "x" * COLUMNS,
        "yz",
        "  over",
    ]
    assert "A title &amp; more".replace(" ", "&#160;") in svg
    assert colour_of(svg, "yes") == "fill: #56d364;font-weight: bold"
    assert colour_of(svg, "red") == colour_of(svg, "still\xa0red") == "fill: #ff7b72"
    assert colour_of(svg, "over") == "fill: #d5dbe3"
    assert set(HOST.findall(svg)) == {"www.w3.org"}


def test_what_is_cut_is_seen() -> None:
    """A `…` stands for the lines between two others, for the rest of a table's long row, in its
    column, and for the middle of what is long."""
    lines = shown("a", "b", "c", "d")
    assert without(lines, "a", "d") == shown("a", "…", "d")
    assert without(lines, "d", "a") == without(lines, "a", "e") == lines
    column = " " * 30
    row = shown("item", *(column + word for word in ("one", "two", "three")), "next")
    assert shortened(row, 50) == shown("item", column + "one", column + "…", "next")
    assert shortened(row[1:3], 50) == row[1:3]
    assert shortened(shown(*"abcdefg"), 5) == shown("a", "b", "…", "f", "g")
    assert shortened(shown(*"abcde"), 5) == shown(*"abcde")


def test_without_tmux_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded, and nothing of the old pictures is touched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotRecorded, match="tmux is not on the PATH: install it"):
        record(tmp_path)
    assert not list(tmp_path.iterdir())
