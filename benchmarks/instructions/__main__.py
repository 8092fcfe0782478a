"""Bytecode instructions per request, beside the committed counts.

`python -m benchmarks.instructions [--write] [--only WORD]... [--functions N]`. `--write` makes what
was counted the baseline of this version of Python; `--functions` lists where the instructions of a
JSON request and of a chunk are.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console

from tests.demo import hear_signals
from tests.rendering import CommandFailed, take_snapshot

from . import baseline, report
from .kinds import JSON, LONG_STREAM, SHORT_STREAM, STREAMS
from .measuring import COUNTED, Measured, measure, python_version
from .table import README, renew_table


def main() -> int:
    """The exit status: 0, whatever the counts are; 1 when there are none, 130 after Ctrl-C."""
    arguments = _parse()
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    words = [word.lower() for word in arguments.only or [""]]
    rows = [row for row in COUNTED if any(word in row.name.lower() for word in words)]
    if not rows:
        console.print(f"No row's name has {' or '.join(arguments.only)} in it.", style="red")
        return 1
    hear_signals()
    measured: dict[str, Measured] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
            template = take_snapshot(Path(folder) / "template")
            for number, row in enumerate(rows):
                measured[row.name] = measure(row, template, Path(folder) / str(number))
                console.print(f"Counted: {row.name}")
    except KeyboardInterrupt:
        console.print("\nStopped. What was started has ended.")
        return 130
    except CommandFailed as error:
        console.print(f"\nNo counts: {error}", style="red")
        return 1
    counts = {name: each.counts() for name, each in measured.items()}
    for line in report.lines(counts, python_version(), baseline.read(python_version())):
        console.print(line.text, style="yellow" if line.is_beyond else "")
    for name, each in measured.items() if arguments.functions else ():
        _print_functions(console, name, each, arguments.functions)
    if arguments.write:
        baseline.write(python_version(), counts)
        renew_table()
        console.print(f"Written: {baseline.FILE}, {README}")
    return 0


def _print_functions(console: Console, row: str, measured: Measured, most: int) -> None:
    request = measured.median(JSON)
    short, long = measured.median(SHORT_STREAM), measured.median(LONG_STREAM)
    for whose, executed, chunks in (
        ("own code", request.own, long.own - short.own),
        ("libraries", request.others, long.others - short.others),
    ):
        _print_most(console, f"{row}, {JSON}: {whose}", executed, most)
        further = STREAMS[LONG_STREAM] - STREAMS[SHORT_STREAM]
        _print_most(console, f"{row}, {further} chunks more: {whose}", chunks, most)


def _print_most(console: Console, title: str, executed: Counter[str], most: int) -> None:
    console.print(f"\n{title}, {executed.total():,}", style="bold")
    for function, count in executed.most_common(most):
        console.print(f"{count:8,}  {function}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument(
        "--write", action="store_true", help=f"make them the baseline, {baseline.FILE.name}"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORD",
        help="only rows with this word in their name; repeatable",
    )
    parser.add_argument(
        "--functions",
        type=int,
        default=0,
        metavar="N",
        help="list so many functions with the most instructions",
    )
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("a baseline has all rows: --write goes without --only")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
