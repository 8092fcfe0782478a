"""Whether `versions.yml` declares all that the template's history has renamed or removed."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from scaffold_cli.history import HISTORY_FILE, read_history

from ..cli.conftest import git


def problems(root: Path) -> Iterator[str]:
    """What is wrong with the working tree's declarations, measured by the files of the tags."""
    history = read_history((root / HISTORY_FILE).read_bytes())
    renamed = {old: new for told in history.values() for old, new in told.renamed.items()}
    given_up = {*renamed, *(name for told in history.values() for name in told.removed)}
    present = set(rendered_names(root, git(root, "ls-files", "-z").split("\0"), excluded(root)))
    for tag in git(root, "tag", "--list").split():
        names = git(root, "ls-tree", "-r", "-z", "--name-only", tag).split("\0")
        for name in sorted(
            {*rendered_names(root, names, excluded(root, tag))} - present - given_up
        ):
            yield f"{tag} has {name}, which is gone and not declared"
    for name in sorted(given_up & present):
        yield f"{name} is declared as gone, and there again"
    for old, new in renamed.items():
        if new not in present | given_up:
            yield f"{old} is renamed to {new}, which is not there"
    for name in sorted(given_up - {pattern.removeprefix("/") for pattern in excluded(root)}):
        yield f"_exclude in copier.yml lacks /{name}: `copier update` would delete an owner's edits"


def excluded(root: Path, tag: str | None = None) -> list[str]:
    """The patterns of `_exclude` that hold whatever the answers are."""
    text = git(root, "show", f"{tag}:copier.yml") if tag else (root / "copier.yml").read_text()
    return [pattern for pattern in yaml.safe_load(text)["_exclude"] if "{" not in pattern]


def rendered_names(root: Path, names: list[str], patterns: list[str]) -> Iterator[str]:
    """The template's files by their names in a service, without those that never get there."""
    for name in names:
        if name.startswith("template/"):
            rendered = name.removeprefix("template/").removesuffix(".jinja")
            if not any(fnmatchcase(rendered, pattern) for pattern in patterns):
                yield rendered
