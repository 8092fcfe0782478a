"""Where the template comes from, and what a rendered service remembers of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import git
from .errors import UsageError

TEMPLATE_VARIABLE = "SCAFFOLD_TEMPLATE"


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A template on this disk, as Copier takes it and as the service will remember it.

    `root` is absolute, so that an update finds it from anywhere. `ref` is None where there is no
    repository, `version` where there is no commit that a later update could start from.
    """

    root: Path
    ref: str | None
    version: str | None
    dirty: bool


def template_root() -> Path:
    """The checkout that this package is part of, or the folder that `SCAFFOLD_TEMPLATE` names.

    Raises `UsageError` when it holds no template.
    """
    root = Path(os.environ.get(TEMPLATE_VARIABLE) or Path(__file__).parents[1]).resolve()
    if not (root / "copier.yml").is_file():
        raise UsageError(
            f"no template in {root}: run `uv run scaffold` in a clone of the template's repository,"
            f" or set {TEMPLATE_VARIABLE} to one"
        )
    return root


def template_source() -> TemplateSource:
    """The template's root with what git knows of it. Raises `UsageError`, also without git."""
    root = template_root()
    git.require_git()
    if git.enclosing_repository(root) != root:
        return TemplateSource(root, ref=None, version=None, dirty=False)
    return TemplateSource(root, ref="HEAD", version=git.describe(root), dirty=git.is_dirty(root))
