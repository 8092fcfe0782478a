"""Services of each pair of choices, with every kind of edit in them, carried from version to
version by `scaffold update` and by plain `copier update`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Protocol

import pytest

from scaffold_cli.git import changes
from scaffold_cli.questionnaire import Answers
from scaffold_cli.update import read_record

from ..matrix.combinations import (
    Combination,
    covering_combinations,
    read_axes,
)
from . import report
from .edits import COLLIDING, EDITS, OWNERS_LINE, TEMPLATES_LINE, Edit
from .services import (
    Renderings,
    copier_update,
    scaffold_update,
    settle,
    start_repository,
    tree,
    unmerged,
)
from .shapes import pairwise_shapes
from .versions import FIRST, LAST, QUESTION, VERSIONS, is_crossed

# One process has the renderings; two would make them twice.
pytestmark = pytest.mark.xdist_group("updates")

SHAPES = pairwise_shapes()
Record = Callable[[str, object], None]


@dataclass(frozen=True, slots=True)
class Case:
    """A service with edits in it, and the one that it should become."""

    service: Path
    before: dict[str, bytes]
    expected: dict[str, bytes]
    touched: dict[str, set[str]]
    """By the kind of edit: the files that it changed, added or took away, in the service."""
    touched_anew: dict[str, set[str]]
    """The same in what the service should become."""

    def fates(self, by: str) -> dict[str, str]:
        """What the service shows of each edit after an update by this command."""
        after, conflicts = tree(self.service), unmerged(self.service)
        return {
            edit.kind: self._fate(edit, by, after, conflicts)
            for edit in EDITS
            if edit.kind in self.touched
        }

    def _fate(self, edit: Edit, by: str, after: Mapping[str, bytes], conflicts: set[str]) -> str:
        mine, anew = self.touched[edit.kind], self.touched_anew[edit.kind]
        if not mine:
            return report.ABSENT
        if mine <= conflicts:
            sides = (OWNERS_LINE, TEMPLATES_LINE)
            is_shown = all(side.encode() in after[name] for side in sides for name in mine)
            return report.CONFLICT if is_shown else report.LOST
        if by == "scaffold" and not anew:
            is_aside = all(after.get(f"{name}.orig") == self.before[name] for name in mine)
            return report.ASIDE if is_aside and not mine & after.keys() else report.LOST
        # Plain Copier knows of no renames: what the template gave up stays beside what is new.
        is_given_up = by == "copier" and not mine & anew
        if edit.stays or is_given_up:
            is_kept = all(after.get(name) == self.before.get(name) for name in mine)
        else:
            is_kept = all(after.get(name) == self.expected.get(name) for name in mine | anew)
        return report.KEPT if is_kept else report.LOST

    def not_as_rendered(self) -> set[str]:
        """The files that no edit has touched and that are not what the new version renders."""
        touched = set().union(*self.touched.values(), *self.touched_anew.values())
        touched |= {f"{name}.orig" for name in touched - self.expected.keys()}
        after = tree(self.service)
        names = (after.keys() | self.expected.keys()) - touched
        return {name for name in names if after.get(name) != self.expected.get(name)}


class MakeCase(Protocol):
    def __call__(
        self,
        shape: Combination,
        start: str,
        end: str,
        *,
        edits: Sequence[Edit] = EDITS,
        in_monorepo: bool = False,
    ) -> Case: ...


@pytest.fixture
def make_case(renderings: Renderings, tmp_path: Path) -> Iterator[MakeCase]:
    """Makes a service of one version with these edits, committed, alone or in a monorepo."""

    def make(
        shape: Combination,
        start: str,
        end: str,
        *,
        edits: Sequence[Edit] = EDITS,
        in_monorepo: bool = False,
    ) -> Case:
        service = tmp_path / "repository/services/one größer"
        answers = answers_of(shape)
        renderings.copy(start, answers, service)
        # What an owner does commutes with what the template does, where they do not collide.
        new = renderings.copy(end, answers_at(answers, end), tmp_path / "new")
        touched = {edit.kind: edit.apply(service) for edit in edits}
        touched_anew = {edit.kind: edit.apply(new) for edit in edits}
        start_repository(service, in_monorepo=in_monorepo)
        return Case(service, tree(service), tree(new), touched, touched_anew)

    yield make
    shutil.rmtree(tmp_path)


def answers_of(shape: Combination) -> Answers:
    answers = dict(shape.answers)
    providers = answers["providers"]
    if len(providers) > 1:
        answers["primary_provider"] = providers[0]
    return answers


def answers_at(answers: Answers, version: str) -> Answers:
    return {**answers, **(QUESTION if is_crossed("1.4.0", FIRST, version) else {})}


def test_the_shapes_have_each_pair_of_choices() -> None:
    """Whatever two values of two axes are chosen, some service has both."""
    axes = read_axes()
    assert len(axes) == 3, "one more axis needs another way to cover them"
    for one, other in combinations(axes, 2):
        for pair in ({a, b} for a in one.values for b in other.values):
            assert any(shape.chosen >= pair for shape in SHAPES), pair


def steps() -> list[tuple[str, str]]:
    """From each version to the next and to the last; from the first the shapes go there."""
    to_last = {(version, LAST) for version in VERSIONS if version != LAST}
    return sorted({*pairwise(VERSIONS), *to_last} - {(FIRST, LAST)})


@pytest.mark.parametrize(
    ("shape", "start", "end"),
    [
        *((shape, FIRST, LAST) for shape in SHAPES),
        *((SHAPES[0], *step) for step in steps()),
    ],
    ids=str,
)
def test_scaffold_update_loses_no_edit(
    shape: Combination, start: str, end: str, make_case: MakeCase, record_property: Record
) -> None:
    """Each edit is in its file, under its new name if it has one, or in a conflict, or kept aside
    where the file is gone; all else is what the new version renders. A second update changes
    nothing."""
    case = make_case(shape, start, end, in_monorepo=shape in SHAPES[::2])
    service = case.service
    failure = scaffold_update(service, to=end)
    is_colliding = is_crossed("1.1.0", start, end)
    assert unmerged(service) == ({COLLIDING} if is_colliding else set())
    assert (failure is not None) is is_colliding, failure
    fates = case.fates("scaffold")
    record_property(report.PROPERTY, report.case("scaffold", start, end, shape, fates))
    assert report.LOST not in fates.values(), fates
    assert case.not_as_rendered() == set()
    record = read_record(service)
    assert record.version == end
    assert record.answers == answers_at(answers_of(shape), end)
    settle(service)
    assert scaffold_update(service, to=end) is None
    # An answer, though it is the same, makes it compare everything once more.
    assert scaffold_update(service, f"framework={shape.answers['framework']}", to=end) is None
    assert changes(service) == [], "a second update is a no-op"


@pytest.mark.parametrize("shape", covering_combinations(), ids=str)
def test_plain_copier_loses_no_edit(
    shape: Combination, make_case: MakeCase, record_property: Record
) -> None:
    """The same by `copier update`, which leaves what the template gave up where it is."""
    in_monorepo = shape == covering_combinations()[-1]
    case = make_case(shape, FIRST, LAST, in_monorepo=in_monorepo)
    copier_update(case.service, LAST)
    assert unmerged(case.service) == {COLLIDING}
    fates = case.fates("copier")
    record_property(report.PROPERTY, report.case("copier", FIRST, LAST, shape, fates))
    assert report.LOST not in fates.values(), fates
    assert case.not_as_rendered() == set()
    settle(case.service)
    if shape == covering_combinations()[0]:
        copier_update(case.service, LAST)
        assert changes(case.service) == [], "a second update is a no-op"


PEACEFUL = [edit for edit in EDITS if edit.kind != "same lines"]
PROOFS = [
    "tests/test_routes.py",
    "tests/checklist/test_2_environment.py",
    "tests/checklist/test_4_resources.py",
]
"""Of a service's own tests: its endpoint, its settings, and what a request may cost."""


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[-1]], ids=str)
def test_a_service_without_conflicts_works_at_once(shape: Combination, make_case: MakeCase) -> None:
    """With its owner's edits in it, its own tests pass in what the update has made of it."""
    service = make_case(shape, FIRST, LAST, edits=PEACEFUL).service
    assert scaffold_update(service, to=LAST) is None
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *PROOFS],
        cwd=service,
        env=inherited,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
