"""What `versions.yml` declares, held to the files of the tags: of this repository, and of a history
in which files are renamed and removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packaging.version import Version

from scaffold_cli.history import HISTORY_FILE, InvalidHistory, notices_since, read_history
from scaffold_cli.questionnaire import Questionnaire

from ..cli.conftest import commit
from ..matrix.combinations import all_combinations
from ..rendering import ROOT
from .registry import problems
from .services import Renderings
from .test_updates import answers_of
from .versions import NEW_NAME, REMOVED, RENAMED, replace

pytestmark = pytest.mark.xdist_group("updates")


def test_this_repository_declares_what_its_versions_gave_up() -> None:
    """Each file of a tag is there, or declared as renamed or removed."""
    assert list(problems(ROOT)) == []


def test_this_repository_lists_its_versions_in_their_order() -> None:
    """The oldest first, and at the end what is not released."""
    names = list(read_history((ROOT / HISTORY_FILE).read_bytes()))
    released = [name for name in names if name != "unreleased"]
    assert names[: len(released)] == released == sorted(released, key=Version)


def test_this_repositorys_notices_can_be_read_by_each_service() -> None:
    """Whatever was chosen, a notice is one line, or none where it concerns others."""
    history = read_history((ROOT / HISTORY_FILE).read_bytes())
    questionnaire = Questionnaire(ROOT, "my-service")
    for shape in all_combinations():
        for _, notice in notices_since({}, history):
            assert "\n" not in questionnaire.render(notice, answers_of(shape))


@pytest.fixture
def history(renderings: Renderings, tmp_path: Path) -> Path:
    """A repository of the test's own, at the last version."""
    return shutil.copytree(renderings.template, tmp_path / "template")


def test_a_history_that_declares_everything_is_in_order(history: Path) -> None:
    """A renamed and a removed file are no problem where they are declared."""
    assert list(problems(history)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (HISTORY_FILE, f"{RENAMED}: {NEW_NAME}", "app/x.py: app/main.py", f"1.0.0 has {RENAMED}"),
        (HISTORY_FILE, f"- {REMOVED}", "- app/x.py", f"1.2.0 has {REMOVED}"),
        (
            HISTORY_FILE,
            f": {NEW_NAME}",
            ": app/elsewhere.py",
            "app/elsewhere.py, which is not there",
        ),
        (HISTORY_FILE, f"- {REMOVED}", f"- {REMOVED}\n  - app/main.py", "app/main.py is declared"),
        ("copier.yml", f"  - /{RENAMED}\n", "", f"lacks /{RENAMED}"),
    ],
)
def test_a_history_that_keeps_something_back_is_seen(
    history: Path, file: str, old: str, new: str, problem: str
) -> None:
    """A file that went undeclared, a name that leads nowhere, one that is still there, and one that
    plain Copier would delete."""
    replace(history / file, (old, new))
    assert any(problem in found for found in problems(history))


def test_a_file_that_goes_undeclared_is_seen(history: Path) -> None:
    """Who renames or removes one more file is told to declare it."""
    (history / "template/app/spend.py").rename(history / "template/app/spent.py")
    commit(history, "Renamed")
    assert any("1.7.0 has app/spend.py" in found for found in problems(history))


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b"- 1.0.0",
        b"1.0.0: renamed",
        b"1.0.0: {moved: {a: b}}",
        b"1.0.0: {renamed: [a]}",
        b"1.0.0: {renamed: {a: [b]}}",
        b"1.0.0: {removed: a}",
        b"1.0.0: {notices: [{a: b}]}",
    ],
)
def test_what_is_no_registry_is_refused(content: bytes) -> None:
    """A file that says something else names itself and, where it can, the version."""
    with pytest.raises(InvalidHistory, match=HISTORY_FILE):
        read_history(content)
