"""Makes a release of what is committed: `make release VERSION=1.2.0`. It never publishes.

Commit, tag and distributions are made in a clone, and taken over once all of them are there: what
fails before leaves the repository as it was.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Final

import yaml
from packaging.version import InvalidVersion, Version

from scaffold_cli.environment import find_uv
from scaffold_cli.errors import ScaffoldError
from scaffold_cli.git import forget_calling_repository
from scaffold_cli.history import HISTORY_FILE, InvalidHistory, read_history

ROOT: Final = Path(__file__).resolve().parents[1]
BRANCH: Final = "main"
CHANGELOG: Final = "CHANGELOG.md"
PROJECT: Final = "pyproject.toml"
UNRELEASED: Final = "unreleased"


class Refused(Exception):
    """There is no release; the message names the problem and its remedy."""


def main(arguments: list[str], root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(prog="make release")
    parser.add_argument("version", metavar="VERSION=X.Y.Z")
    parser.add_argument("--check", action="store_true", help="change nothing")
    given = parser.parse_args(arguments)
    forget_calling_repository()
    try:
        if given.check:
            check(root, given.version, date.today())
            return
        commit, built = release(root, given.version, date.today())
    except (Refused, ScaffoldError) as error:
        sys.exit(f"error: {error}")
    print(f"\n{given.version} is commit {commit} and a tag, and in {root / 'dist'}:\n")
    for file in built:
        print(f"  {file.name}")
    print(
        "\nNothing is published. Once `make test` has passed here:\n\n"
        f"  git push origin {BRANCH} {given.version}\n"
        f"  uv publish {' '.join(f'dist/{file.name}' for file in built)}\n\n"
        "Until then it can be taken back:\n\n"
        f"  git tag --delete {given.version} && git reset --keep HEAD~1"
    )


def check(root: Path, version: str, day: date) -> Mapping[str, str]:
    """The files that the release changes, as they will be. Raises `Refused`."""
    number = _number(version)
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
    if branch != BRANCH:
        raise Refused(f"{branch} is checked out: releases are made of {BRANCH}")
    if changed := _git(root, "status", "--porcelain"):
        raise Refused(f"there are uncommitted changes: commit or stash them first\n{changed}")
    released = [Version(tag) for tag in _git(root, "tag", "--list").split() if _is_version(tag)]
    if released and number <= max(released):
        raise Refused(f"{version} is not newer than {max(released)}, the last tag")
    before = {
        name: (root / name).read_text(encoding="utf-8")
        for name in (CHANGELOG, PROJECT, HISTORY_FILE)
    }
    return {
        CHANGELOG: _with_heading(before[CHANGELOG], version, day),
        PROJECT: _with_number(before[PROJECT], version),
        HISTORY_FILE: _with_name(before[HISTORY_FILE], version),
    }


def release(root: Path, version: str, day: date) -> tuple[str, list[Path]]:
    """The commit, which bears the tag, and the files in `dist`. Raises `Refused`."""
    files = check(root, version, day)
    uv = find_uv(otherwise=" and run this again")
    with tempfile.TemporaryDirectory(prefix="release-") as workspace:
        clone = Path(workspace, root.name)
        _git(root, "clone", "--quiet", str(root), str(clone))
        for name, text in files.items():
            (clone / name).write_text(text, encoding="utf-8")
        identity = _identity(root)
        _git(clone, *identity, "commit", "--quiet", "--all", "--message", f"Release {version}")
        _git(clone, *identity, "tag", "--annotate", "--message", f"Release {version}", version)
        # What builds is what this environment holds: nothing is asked of an index.
        flags = ["--no-build-isolation", "--python", sys.executable]
        _run(clone, uv, "build", *flags, "--out-dir", "dist")
        _git(root, "fetch", "--quiet", "--no-tags", str(clone), BRANCH)
        _git(root, "merge", "--quiet", "--ff-only", "FETCH_HEAD")
        _git(root, "fetch", "--quiet", str(clone), f"refs/tags/{version}:refs/tags/{version}")
        (root / "dist").mkdir(exist_ok=True)
        built = sorted((clone / "dist").glob("*-*"))
        copies = [Path(shutil.copy(file, root / "dist")) for file in built]
    return _git(root, "rev-parse", "--short", "HEAD"), copies


def _number(version: str) -> Version:
    try:
        number = Version(version)
    except InvalidVersion as error:
        raise Refused(f'"{version}" is no version by PEP 440: give VERSION=1.2.0') from error
    if str(number) != version:
        raise Refused(f"{version} is written {number}: that is what tag and wheel are called by")
    if number.local:
        raise Refused(
            f"{version} has a local part, which no index takes: leave +{number.local} out"
        )
    return number


def _is_version(tag: str) -> bool:
    try:
        Version(tag)
    except InvalidVersion:
        return False
    return True


def _with_heading(changelog: str, version: str, day: date) -> str:
    """What is unreleased under the version's own heading, below an empty one."""
    parts = re.split(r"(?m)^(## .*\n)", changelog)
    if parts.count("## Unreleased\n") != 1:
        raise Refused(f"{CHANGELOG} needs one heading `## Unreleased`")
    place = parts.index("## Unreleased\n")
    if not parts[place + 1].strip():
        raise Refused(f"{CHANGELOG} has nothing under Unreleased: say what is new in {version}")
    parts.insert(place + 1, f"\n## {version} ({day.isoformat()})\n")
    return "".join(parts)


def _with_number(project: str, version: str) -> str:
    text = re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project)
    if tomllib.loads(text)["project"]["version"] != version:
        raise Refused(f'{PROJECT} needs a line `version = "..."` for the project')
    return text


def _with_name(history: str, version: str) -> str:
    """What is unreleased under the version's name, which YAML might take for a number."""
    name = version if isinstance(yaml.safe_load(version), str) else f'"{version}"'
    text = re.sub(rf"(?m)^{UNRELEASED}:", f"{name}:", history)
    try:
        told, named = [*read_history(history.encode())], [*read_history(text.encode())]
    except InvalidHistory as error:
        raise Refused(f"{error}: mend it first") from error
    # The last of two equal names would hide the other.
    are_versions = len(told) == len(named) and all(map(_is_version, named))
    if not are_versions or [*named, version] != sorted([*named, version], key=Version):
        raise Refused(
            f"{HISTORY_FILE} lists {', '.join(told)}: name versions before {version} in their"
            f" order, and then `{UNRELEASED}:`"
        )
    return text


def _identity(root: Path) -> list[str]:
    """The repository's own, which a clone does not have."""
    names = ("user.name", "user.email")
    found = {name: _git(root, "config", "--get", "--default", "", name) for name in names}
    return [word for name, value in found.items() if value for word in ("-c", f"{name}={value}")]


def _git(folder: Path, *arguments: str) -> str:
    return _run(folder, "git", *arguments)


def _run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = (result.stderr + result.stdout).strip()
        raise Refused(f"{Path(command[0]).name} {command[1]} failed; nothing is released\n{said}")
    return result.stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
