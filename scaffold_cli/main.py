"""The commands and their flags; a failure becomes a line on stderr and an exit status.

What a command is made of is imported when it is called: nobody waits for it who asks for help, or
for whom the shell completes a word.
"""

from __future__ import annotations

import gc
import importlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from . import git
from .errors import Cancelled, ScaffoldError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from .check import Report
    from .questionnaire import Answer, OpenQuestion

app = typer.Typer(
    help="Make an LLM service whose production guardrails are wired, tested and proven to fire.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """The console script."""
    # To look for cycles among all that Copier makes takes longer than this process needs them gone.
    gc.disable()
    git.forget_calling_repository()
    _exit_cleanly_on_signals()
    try:
        # Typer's standalone mode would print a usage error as a panel of several lines.
        sys.exit(typer.main.get_command(app)(standalone_mode=False))
    except ScaffoldError as error:
        _fail(str(error), error.status)
    except typer.TyperException as error:
        if not error.format_message():  # `scaffold` alone, which has printed its help
            sys.exit(2)
        _fail(f"{error.format_message()} See `scaffold --help`.", 2)


def _exit_cleanly_on_signals() -> None:
    """Let a closed terminal or a `kill` unwind the stack, so that what was begun is cleaned up."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _exit_cleanly)


def _exit_cleanly(number: int, _frame: object) -> NoReturn:
    # A shell that is hung up passes it on once more, and it must not end us before we are done.
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.exit(128 + number)


def _fail(message: str, status: int) -> NoReturn:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    console.print(Text.assemble(("error: ", "red"), message), soft_wrap=True)
    sys.exit(status)


def _load_meanwhile(module: str) -> None:
    """Import what is needed later, while git is asked or a person."""

    def load() -> None:
        # Whoever needs it meets the same error, and tells it.
        with suppress(Exception):
            importlib.import_module(module)

    threading.Thread(target=load, daemon=True).start()


def _complete(question: str) -> Callable[[str], Iterator[tuple[str, str]]]:
    def complete(incomplete: str) -> Iterator[tuple[str, str]]:
        for choice in next(q for q in _open_questions() if q.name == question).choices:
            if choice.value.startswith(incomplete):
                yield choice.value, choice.description

    return complete


def _show_version(wanted: bool) -> None:
    if wanted:
        from .source import installed_version

        print(f"scaffold {installed_version()}")
        raise typer.Exit


@app.callback()
def scaffold(
    _version: Annotated[
        bool, typer.Option("--version", help="Show it.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """What holds for every command."""


@app.command()
def new(
    dest: Annotated[
        Path, typer.Argument(help="The folder to make.", metavar="DEST", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="The service's name; else the folder's.", metavar="NAME")
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option(
            help="The web framework.", metavar="NAME", autocompletion=_complete("framework")
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where state lives.", metavar="NAME", autocompletion=_complete("storage")
        ),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="A model provider; repeatable, the first is the primary.",
            metavar="NAME",
            autocompletion=_complete("providers"),
        ),
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Ask nothing: the rest takes its default.")
    ] = False,
    answers: Annotated[
        Path | None, typer.Option(help="A YAML file of answers; flags win over it.", metavar="FILE")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be written, and write nothing.")
    ] = False,
    no_install: Annotated[
        bool, typer.Option("--no-install", help="Leave `uv sync` to you.")
    ] = False,
) -> None:
    """Make a new service in DEST, asking for what the flags leave open.

    `scaffold options` lists the choices.
    """
    from .answers import from_file, from_flags, settle
    from .environment import find_uv
    from .folder import require_usable
    from .hint import tell_of_newer_version
    from .new import create, print_files, print_summary
    from .questionnaire import Questionnaire
    from .source import template_source

    _load_meanwhile("copier")
    console = _console()
    source = template_source()
    destination = dest.resolve()
    require_usable(destination, source.root)
    uv = None if no_install or dry_run else find_uv()
    questionnaire = Questionnaire(source.root, destination.name)
    given = from_file(answers, questionnaire) if answers else {}
    given |= from_flags(name, framework, storage, provider or [])
    try:
        settled, asked = settle(questionnaire, given, use_defaults=defaults)
        print_summary(console, source, settled, destination)
        if dry_run:
            print_files(console, source, settled, destination)
            return
        if asked:
            from .prompts import confirm

            if not confirm("Make it?"):
                raise Cancelled("nothing was written")
        create(console, source, settled, destination, uv)
    except (KeyboardInterrupt, EOFError) as error:
        raise Cancelled("cancelled: nothing is left behind") from error
    console.print(f"\n{questionnaire.next_steps(settled, dest)}")
    tell_of_newer_version(dest)


@app.command()
def update(
    dest: Annotated[
        Path, typer.Argument(help="The service's folder; else the current one.", metavar="DEST")
    ] = Path("."),
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Another answer, such as storage=sqlite; repeatable. Commas separate providers,"
            " the first is the primary.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="A version of the template; else the latest.", metavar="VERSION"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the diff, and write nothing.")
    ] = False,
) -> None:
    """Take the template's changes, or other answers, into the service in DEST.

    Your edits stay. What cannot be merged is marked as conflicts, and the exit status is 1.
    """
    from .hint import tell_of_newer_version
    from .replace import apply
    from .update import plan, print_done, print_plan, require_updatable

    console = _console()
    folder = dest.resolve()
    record = require_updatable(folder)
    try:
        planned = plan(folder, record, assignments or [], to)
        if planned is None:
            console.print(f"{folder.name} is up to date: template {record.version}")
            return
        if dry_run:
            print_plan(console, planned)
            return
        apply(folder, planned.merge)
    except (KeyboardInterrupt, EOFError) as error:
        raise Cancelled("cancelled: the service is as it was") from error
    print_done(console, dest, planned)
    if to is not None:  # else the newest is what it has now
        tell_of_newer_version(dest)


@app.command()
def check(
    dest: Annotated[
        Path | None,
        typer.Argument(
            help="The service's folder; else the current one.", metavar="DEST", show_default=False
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="A running service instead: what can be seen of it from outside.", metavar="URL"
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            help="With --url: the environment variable that has one of its API keys.",
            metavar="NAME",
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --url: allow a few model calls, which cost.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Put the service in DEST to the test, item by item of the guide's checklist.

    Or, with --url, look at a running one from outside: nothing is changed and no
    model is called, unless --probe allows it.

    Exit status: 0 when no item is a no, 1 with one or two open, 3 with three
    or more (not ready for production), 4 when the checklist gave no result.
    """
    from rich.console import Console

    from .check import print_report
    from .hint import tell_of_newer_version

    console = _console()
    progress_console = Console(stderr=True) if as_json else console
    try:
        if url is None:
            report = _check_folder(dest, api_key_env, probe, progress_console)
        else:
            report = _check_url(dest, url, api_key_env, probe, progress_console)
    except (KeyboardInterrupt, EOFError) as error:
        raise Cancelled("cancelled: what was started has ended") from error
    if as_json:
        print(json.dumps(report.document, indent=2))
    else:
        print_report(console, report)
        if url is None:
            tell_of_newer_version(dest or Path("."))
    raise typer.Exit(report.status)


def _check_folder(
    dest: Path | None, api_key_env: str | None, probe: bool, console: Console
) -> Report:
    from .check import find_service, run
    from .environment import find_uv

    if api_key_env is not None or probe:
        raise UsageError("--api-key-env and --probe are about a running service: give its --url")
    service = find_service((dest or Path(".")).resolve())
    return run(find_uv(otherwise=" and run this again"), service, console)


def _check_url(
    dest: Path | None, url: str, api_key_env: str | None, probe: bool, console: Console
) -> Report:
    # Not in `check` itself: the half second of an HTTP client.
    from . import outside

    if dest is not None:
        raise UsageError("DEST is a service's code and --url a running one: give one of them")
    if probe and api_key_env is None:
        raise UsageError("--probe calls models, which takes a key: name its --api-key-env too")
    key = None if api_key_env is None else outside.read_key(api_key_env)
    return outside.examine(url, key, console, probe=probe)


@app.command()
def options(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the questions, their choices and defaults."""
    questions = _open_questions()
    if as_json:
        print(json.dumps({question.name: _as_json(question) for question in questions}, indent=2))
        return
    from rich.text import Text

    from .answers import FLAGS

    console = _console()
    for question in questions:
        console.print(Text.assemble((FLAGS[question.name], "bold"), f"  {question.help}"))
        for choice in question.choices:
            mark = "*" if question.is_default(choice) else " "
            console.print(f"  {mark} {choice.value:<18} {choice.description}")
    console.print("* is the default. The first --provider is the primary.")


def _open_questions() -> list[OpenQuestion]:
    """Every question, as it stands when the ones before it took their defaults."""
    from .questionnaire import Questionnaire
    from .source import template_root

    questions: list[OpenQuestion] = []

    def take_default(question: OpenQuestion) -> Answer:
        questions.append(question)
        return question.default

    Questionnaire(template_root(), "my-service").answer({}, take_default)
    return questions


def _as_json(question: OpenQuestion) -> dict[str, object]:
    from .answers import FLAGS

    return {
        "flag": FLAGS[question.name],
        "help": question.help,
        "multiple": question.multiple,
        "choices": [asdict(choice) for choice in question.choices],
        "default": question.default,
    }


def _console() -> Console:
    """Plain text to stdout: a path may look like markup. Colour is rich's to decide (NO_COLOR)."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
