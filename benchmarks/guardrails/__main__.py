"""What the guardrails cost, beside a service without any.

`python -m benchmarks.guardrails [--rounds N] [--seconds S] [--only WORD]... [--peers] [--output
FOLDER]`. An unguarded service written by hand and guarded ones as they are rendered run at once,
before the same stand-in of a provider, and are put under load one after the other, round after
round; with `--peers` other gateways too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from tests.demo import hear_signals
from tests.rendering import ROOT, CommandFailed

from . import load, peers, report, usage
from .chart import Bar, draw
from .figures import CPU_MS, Figures, Round, Sample
from .load import LOADS, LoadFailed
from .peers import PeerMissing
from .rows import PEER_ROWS, ROWS, Row, chosen
from .stage import Running, measure, stage, warm_up
from .targets import CPU_RATIOS, Verdict, judge

OUTPUT = ROOT / "build" / "benchmarks"


def main() -> int:
    """The exit status: 0, 1 when there are no figures to be had, 130 after Ctrl-C."""
    arguments = _parse()
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 130
    rows = chosen(arguments.only or [""], (*ROWS, *PEER_ROWS) if arguments.peers else ROWS)
    if not rows:
        console.print(f"No row's name has {' or '.join(arguments.only)} in it.", style="red")
        return 1
    hear_signals()
    try:
        load.find_wrk()
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            machine = report.this_machine()
            console.print(machine.told)
            versions = at_hand(console, rows)
            rows = [row for row in rows if not row.peer or row.name in versions]
            rounds = run(console, Path(folder), rows, arguments.rounds, arguments.seconds)
    except KeyboardInterrupt:
        console.print("\nStopped. What was started has ended.")
        return 130
    except (LoadFailed, CommandFailed) as error:
        console.print(f"\nNo figures: {error}", style="red", soft_wrap=True)
        return 1
    figures = Figures(rounds)
    rows = [row for row in rows if figures.has(row)]
    verdicts = judge(figures, rows)
    report.print_figures(console, figures, rows)
    report.print_verdicts(console, verdicts)
    settings = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    written = arguments.output / "guardrails.json"
    report.write_json(written, machine, settings, figures, rows, verdicts, versions)
    drawn = arguments.output / "guardrails.svg"
    drawn.write_text(
        chart(figures, rows, [machine.told, _told(arguments.rounds, arguments.seconds)]),
        encoding="utf-8",
    )
    console.print(f"Written: {written}, {drawn}. {_conclusion(verdicts)}", soft_wrap=True)
    return 0


def at_hand(
    console: Console, rows: Sequence[Row], folder: Path = peers.FOLDER
) -> dict[str, dict[str, str]]:
    """The versions of those peers among the rows that can be measured, by the rows' names. Installs
    what is missing, and tells what cannot be had."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if not row.peer:
            continue
        try:
            if not peers.is_installed(row.peer, folder):
                console.print(f"Installing, once: {row.name}")
                peers.install(row.peer, folder)
            peer = peers.PEERS[row.peer]
            found[row.name] = peer.versions(peers.place(row.peer, folder))
        except PeerMissing as error:
            console.print(f"{row.name} is left out: {error}", style="yellow", soft_wrap=True)
            continue
        versions = ", ".join(f"{name} {version}" for name, version in found[row.name].items())
        console.print(f"{row.name}: {versions}")
    return found


def run(
    console: Console, folder: Path, rows: Sequence[Row], rounds: int, seconds: float
) -> list[Round]:
    """Leaves out a peer that does not serve. Raises `LoadFailed` or `CommandFailed` where something
    of ours does not."""
    with stage(folder) as here:
        upstream = here.start_upstream()
        with usage.bound_to(usage.cores_for_load()):
            alone = load.run(upstream.url, load.JSON, 1)
        console.print(
            f"The provider's stand-in alone serves {alone.requests / alone.seconds:.0f} requests"
            " a second."
        )
        running: dict[Row, Running] = {}
        for row in rows:
            console.print(f"Starting: {row.name}")
            try:
                service = here.start(row, upstream.url)
                warm_up(service, row, LOADS)
            except (LoadFailed, CommandFailed) as error:
                if not row.peer:
                    raise
                console.print(f"{row.name} is left out: {error}", style="yellow", soft_wrap=True)
            else:
                running[row] = service
        each = sum(seconds * service.times_as_long + 0.5 for service in running.values())
        estimate = rounds * len(LOADS) * each / 60
        console.print(f"{_told(rounds, seconds)}: about {estimate:.0f} minutes")
        there, back = running, dict(reversed(running.items()))
        return [
            # Whatever drifts within a round meets first the ones, then the others.
            _round(console, f"{n} of {rounds}", there if n % 2 else back, seconds)
            for n in range(1, rounds + 1)
        ]


def _round(console: Console, name: str, running: Mapping[Row, Running], seconds: float) -> Round:
    began = time.monotonic()
    samples: dict[tuple[str, str], Sample] = {}
    for under in LOADS:
        for row, service in running.items():
            if console.is_terminal:
                console.print(f"Round {name}: {under.name}, {row.name}".ljust(78), end="\r")
            samples[row.name, under.name] = measure(service, row, under, seconds)
    console.print(f"Round {name}: {time.monotonic() - began:.0f} s".ljust(78))
    return samples


def chart(figures: Figures, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """CPU per request of the rows with one process, as ratios to the unguarded service."""
    bars = [
        Bar(
            label=row.name,
            value=figures.ratio(CPU_MS, row, row.baseline),
            target=CPU_RATIOS.get(row.storage) if row.framework == "fastapi" else None,
            is_baseline=not row.framework,
        )
        for row in rows
        if row.processes == 1 and row.keyed
    ]
    title = "CPU per request; 1 = by hand, without a guardrail"
    legend = ["Blue: all guardrails on; the red mark is the most it is to be. Grey: without them."]
    if peers := [row.name for row in rows if row.peer]:
        legend.append(f"{' and '.join(peers)}: as documented for production.")
    return draw(title, bars, [*notes, *legend])


def _told(rounds: int, seconds: float) -> str:
    return f"{rounds} rounds of {seconds:g} s for each load of each row"


def _conclusion(verdicts: Sequence[Verdict]) -> str:
    reached = sum(verdict.hit for verdict in verdicts)
    return f"{reached} of {len(verdicts)} targets reached."


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guardrails")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=int, default=5, help="of each load; default: 5")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORD",
        help="only rows with this word in their name, and what they are compared with; repeatable",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="LiteLLM's proxy and Portkey's gateway too; installs them below build/, once",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: build/benchmarks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
