"""Where the template comes from, and what a rendered service remembers of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import git
from .errors import UsageError

TEMPLATE_VARIABLE = "SCAFFOLD_TEMPLATE"
HISTORY = "history.bundle"
INSTALLED = "scaffold-cli"
"""What a service records as its template that was rendered by an installed scaffold: whichever one
that is, on whatever machine, has the template and its history with it."""
PACKAGED = Path(__file__).resolve().with_name("packaged")
"""What `tools/build_hook.py` puts into a wheel; a checkout has none."""


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A template on this disk, as Copier takes it and as the service will remember it.

    `root` holds its questions. `recorded` is an absolute path or `INSTALLED`, so that an update
    finds it from anywhere. `ref` is None where there is no repository, `version` where there is no
    commit that a later update could start from.
    """

    root: Path
    recorded: str
    ref: str | None
    version: str | None
    dirty: bool


def installed_version() -> str:
    return metadata.version(INSTALLED)


def template_root() -> Path:
    """The folder of `copier.yml`: the one that `SCAFFOLD_TEMPLATE` names, the wheel's, or the
    checkout's that this package is part of.

    Raises `UsageError` when it holds no template.
    """
    own = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[1]
    root = Path(os.environ.get(TEMPLATE_VARIABLE) or own).resolve()
    if not (root / "copier.yml").is_file():
        raise UsageError(
            f"no template in {root}: run `uv run scaffold` in a clone of the template's repository,"
            f" or set {TEMPLATE_VARIABLE} to one"
        )
    return root


def template_source() -> TemplateSource:
    """The template with what is known of its versions. Raises `UsageError`, also without git."""
    root = template_root()
    git.require_git()
    if root == PACKAGED:
        packaged = (root / "version").read_text(encoding="utf-8").strip()
        return TemplateSource(root, INSTALLED, ref="HEAD", version=packaged, dirty=False)
    if git.enclosing_repository(root) != root:
        return TemplateSource(root, str(root), ref=None, version=None, dirty=False)
    version, dirty = git.describe(root), git.is_dirty(root)
    # By name, Copier need not look once more whether there is anything uncommitted.
    ref = "HEAD" if dirty else version or "HEAD"
    return TemplateSource(root, str(root), ref=ref, version=version, dirty=dirty)


def repository_of(recorded: str) -> str:
    """Where the template that a service records can be cloned from on this machine.

    Raises `UsageError` where that is to be the installed one, and there is none.
    """
    if recorded != INSTALLED:
        return recorded
    root = template_root()
    return str(root / HISTORY if root == PACKAGED else root)


def is_packaged(repository: str) -> bool:
    """Whether it is the one that came with this package in its wheel."""
    return Path(repository) == PACKAGED / HISTORY
