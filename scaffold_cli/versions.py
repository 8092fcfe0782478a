"""The versions of a template: tags by PEP 440 in the repository that a service records."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from . import git
from .errors import ScaffoldError, UsageError, last_line
from .merge import ANSWERS_FILE
from .source import (
    INSTALLED,
    TEMPLATE_VARIABLE,
    installed_version,
    is_packaged,
    repository_of,
)

NAMED_VERSIONS = 5


@dataclass(frozen=True, slots=True)
class Target:
    """The version to update to, and the commits of both in the template's repository."""

    version: str
    commit: str
    recorded_commit: str
    template_root: Path


def find_target(source: str, recorded_version: str, to: str | None, clone: Path) -> Target:
    repository = repository_of(source)
    try:
        git.clone(cloneable(repository), clone)
    except subprocess.CalledProcessError as error:
        raise ScaffoldError(
            _not_cloned(source, repository, last_line(error.stderr or error))
        ) from error
    recorded = git.commit_of(clone, recorded_version)
    if recorded is None:
        raise ScaffoldError(_not_had(source, repository, recorded_version))
    commit = _commit_named(clone, to) if to else _latest_commit(clone, recorded)
    version = git.describe(clone, commit) or commit
    if commit != recorded and git.is_ancestor(clone, commit, recorded):
        raise UsageError(
            f"--to {to}: {version} is older than {recorded_version}, which the service has; to go"
            " back, revert the commit of the update in the service's repository"
        )
    if not git.take_file(clone, commit, "copier.yml"):
        raise UsageError(f"{version} of the template has no copier.yml: choose another with --to")
    return Target(version, commit, recorded, clone)


def _not_cloned(source: str, repository: str, reason: str) -> str:
    if source == INSTALLED:
        return (
            f"the template {repository} cannot be cloned: {reason}; install scaffold anew, or set"
            f" {TEMPLATE_VARIABLE} to a clone of the template's repository"
        )
    return (
        f"the template {source} cannot be cloned: {reason}; correct _src_path in {ANSWERS_FILE}"
        f" ({INSTALLED} is the template of this scaffold), commit that, then run this again"
    )


def _not_had(source: str, repository: str, version: str) -> str:
    if source != INSTALLED:
        return (
            f"the template {source} has no {version}, which the service was rendered from: fetch it"
            f" there, or name a repository that has it as _src_path in {ANSWERS_FILE}"
            f" ({INSTALLED} is the template of this scaffold), and commit that"
        )
    if not is_packaged(repository):
        return (
            f"the template {repository} has no {version}, which the service was rendered from:"
            " `git fetch --tags` there, then run this again"
        )
    return (
        f"scaffold {installed_version()} has no template {version}, which the service was"
        f" rendered from: install a newer one (`uv tool upgrade {INSTALLED}`, or `pip install"
        f" --upgrade {INSTALLED}`), or set {TEMPLATE_VARIABLE} to a clone of the template's"
        " repository that has it"
    )


def latest_release(tags: Iterable[str]) -> str | None:
    """The newest of the tags that are versions by PEP 440, those before a release left out."""
    releases = [tag for tag in filter(_is_version, tags) if not Version(tag).is_prerelease]
    return max(releases, key=Version, default=None)


def released(recorded: str) -> str | None:
    """The version that a service records or, as `git describe` names commits, comes after.

    Nothing for a mere hash.
    """
    tag = re.sub(r"-[0-9]+-g[0-9a-f]+$", "", recorded)
    return tag if _is_version(tag) else None


def _commit_named(clone: Path, to: str) -> str:
    commit = git.commit_of(clone, to)
    if commit is None:
        versions = ", ".join(reversed(_versions(clone)[-NAMED_VERSIONS:])) or "no tag"
        raise UsageError(f"--to {to}: the template has no such version; its latest: {versions}")
    return commit


def _latest_commit(clone: Path, recorded: str) -> str:
    """The latest version's, HEAD's where nothing is tagged; never one before the recorded."""
    release = latest_release(git.tags(clone))
    latest = git.commit_of(clone, f"refs/tags/{release}" if release else "HEAD")
    return recorded if latest is None or git.is_ancestor(clone, latest, recorded) else latest


def _versions(clone: Path) -> list[str]:
    """The tags that are versions by PEP 440, in ascending order."""
    return sorted(filter(_is_version, git.tags(clone)), key=Version)


def _is_version(tag: str) -> bool:
    try:
        Version(tag)
    except InvalidVersion:
        return False
    return True


def cloneable(source: str) -> str:
    """A source in Copier's shorthand, as git takes it."""
    for alias, host in (("gh:", "https://github.com/"), ("gl:", "https://gitlab.com/")):
        if source.startswith(alias):
            return host + source.removeprefix(alias).lstrip("/")
    source = source.removeprefix("git+")
    return str(Path(source).expanduser()) if source.startswith("~") else source
