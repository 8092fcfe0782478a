"""Puts the template into the wheel and the sdist, as hatchling builds them.

A wheel carries the commits themselves: whatever commit a service was rendered from, in a checkout
or by another wheel, is found again in every later one (decision 0027). An editable installation
needs none of it, since it lies in the checkout.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.version import InvalidVersion, Version

PACKAGED = "scaffold_cli/packaged"
QUESTIONS, HISTORY, VERSION = "copier.yml", "history.bundle", "version"
# A git hook names its own repository in these.
LOCAL_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
)


class TemplateHook(BuildHookInterface[BuilderConfig]):
    """Beside the history, HEAD's questions and name: to read these takes neither git nor time."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        packaged = Path(self.root, PACKAGED)
        if not packaged.is_dir():  # an sdist has it
            self._temporary = tempfile.TemporaryDirectory(prefix="scaffold-")
            packaged = Path(self._temporary.name)
            pack(Path(self.root), packaged, Version(self.metadata.version))
            if _git(Path(self.root), "status", "--porcelain"):
                self.app.display_warning("the template is HEAD's: commit what is to be in it")
        for name in (QUESTIONS, HISTORY, VERSION):
            build_data["force_include"][str(packaged / name)] = f"{PACKAGED}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_temporary"):
            self._temporary.cleanup()


def pack(root: Path, folder: Path, version: Version) -> None:
    """Write the template of the repository `root` into `folder`, with all its history so far.

    From the same commits and tags the same git writes the same bytes. Raises `SystemExit` where
    there is no whole repository, and with what git said.
    """
    if not (root / ".git").exists():
        raise SystemExit(
            f"{root} is no clone of the template's repository, and no sdist of it: build in one"
        )
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise SystemExit(
            f"{root} is a shallow clone, and services of older versions could not be updated:"
            " run `git fetch --unshallow --tags`, then build again"
        )
    references = ["HEAD", *(f"refs/tags/{tag}" for tag in _tags(root, version))]
    with tempfile.TemporaryDirectory(prefix="scaffold-") as workspace:
        taken, clone = Path(workspace, "taken.bundle"), Path(workspace, "clone.git")
        # A bundle first: it may be made from a clone whose files git has yet to fetch.
        _git(root, "bundle", "create", "--quiet", str(taken), *references)
        _git(root, "clone", "--quiet", "--bare", str(taken), str(clone))
        # How a repository happens to be packed is its own affair, and so is what two threads find.
        alike = ["-c", "pack.threads=1", "-c", "pack.compression=-1"]
        _git(clone, *alike, "repack", "-adFq")
        history = str(folder.resolve() / HISTORY)
        _git(clone, *alike, "bundle", "create", "--quiet", history, *references)
        (folder / QUESTIONS).write_bytes(_git(clone, "show", f"HEAD:{QUESTIONS}"))
        (folder / VERSION).write_bytes(_git(clone, "describe", "--tags", "--always"))


def _tags(root: Path, version: Version) -> list[str]:
    """The versions up to HEAD, and the older ones of other branches.

    Not what was tagged later elsewhere: a wheel of 1.0.1 does not update to 2.0.0.
    """
    merged = _git(root, "tag", "--merged", "HEAD").decode().splitlines()
    return [
        tag
        for tag in _git(root, "tag", "--list").decode().splitlines()
        if (named := _version(tag)) and (tag in merged or named < version)
    ]


def _version(tag: str) -> Version | None:
    try:
        return Version(tag)
    except InvalidVersion:
        return None


def _git(folder: Path, *arguments: str) -> bytes:
    variables = {name: value for name, value in os.environ.items() if name not in LOCAL_VARIABLES}
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, env=variables, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise SystemExit("git is not on the PATH; install it, and build again") from error
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip()
        raise SystemExit(f"git {' '.join(arguments)}: {said}")
    return result.stdout
