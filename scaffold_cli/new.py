"""`scaffold new`: a service rendered, installed and committed, or nothing at all."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from . import environment, git
from .errors import ScaffoldError
from .folder import NewFolder, remove
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
    # In short lines: the console breaks none, so that a path can be copied.
    if source.version is None:
        console.print(
            "Note: the template has no commit,\n"
            "      so this service cannot be updated from it later."
        )
    elif source.dirty:
        console.print(
            "Note: the template's uncommitted changes are rendered too;\n"
            f"      the service records {source.version} as its version."
        )


def print_files(
    console: Console, source: TemplateSource, answers: Answers, destination: Path
) -> None:
    """The files that the service would have. Raises `ScaffoldError` as `create` does."""
    try:
        temporary = tempfile.TemporaryDirectory(prefix="scaffold-")
    except OSError as error:
        raise ScaffoldError(
            f"no temporary folder can be made: {error.strerror};"
            " make room there, or set TMPDIR, and run this again"
        ) from error
    with temporary as folder:
        staging = Path(folder, destination.name)
        _render(source, answers, staging)
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
        _render(source, answers, folder.staging)
        folder.place()
        if uv:
            problems += _install(console, uv, destination)
        if repository:
            console.print(f"Left to you to commit: it lies inside the repository {repository}")
        else:
            problems += _commit(answers, source, destination)
    if problems:
        raise ScaffoldError("\n".join(problems))


def _render(source: TemplateSource, answers: Answers, folder: Path) -> None:
    try:
        render(source, answers, folder)
    except ScaffoldError as error:
        raise ScaffoldError(
            f"{error}; nothing is left behind, so run this again once that is mended"
        ) from error


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
        # Half a repository, with a stale lock perhaps, would stand in the remedy's way.
        remove(destination / ".git")
        said = error.stderr.strip() or f"git ended with status {error.returncode}"
        return [
            f"the service is in {destination}, but not committed: {said}\n"
            f"Run this once that is mended: cd {shlex.quote(str(destination))}"
            " && git init && git add --all && git commit"
        ]
    return []
