"""Edits that nobody thought of: lines inserted, deleted and replaced at random places of random
files, by the owner and by the template at once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaffold_cli import update
from scaffold_cli.questionnaire import Answers

from ..cli.conftest import git
from ..matrix.combinations import default_combination
from .services import (
    PATCHED,
    Renderings,
    commit_service,
    copy_file,
    scaffold_update,
    start_repository,
    tree,
    unmerged,
)
from .test_updates import answers_at, answers_of
from .versions import FIRST, LAST, NEW_NAME, REMOVED, RENAMED

pytestmark = pytest.mark.xdist_group("updates")

OURS, BETWEEN, THEIRS = b"<<<<<<< before updating", b"=======", b">>>>>>> after updating"
OWNED = {"app/routes.py", "tests/test_routes.py"}
ANSWERS_FILE = ".copier-answers.yml"


@dataclass(frozen=True, slots=True)
class Step:
    """At this share of the file's lines, so many are deleted and so many inserted."""

    place: float
    deleted: int
    inserted: int


@dataclass(frozen=True, slots=True)
class FileEdit:
    index: int
    steps: Sequence[Step]
    is_cut: bool
    """Whether the end of the last line goes too."""

    def apply(self, content: bytes, author: str, numbers: Iterator[int]) -> bytes:
        lines = content.splitlines(keepends=True)
        for step in self.steps:
            start = round(step.place * len(lines))
            lines[start : start + step.deleted] = [
                f"{author} {next(numbers)}\n".encode() for _ in range(step.inserted)
            ]
        edited = b"".join(lines)
        return edited.rstrip(b"\n") if self.is_cut else edited


STEPS = st.builds(Step, st.floats(0, 1), st.integers(0, 4), st.integers(0, 3))
EDITS = st.lists(
    st.builds(
        FileEdit,
        st.integers(0, 10_000),
        st.lists(STEPS, min_size=1, max_size=4),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


class Playground:
    """One service, put back as it was before each example."""

    def __init__(self, renderings: Renderings, folder: Path) -> None:
        answers = answers_of(default_combination())
        self.service = renderings.copy(FIRST, answers, folder / "one")
        start_repository(self.service, in_monorepo=False)
        git(self.service, "tag", "start")
        self.old = tree(self.service)
        self.new = tree(renderings.folder(LAST, answers_at(answers, LAST)))
        changed = [name for name in self.old if self.new.get(name) not in (None, self.old[name])]
        managed = {RENAMED, *changed} | {name for name in self.old if name.endswith(".py")}
        self.files = sorted(managed - OWNED - {ANSWERS_FILE, REMOVED})
        # As often as all the others: what the history itself changes.
        self.files += sorted({RENAMED, *changed} - OWNED - {ANSWERS_FILE}) * 4

    def restore(self) -> None:
        git(self.service, "reset", "--quiet", "--hard", "start")
        git(self.service, "clean", "--quiet", "-d", "--force")


@pytest.fixture(scope="module")
def playground(renderings: Renderings, tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return Playground(renderings, tmp_path_factory.mktemp("playground"))


@given(owners=EDITS, templates=EDITS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_line_is_lost(
    playground: Playground, owners: list[FileEdit], templates: list[FileEdit]
) -> None:
    """What either side has added is there, what either has deleted is not, in the order of either;
    or both stand in a conflict, which git knows of. A file that one side left is the other's."""
    numbers = count()
    old, new, service = playground.old, dict(playground.new), playground.service
    playground.restore()
    mine = edited(old, owners, playground.files, "owner", numbers)
    for name in mine:
        (service / name).write_bytes(mine[name])
    commit_service(service)
    placed = [new_name(name) for name in playground.files]
    theirs = edited(new, templates, placed, "template", numbers)
    new |= theirs
    with template_edits(theirs):
        failure = scaffold_update(service, to=LAST)
    after, conflicts = tree(service), unmerged(service)
    assert (failure is not None) == bool(conflicts), failure
    assert {name for name, content in after.items() if THEIRS in content.splitlines()} == conflicts
    for name, content in new.items():
        origin = RENAMED if name == NEW_NAME else name
        if name not in OWNED | {ANSWERS_FILE}:
            base = old.get(origin, b"")
            assert_merged(name, base, mine.get(origin, base), content, after[name])
    assert after.keys() == new.keys()


def new_name(name: str) -> str:
    return NEW_NAME if name == RENAMED else name


def edited(
    files: Mapping[str, bytes],
    edits: Sequence[FileEdit],
    names: Sequence[str],
    author: str,
    numbers: Iterator[int],
) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for edit in edits:
        name = names[edit.index % len(names)]
        contents[name] = edit.apply(contents.get(name, files[name]), author, numbers)
    return contents


@contextmanager
def template_edits(files: Mapping[str, bytes]) -> Iterator[None]:
    """Until the block ends, a rendering of the new version has these contents."""
    render_version = getattr(update, PATCHED)

    def render(source: str, version: str, answers: Answers, folder: Path) -> None:
        render_version(source, version, answers, folder)
        if (folder / NEW_NAME).exists():
            rendering = folder.readlink()
            folder.unlink()
            shutil.copytree(rendering, folder, copy_function=copy_file)
            for name, content in files.items():
                (folder / name).write_bytes(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, PATCHED, render)
        yield


def assert_merged(name: str, old: bytes, mine: bytes, new: bytes, result: bytes) -> None:
    if old in (mine, new):
        assert result == (new if mine == old else mine), name
        return
    for side, edited_file in zip(sides_of(result), (mine, new), strict=True):
        # Only of a line that no file has twice can it be said which one it is.
        several = set().union(*(twice(content) for content in (old, mine, new, side)))
        before, wanted, got = (
            [line for line in content.splitlines() if line not in several]
            for content in (old, edited_file, side)
        )
        assert {*wanted} - {*before} <= {*got}, f"{name}: an addition is gone"
        assert not ({*before} - {*wanted}) & {*got}, f"{name}: what was deleted is back"
        common = {*wanted} & {*got}
        order = [[line for line in lines if line in common] for lines in (wanted, got)]
        assert order[0] == order[1], f"{name}: lines have changed their places"


def twice(content: bytes) -> set[bytes]:
    return {line for line, times in Counter(content.splitlines()).items() if times > 1}


def sides_of(content: bytes) -> tuple[bytes, bytes]:
    """The file as either side of its conflicts would have it."""
    ours: list[bytes] = []
    theirs: list[bytes] = []
    both = [ours, theirs]
    where = both
    for line in content.splitlines():
        if line == OURS:
            where = [ours]
        elif line == BETWEEN and where is not both:
            where = [theirs]
        elif line == THEIRS:
            where = both
        else:
            for side in where:
                side.append(line)
    return b"\n".join(ours), b"\n".join(theirs)
