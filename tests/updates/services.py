"""Services of any version and shape, rendered once and copied; and the two ways to update one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import copier
import pytest

from scaffold_cli import main, update
from scaffold_cli.errors import ScaffoldError
from scaffold_cli.questionnaire import Answers
from scaffold_cli.render import render_version

from ..cli.conftest import commit, git
from ..cli.test_update import contents

PATCHED = "render_version"
"""Of `scaffold_cli.update`, so that tests can give it renderings that they have."""


class Renderings:
    """The template's services; each is rendered once, by the command's own function."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.template = template
        self._folder = folder
        self._known: dict[str, Path] = {}

    def folder(self, version: str, answers: Answers) -> Path:
        """The rendering itself, which is not to be changed."""
        commit = git(self.template, "rev-parse", f"{version}^{{commit}}")
        key = f"{commit} {sorted(answers.items())}"
        if key not in self._known:
            folder = self._folder / str(len(self._known))
            render_version(str(self.template), version, answers, folder)
            self._known[key] = folder
        return self._known[key]

    def copy(self, version: str, answers: Answers, folder: Path) -> Path:
        return shutil.copytree(self.folder(version, answers), folder, copy_function=copy_file)

    @contextmanager
    def reused(self) -> Iterator[None]:
        """Until the block ends `scaffold update` is shown these; it only reads them."""

        def link(source: str, version: str, answers: Answers, folder: Path) -> None:
            assert source == str(self.template)
            folder.parent.mkdir(parents=True)
            folder.symlink_to(self.folder(version, answers))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(update, PATCHED, link)
            yield


def copy_file(source: str, destination: str) -> None:
    """A file of one's own; of an encoding, which nobody edits, another name."""
    if source.endswith(".tiktoken"):
        os.link(source, destination)
    else:
        shutil.copy2(source, destination)


def start_repository(service: Path, *, in_monorepo: bool) -> None:
    """Commits the service, alone or as a folder of a repository in which others are at work."""
    if in_monorepo:
        root = service.parents[1]
        (root / "app").mkdir()
        (root / "app/policy.py").write_text("not the service's\n")
        git(root, "init", "--quiet")
        commit(root, "Start")
        (root / "app/policy.py").write_text("half done\n")
    else:
        git(service, "init", "--quiet")
        commit(service, "Start")


def commit_service(service: Path) -> None:
    """Commits what lies in the service, and nothing beside it."""
    git(service, "add", "--all", ".")
    identity = ["-c", "user.name=Owner", "-c", "user.email=owner@example.com"]
    git(service, *identity, "commit", "--quiet", "--allow-empty", "--message", "Next")


def scaffold_update(service: Path, *assignments: str, to: str | None = None) -> str | None:
    """`scaffold update`, in this process: None, or what it ends with in failure."""
    try:
        main.update(service, [*assignments], to)
    except ScaffoldError as error:
        return str(error)
    return None


def copier_update(service: Path, to: str) -> None:
    """Plain `copier update --defaults`, in this process."""
    copier.run_update(
        service,
        vcs_ref=to,
        defaults=True,
        overwrite=True,
        quiet=True,
        settings=copier.Settings(),
    )


def unmerged(service: Path) -> set[str]:
    """The files below the service in whose conflicts git would refuse a commit."""
    flags = ["--name-only", "--relative", "--diff-filter=U", "-z"]
    return set(filter(None, git(service, "diff", *flags).split("\0")))


def settle(service: Path) -> None:
    """What an owner does who wants both sides of every conflict."""
    for name in unmerged(service):
        lines = (service / name).read_bytes().splitlines(keepends=True)
        marks = (b"<<<<<<<", b"=======", b">>>>>>>")
        kept = [line for line in lines if not line.startswith(marks)]
        (service / name).write_bytes(b"".join(kept))
    commit_service(service)


def tree(service: Path) -> dict[str, bytes]:
    """Its files, but what Python and the tools leave behind."""
    return {
        name: content
        for name, content in contents(service).items()
        if "__pycache__" not in name and not name.startswith((".pytest_cache", "data/"))
    }
