"""One call of Copier, its failures in one line, and the record that a later update starts from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from .errors import ScaffoldError
from .merge import ANSWERS_FILE
from .questionnaire import Answers
from .source import TemplateSource, repository_of


def render(source: TemplateSource, answers: Answers, folder: Path) -> None:
    """Render the template into `folder`. Raises `ScaffoldError` for whatever goes wrong."""
    with _failures_in_one_line():
        _copy(source.recorded, source.ref, answers, folder)
        if source.dirty:
            # From a working tree with changes Copier renders, and records, a temporary commit of
            # its own, which no later update would find.
            _record(folder, "_commit", source.version)


def render_version(source: str, commit: str, answers: Answers, folder: Path) -> None:
    """Render a commit of the template that a service names as its own. Raises as `render` does.

    By its hash, a commit is rendered without what lies uncommitted beside it.
    """
    with _failures_in_one_line():
        _copy(source, commit, answers, folder)


def _copy(source: str, ref: str | None, answers: Answers, folder: Path) -> None:
    # Imported here: half a second that `--help` and shell completion do not need.
    import copier

    repository = repository_of(source)
    with warnings.catch_warnings():
        # Of dirty and shallow checkouts; what matters of that, the summary says.
        warnings.simplefilter("ignore")
        copier.run_copy(
            repository,
            folder,
            data=dict(answers),
            vcs_ref=ref,
            defaults=True,
            quiet=True,
        )
    if repository != source:
        _record(folder, "_src_path", source)


@contextmanager
def _failures_in_one_line() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ScaffoldError(f"the template could not be rendered: {_first_line(error)}") from error


def _record(folder: Path, key: str, value: str | None) -> None:
    """Name a source and a commit that a later update finds; nothing where there is none."""
    answers_file = folder / ANSWERS_FILE
    line = yaml.safe_dump({key: value}) if value else ""
    text = answers_file.read_text(encoding="utf-8")
    answers_file.write_text(
        re.sub(rf"^{key}:.*\n(?:  .*\n)*", lambda _: line, text, flags=re.MULTILINE),
        encoding="utf-8",
    )


def _first_line(error: Exception) -> str:
    # A command that Copier ran prints as its whole invocation; its stderr says what happened.
    text = str(getattr(error, "stderr", "") or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
