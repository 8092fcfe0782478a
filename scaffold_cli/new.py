"""`scaffold new`: a service rendered, installed and committed, or nothing at all."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from . import environment, git
from .errors import ScaffoldError
from .folder import NewFolder
from .questionnaire import Answers
from .render import render
from .source import TemplateSource


def print_summary(
    console: Console, source: TemplateSource, answers: Answers, destination: Path
) -> None:
    """What is about to be made, and what the source will mean for later updates."""
    console.print()
    for name, answer in {**answers, "destination": str(destination)}.items():
        shown = ", ".join(answer) if isinstance(answer, list) else answer
        console.print(f"{name.replace('_', ' '):<18}{shown}")
    if source.version is None:
        console.print(
            "Note: the template has no commit, so this service cannot be updated from it later."
        )
    elif source.dirty:
        console.print(
            "Note: the template's uncommitted changes are rendered too;"
            f" the service records {source.version} as its version."
        )


def print_files(
    console: Console, source: TemplateSource, answers: Answers, destination: Path
) -> None:
    """The files that the service would have."""
    with tempfile.TemporaryDirectory(prefix="scaffold-") as folder:
        staging = Path(folder, destination.name)
        render(source, answers, staging)
        files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    console.print(f"Would write {len(files)} files to {destination}:")
    for file in files:
        console.print(f"  {file.as_posix()}")


def create(
    console: Console, source: TemplateSource, answers: Answers, destination: Path, uv: str | None
) -> None:
    """Render into place, then install (with `uv`) and commit.

    A failure of the last two raises `ScaffoldError` and leaves the service, which is whole by then;
    any earlier one, and Ctrl-C at any time, leaves nothing.
    """
    problems = []
    repository = git.enclosing_repository(destination)
    with NewFolder(destination) as folder:
        render(source, answers, folder.staging)
        folder.place()
        if uv:
            problems += _install(console, uv, destination)
        if repository:
            console.print(f"Left to you to commit: it lies inside the repository {repository}")
        else:
            problems += _commit(answers, source, destination)
    if problems:
        raise ScaffoldError("\n".join(problems))


def _install(console: Console, uv: str, destination: Path) -> list[str]:
    try:
        environment.install(uv, destination, console)
    except ScaffoldError as error:
        return [
            f"the service is in {destination}, but has no environment yet: {error}\n"
            f"Run this once that is mended: cd {shlex.quote(str(destination))} && uv sync"
        ]
    return []


def _commit(answers: Answers, source: TemplateSource, destination: Path) -> list[str]:
    version = f" from template {source.version}" if source.version else ""
    try:
        git.commit_all(destination, f"Start {answers['project_name']}{version}")
    except subprocess.CalledProcessError as error:
        return [
            f"the service is in {destination}, but not committed: {error.stderr.strip()}\n"
            f"Run this once that is mended: cd {shlex.quote(str(destination))}"
            " && git init && git add --all && git commit"
        ]
    return []
