"""`scaffold check`: runs a service's own checklist in its own environment, and says what it said.

The items, what they ask for and the verdict are the service's, in its `tests/checklist`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import environment
from .errors import ScaffoldError, UsageError

CHECKLIST = "tests/checklist"
NEARLY_READY, NOT_READY = 1, 3
OPEN_ITEMS_OF_THE_UNREADY = 3
STOP_SECONDS = 20.0
SHOWN_LINES = 15
WIDTH_WITHOUT_TERMINAL = 110
SHOWN = {True: Text("yes", "green"), False: Text("no", "bold red"), None: Text("-", "dim")}


class NotChecked(ScaffoldError):
    """The checklist gave no result; that is no verdict on the service."""

    status = 4


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Item:
    """`seen` is the evidence, or the reason why there is none. `passed` is None where nothing could
    be seen, which is neither a yes nor open."""

    step: str
    question: str
    passed: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the checklist said; `document` is the whole of it, with the service's name."""

    items: tuple[Item, ...]
    verdict: str
    document: Mapping[str, object]

    @property
    def passed(self) -> int:
        return sum(item.passed is True for item in self.items)

    @property
    def status(self) -> int:
        """The exit status that tells a script the verdict."""
        still_open = sum(item.passed is False for item in self.items)
        if still_open >= OPEN_ITEMS_OF_THE_UNREADY:
            return NOT_READY
        return NEARLY_READY if still_open else 0


def find_service(folder: Path) -> Service:
    """The service in `folder`. Raises `UsageError` for a folder that holds none."""
    try:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UsageError(f"{folder} {what}: give the folder of a service")
        missing = [n for n in (".copier-answers.yml", CHECKLIST) if not (folder / n).exists()]
        if missing:
            raise UsageError(
                f"{folder} is no service of this template, it has no {' and no '.join(missing)}:"
                " give the folder that `scaffold new` made"
            )
        answers = yaml.safe_load((folder / ".copier-answers.yml").read_text(encoding="utf-8"))
        return Service(str(answers["project_name"]), folder)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}; give the folder of a service") from error
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / '.copier-answers.yml'} names no project: restore it as Copier wrote it"
        ) from error


def run(uv: str, service: Service, console: Console) -> Report:
    """Run the checklist; nothing of it runs on when this returns or raises.

    Raises `NotChecked`, with the last that was printed, when there is no result.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="scaffold-") as temporary:
            report, output = Path(temporary, "report.json"), Path(temporary, "output")
            with environment.progress(f"Running the checklist of {service.name}", console):
                status = _run_tests(uv, service.folder, report, output)
            if report.exists():
                return _read(report, service)
            printed = output.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError as error:
        raise NotChecked(
            f"the checklist could not be run: {error.strerror}: {error.filename}; mend that first"
        ) from error
    raise _no_result(service, status, printed)


def print_report(console: Console, report: Report) -> None:
    """The guide's table, then the verdict."""
    width = console.width if console.is_terminal else WIDTH_WITHOUT_TERMINAL
    console.print(_table(report.items), width=width, soft_wrap=False)
    line = f"{report.passed} of {len(report.items)}: {report.verdict}"
    console.print(line, style="bold green" if report.status == 0 else "bold red")


def _run_tests(uv: str, folder: Path, report: Path, output: Path) -> int:
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [uv, "run", "pytest", "--quiet", CHECKLIST],
            cwd=folder,
            env={
                **environment.service_variables(),
                "CHECKLIST_REPORT": str(report),
                "PYTEST_ADDOPTS": "",  # the caller's own
            },
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            # Ctrl-C is ours to hear: what has been started ends in order, and we wait for it.
            start_new_session=True,
        )
    try:
        return process.wait()
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the tests to end what they started, then insists; sooner when asked once more."""
    if not hasattr(os, "killpg"):
        process.kill()  # on Windows uv takes what it started with it
        process.wait()
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if process.poll() is not None:
            break
        _signal_all(process, number)
        try:
            process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
            continue
    _signal_all(process, signal.SIGKILL)
    process.wait()


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the tests, and to every service that they have started."""
    # Gone already; macOS refuses where it has only been forgotten.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _read(report: Path, service: Service) -> Report:
    try:
        document = json.loads(report.read_text(encoding="utf-8"))
        items = tuple(
            Item(
                str(item["step"]),
                str(item["item"]),
                item["passed"] is True,
                str(item["evidence"] if item["passed"] is True else item["reason"]),
            )
            for item in document["items"]
        )
        return Report(items, str(document["verdict"]), {"service": service.name, **document})
    except (ValueError, KeyError, TypeError) as error:
        raise NotChecked(
            f"the report of {service.folder / CHECKLIST} cannot be read: restore that folder as the"
            " template rendered it"
        ) from error


def _no_result(service: Service, status: int, printed: str) -> NotChecked:
    lines = printed.splitlines()[-SHOWN_LINES:]
    said = "".join(f"\n  {line}" for line in lines) or " (it printed nothing)"
    return NotChecked(
        f"the checklist of {service.name} gave no result (status {status}):{said}\n"
        f"Once that is mended, see it run: cd {shlex.quote(str(service.folder))}"
        f" && uv run pytest {CHECKLIST}"
    )


def _table(items: Sequence[Item]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("item", ratio=2, max_width=41)
    table.add_column("check")
    table.add_column("evidence", ratio=3)
    for step, group in groupby(items, lambda item: item.step):
        table.add_row(Text(step, "bold"))
        for item in group:
            table.add_row(Text(item.question), SHOWN[item.passed], Text(item.seen))
        table.add_section()
    return table
