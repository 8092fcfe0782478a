"""`make release`: what it checks, what it makes, and that it changes nothing before all is made."""

from __future__ import annotations

import os
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from tools import release
from tools.release import check

from ..rendering import copy_files
from .conftest import commit, git, write_template
from .test_makefile import make
from .wheels import PACKAGE

DAY = date(2026, 11, 28)
CHANGES = "# Changelog\n\n## Unreleased\n\n- A bell.\n"
HISTORY = "# What is told.\nunreleased:\n  notices: [It rings.]\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something to release after 1.0.0, by somebody whom only this repository knows."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    root = write_template(copy_files(tmp_path / "repository", *PACKAGE))
    (root / "CHANGELOG.md").write_text(CHANGES)
    (root / "versions.yml").write_text(HISTORY)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(root))
    git(root, "config", "user.name", "Grace")
    git(root, "config", "user.email", "grace@example.com")
    commit(root, "Start")
    git(root, "tag", "1.0.0")
    return root


def state(root: Path) -> list[str]:
    questions = [
        "rev-parse HEAD",
        "tag --list",
        "status --porcelain",
        "branch --list",
        "stash list",
    ]
    return [git(root, *question.split()) for question in questions]


def test_a_release_is_a_commit_a_tag_and_distributions(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file names the version, the wheel carries its tag, and nobody else hears of it."""
    release.main(["1.1.0"], repository)
    today = date.today().isoformat()
    heading = f"## Unreleased\n\n## 1.1.0 ({today})\n\n- A bell.\n"
    assert (repository / "CHANGELOG.md").read_text() == f"# Changelog\n\n{heading}"
    assert (repository / "versions.yml").read_text() == HISTORY.replace("unreleased", "1.1.0")
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["version"] == "1.1.0"
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "log", "-1", "--format=%s %an %D") == (
        "Release 1.1.0 Grace HEAD -> main, tag: 1.1.0"
    )
    assert git(repository, "cat-file", "-t", "1.1.0") == "tag"
    wheel = repository / "dist/scaffold_cli-1.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("scaffold_cli/packaged/version") == b"1.1.0\n"
        bundle = archive.read("scaffold_cli/packaged/history.bundle")
        assert b"refs/tags/1.0.0" in bundle and b"refs/tags/1.1.0" in bundle
    with tarfile.open(repository / "dist/scaffold_cli-1.1.0.tar.gz") as archive:
        assert "scaffold_cli-1.1.0/scaffold_cli/packaged/history.bundle" in archive.getnames()
    said = capsys.readouterr().out
    assert "Nothing is published" in said
    assert "git push origin main 1.1.0" in said
    assert f"dist/{wheel.name}" in said


def dirty(root: Path) -> None:
    (root / "new").touch()


def elsewhere(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "topic")


def writes(name: str, content: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).write_text(content)
        commit(root, "Changed")

    return write


TWO = "1.0.0: {}\n1.1.0: {}\nunreleased: {notices: [x]}\n"


@pytest.mark.parametrize(
    ("version", "prepare", "words"),
    [
        ("", None, "give VERSION="),
        ("next", None, "no version by PEP 440"),
        ("v1.1.0", None, "is written 1.1.0"),
        ("1.1.0+x", None, "leave +x out"),
        ("1.0.0", None, "not newer than 1.0.0"),
        ("1.0.0rc1", None, "not newer than 1.0.0"),
        ("1.1.0", dirty, "uncommitted changes"),
        ("1.1.0", elsewhere, "topic is checked out"),
        ("1.1.0", writes("CHANGELOG.md", "## Unreleased\n\n## 1.0.0\n\n- x\n"), "nothing under"),
        ("1.1.0", writes("CHANGELOG.md", "## 1.0.0\n\n- x\n"), "needs one heading"),
        ("1.1.0", writes("pyproject.toml", "[project]\nversion='1.0.0'\n"), "needs a line"),
        ("1.1.0", writes("versions.yml", "unreleased: {x: y}\n"), "mend it first"),
        ("1.1.0", writes("versions.yml", "'unreleased': {}\n"), "name versions before"),
        ("1.1.0", writes("versions.yml", TWO), "name versions before"),
        ("1.1.0", writes("versions.yml", "unreleased: {}\n1.0.0: {}\n"), "name versions before"),
        ("1.1.0", writes("versions.yml", "1.2.0: {}\n"), "name versions before"),
    ],
)
def test_what_is_not_in_order_is_named_and_stays_as_it_is(
    repository: Path, version: str, prepare: Callable[[Path], None] | None, words: str
) -> None:
    """Each check comes before the first change."""
    if prepare:
        prepare(repository)
    before = state(repository)
    with pytest.raises(SystemExit, match="error: .*" + words.replace("+", r"\+")):
        release.main([version], repository)
    assert state(repository) == before
    assert not (repository / "dist").exists()


def test_a_build_that_fails_changes_nothing(repository: Path) -> None:
    """No commit and no tag is left of a version that there is no wheel of."""
    writes("tools/build_hook.py", "raise SystemExit('no wheel today')\n")(repository)
    before = state(repository)
    with pytest.raises(SystemExit, match="no wheel today"):
        release.main(["1.1.0"], repository)
    assert state(repository) == before
    assert not (repository / "dist").exists()


def test_a_history_that_tells_nothing_is_released_as_it_is(repository: Path) -> None:
    """And a version that YAML would take for a number is told by its name."""
    numbered = check(repository, "1.10", DAY)["versions.yml"]
    assert numbered == HISTORY.replace("unreleased", '"1.10"')
    writes("versions.yml", "# Nothing yet.\n")(repository)
    assert check(repository, "1.1.0", DAY)["versions.yml"] == "# Nothing yet.\n"


@pytest.mark.parametrize("failing", ["tools.release --check", "ruff check", "none of them"])
def test_make_checks_and_lints_before_it_releases(
    tmp_path: Path, program: Callable[[str, str], Path], failing: str
) -> None:
    """What fails ends it; the release itself comes last."""
    calls = tmp_path / "calls"
    uv = program("uv", f'echo "$*" >>{calls}; case "$*" in *"{failing}"*) exit 1;; esac')
    result = make(tmp_path, "release", "VERSION=1.1.0", path=f"{uv.parent}:{os.environ['PATH']}")
    lines = calls.read_text().splitlines()
    released = "run python -m tools.release 1.1.0"
    checked, linted = lines.index("run python -m tools.release --check 1.1.0"), "run ruff check"
    assert linted not in lines[:checked]
    if failing == "none of them":
        assert result.returncode == 0, result.stderr
        assert lines[-1] == released
        assert linted in lines
    else:
        assert result.returncode != 0
        assert released not in lines
