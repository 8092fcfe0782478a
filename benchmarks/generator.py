"""What `scaffold` costs before and beside Copier.

`python -m benchmarks.generator [--rounds N] [--only checkout|wheel] [--output FOLDER]`. Whole
processes, one after the other: the interpreter alone, imports, `--version`, `--help`, and one
service by `scaffold new --no-install` and by `copier copy`, from the same commit of the template
with the same answers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaffold_cli.merge import ANSWERS_FILE
from tests.cli.wheels import build_wheel, install
from tests.demo import hear_signals
from tests.rendering import ROOT, CommandFailed, run

from .guardrails.report import print_verdicts, this_machine, versions
from .guardrails.targets import Verdict

OUTPUT = ROOT / "build" / "benchmarks"
LIBRARIES = ("copier", "typer", "rich", "jinja2", "pydantic", "questionary")
CHECKOUT, WHEEL = "checkout", "wheel"

FLOOR, IMPORT = "python -c pass", "import scaffold_cli.main"
IMPORT_COPIER, IMPORT_NEW = "import copier", "all that `new` imports, Copier too"
VERSION, HELP = "scaffold --version", "scaffold --help"
COPY, FIRST_COMMIT, NEW = "copier copy", "git init, add, commit", "scaffold new --no-install"
COPY_AND_COMMIT = f"{COPY}, then {FIRST_COMMIT}"
COMMANDS = (FLOOR, IMPORT, IMPORT_COPIER, IMPORT_NEW, VERSION, HELP, COPY, FIRST_COMMIT, NEW)

NEEDED_BY_NEW = "import copier, rich.console, scaffold_cli.main, scaffold_cli.answers"
NEEDED_BY_NEW += ", scaffold_cli.hint, scaffold_cli.new"
ANSWERS = {
    "project_name": "measured",
    "framework": "fastapi",
    "storage": "sqlite",
    "providers": "[openai, anthropic]",
    "primary_provider": "openai",
}
FLAGS = [
    *("--name", "measured", "--framework", "fastapi", "--storage", "sqlite"),
    *("--provider", "openai", "--provider", "anthropic"),
]
MAX_SECONDS = {HELP: 0.3, IMPORT: 0.5, IMPORT_NEW: 0.5}
FLOOR_MS = 13
"""What the interpreter alone takes on two cores that nobody else uses."""
MAX_RATIO = 1.1
"""`scaffold new --no-install`, of `copier copy`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process with all that it has started. CPU is user and system time."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


Round = Mapping[str, Sample]
"""By the command."""


def main() -> int:
    """The exit status: 0, 1 when there are no figures to be had, 130 after Ctrl-C."""
    arguments = _parse()
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 130
    machine = this_machine()
    console.print(machine.told)
    hear_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="generator-") as folder:
            places = list(set_up(Path(folder), arguments.only))
            rounds = measure(console, places, arguments.rounds)
    except KeyboardInterrupt:
        console.print("\nStopped. What was started has ended.")
        return 130
    except (CommandFailed, Unequal) as error:
        console.print(f"\nNo figures: {error}", style="red", soft_wrap=True)
        return 1
    figures = {name: Figures(taken) for name, taken in rounds.items()}
    for name, taken in figures.items():
        console.print(table_of(name, taken))
    verdicts = judge(figures)
    print_verdicts(console, verdicts)
    written = arguments.output / "generator.json"
    document = {
        "machine": asdict(machine),
        "versions": versions(LIBRARIES),
        "settings": {"rounds": arguments.rounds},
        "medians": {name: taken.document() for name, taken in figures.items()},
        "targets": [{**asdict(verdict), "reached": verdict.hit} for verdict in verdicts],
        "rounds": {
            name: [{command: asdict(sample) for command, sample in each.items()} for each in taken]
            for name, taken in rounds.items()
        },
    }
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"Written: {written}", soft_wrap=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generator")
    parser.add_argument("--rounds", type=int, default=10, help="default: 10")
    parser.add_argument("--only", choices=(CHECKOUT, WHEEL), help="default: both")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser.parse_args()


# What is measured


class Unequal(Exception):
    """The two ways to a service did not make the same files, so their times say nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where `scaffold` and Copier are installed, and the template that both take."""

    name: str
    programs: Path
    template: Path
    variables: Mapping[str, str]
    folder: Path

    def measure(self, commands: Sequence[str], *, keep: bool = False) -> Round:
        """Each command once, in this order. Raises `CommandFailed` and `Unequal`.

        The services are removed unless they are to be kept.
        """
        by_new, by_copy = self.folder / "by-new", self.folder / "by-copy"
        steps: Mapping[str, Callable[[], Sample]] = {
            FLOOR: lambda: self._time("python", "-c", "pass"),
            IMPORT: lambda: self._time("python", "-c", IMPORT),
            IMPORT_COPIER: lambda: self._time("python", "-c", IMPORT_COPIER),
            IMPORT_NEW: lambda: self._time("python", "-c", NEEDED_BY_NEW),
            VERSION: lambda: self._time(*VERSION.split()),
            HELP: lambda: self._time(*HELP.split()),
            NEW: lambda: self._time("scaffold", "new", str(by_new), *FLAGS, "--no-install"),
            COPY: lambda: self._time("copier", "copy", *self._copied(), str(by_copy)),
            FIRST_COMMIT: lambda: self._commit(by_copy),
        }
        samples = {command: steps[command]() for command in commands}
        require_equal(by_new, by_copy)
        if not keep:
            shutil.rmtree(by_new)
            shutil.rmtree(by_copy)
        return samples

    def _copied(self) -> list[str]:
        # HEAD, as `scaffold new` takes it; by itself Copier would take the newest tag.
        data = [word for answer in ANSWERS.items() for word in ("--data", "=".join(answer))]
        return ["--defaults", "--vcs-ref", "HEAD", *data, str(self.template)]

    def _commit(self, service: Path) -> Sample:
        """What Copier's message tells to do next, and `scaffold new` has done."""
        git = ("git", "-C", str(service))
        first = self._time(*git, "-c", "init.defaultBranch=main", "init", "--quiet")
        second = self._time(*git, "add", "--all")
        return first + second + self._time(*git, "commit", "--quiet", "--message", "Start measured")

    def _time(self, program: str, *arguments: str) -> Sample:
        path = self.programs / program
        command = [str(path) if path.exists() else program, *arguments]
        output = self.folder / "output"
        with output.open("wb") as stream:
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said = output.read_text(encoding="utf-8", errors="replace")
            raise CommandFailed(command, f"ended with status {process.returncode}", said)
        return Sample(seconds, usage.ru_utime + usage.ru_stime)


def set_up(folder: Path, only: str | None = None) -> Iterator[Place]:
    """The checkout's own environment, with a clone of HEAD as the template; and an environment that
    has the wheel of HEAD and nothing else, which carries its template."""
    home, template = folder / "home", folder / "template"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.com\n")
    run(["git", "clone", "--quiet", str(ROOT), str(template)], folder, _variables(home))
    if only != WHEEL:
        variables = {**_variables(home), "SCAFFOLD_TEMPLATE": str(template)}
        yield _place(CHECKOUT, folder, Path(sys.prefix, "bin"), template, variables)
    if only != CHECKOUT:
        wheel = build_wheel(template, folder / "dist")
        programs = Path(install(wheel, folder / "environment")).parent
        (bundle,) = programs.parent.glob("lib/*/site-packages/scaffold_cli/packaged/history.bundle")
        yield _place(WHEEL, folder, programs, bundle, _variables(home))


def _place(
    name: str, folder: Path, programs: Path, template: Path, variables: Mapping[str, str]
) -> Place:
    (folder / name).mkdir()
    return Place(name, programs, template, variables, folder / name)


def _variables(home: Path) -> dict[str, str]:
    """Those of a person with git set up, who keeps what Python has compiled."""
    kept = ("PATH", "LANG", "TMPDIR")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    return {**variables, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}


def require_equal(one: Path, other: Path) -> None:
    """Raises `Unequal` unless both hold the same files, apart from git's own and from the record of
    where the template is, for which an installed `scaffold` writes its name."""
    files, others = _files(one), _files(other)
    if files != others:
        names = [name for name in files | others if files.get(name) != others.get(name)]
        raise Unequal(f"{one.name} and {other.name} differ: {', '.join(sorted(names))}")


def _files(service: Path) -> dict[str, tuple[bytes, int]]:
    paths = {path.relative_to(service): path for path in service.rglob("*") if path.is_file()}
    return {
        relative.as_posix(): (path.read_bytes(), path.stat().st_mode)
        for relative, path in paths.items()
        if relative.parts[0] != ".git" and relative.as_posix() != ANSWERS_FILE
    }


def measure(
    console: Console, places: Sequence[Place], rounds: int
) -> Mapping[str, Sequence[Round]]:
    """By the place's name."""
    taken: dict[str, list[Round]] = {place.name: [] for place in places}
    for place in places:
        place.measure(COMMANDS)  # what is only slow the first time
    for number in range(rounds):
        for place in places:
            # Whatever drifts within a round meets first the ones, then the others.
            taken[place.name].append(place.measure(COMMANDS if number % 2 else REVERSED))
        if console.is_terminal:
            console.print(f"Round {number + 1} of {rounds}", end="\r")
    return taken


REVERSED = (NEW, COPY, FIRST_COMMIT, HELP, VERSION, IMPORT_NEW, IMPORT_COPIER, IMPORT, FLOOR)
"""A commit still comes after the copy."""


# What is made of it


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one place: medians over the rounds, and ratios within each round."""

    rounds: Sequence[Round]

    def seconds(self, command: str) -> list[float]:
        return [_sample(each, command).seconds for each in self.rounds]

    def cpu_seconds(self, command: str) -> list[float]:
        return [_sample(each, command).cpu_seconds for each in self.rounds]

    def ratios(self, command: str, to: str) -> list[float]:
        """How many times as long as the other, round by round."""
        return _ratios(self.seconds(command), self.seconds(to))

    def cpu_ratios(self, command: str, to: str) -> list[float]:
        return _ratios(self.cpu_seconds(command), self.cpu_seconds(to))

    def document(self) -> dict[str, object]:
        return {
            command: {
                "seconds": round(median(self.seconds(command)), 4),
                "cpu_seconds": round(median(self.cpu_seconds(command)), 4),
                "of_copier_copy": round(median(self.ratios(command, COPY)), 3),
            }
            for command in SHOWN
        }


SHOWN = (FLOOR, IMPORT, IMPORT_COPIER, IMPORT_NEW, VERSION, HELP, COPY, COPY_AND_COMMIT, NEW)


def _sample(taken: Round, command: str) -> Sample:
    if command == COPY_AND_COMMIT:
        return taken[COPY] + taken[FIRST_COMMIT]
    return taken[command]


def _ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ones, others, strict=True)]


def judge(figures: Mapping[str, Figures]) -> list[Verdict]:
    """Each target at each place, and of one that is missed what the figures say of it."""
    verdicts = []
    for name, taken in figures.items():
        for command, most in MAX_SECONDS.items():
            seen = median(taken.seconds(command))
            why = _of_the_interpreter(taken, command) if seen > most else ""
            verdicts.append(Verdict(f"{name}: {command}", "s", most, seen, why))
        for to in (COPY, COPY_AND_COMMIT):
            seen = median(taken.ratios(NEW, to))
            why = _of_the_commit(taken) if seen > MAX_RATIO else ""
            verdicts.append(Verdict(f"{name}: {NEW}, of {to}", "", MAX_RATIO, seen, why))
    return verdicts


def _of_the_interpreter(figures: Figures, command: str) -> str:
    """A time of its own says as much of the machine as of the command."""
    floor = median(figures.seconds(FLOOR))
    times = median(figures.ratios(command, FLOOR))
    return (
        f"It takes {times:.0f} times as long as `{FLOOR}`, which takes {floor * 1e3:.0f} ms here;"
        f" where that takes {FLOOR_MS} ms, this takes {times * FLOOR_MS / 1e3:.2f} s."
    )


def _of_the_commit(figures: Figures) -> str:
    ratios = figures.ratios(NEW, COPY)
    return (
        f"The rounds are {min(ratios):.2f} to {max(ratios):.2f}. By itself the first commit, which"
        f" Copier leaves to its user, is {median(figures.ratios(FIRST_COMMIT, COPY)):.0%} of its"
        " time."
    )


def table_of(name: str, figures: Figures) -> Table:
    title = f"From the {name}: {len(figures.rounds)} rounds; seconds, and ratios within each round"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("s", "least-most", "CPU s", f"x {COPY}", "least-most", "CPU"):
        table.add_column(column, justify="right")
    for command in SHOWN:
        seconds, ratios = figures.seconds(command), figures.ratios(command, COPY)
        cells = [f"{median(seconds):.3f}", f"{min(seconds):.3f}-{max(seconds):.3f}"]
        cells.append(f"{median(figures.cpu_seconds(command)):.3f}")
        compared = [Text("")] * 3
        if command in (COPY_AND_COMMIT, NEW):
            compared = [
                Text(f"{median(ratios):.2f}", "bold"),
                Text(f"{min(ratios):.2f}-{max(ratios):.2f}"),
                Text(f"{median(figures.cpu_ratios(command, COPY)):.2f}"),
            ]
        table.add_row(command, *cells, *compared)
    return table


if __name__ == "__main__":
    sys.exit(main())
