"""What an owner is told: the notices of the versions that are crossed, conflicts, the way back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scaffold_cli import main

from ..matrix.combinations import Combination
from .edits import COLLIDING, EDITS
from .services import Renderings, commit_service, scaffold_update, start_repository, tree
from .shapes import pairwise_shapes
from .test_updates import answers_at, answers_of
from .versions import FIRST, LAST

pytestmark = pytest.mark.xdist_group("updates")

SHAPES = pairwise_shapes()
IN_MEMORY = next(shape for shape in SHAPES if "memory" in shape.chosen)
EVERYBODYS = {
    "1.1.0: The ledger keeps 36 days.",
    "1.3.0: Dependabot is set up in GitHub now.",
    "1.4.0: On call is platform: `--set team=...`.",
    "1.5.0: RATE_LIMIT_REQUESTS is 120 where it is not set; it was 100.",
    "1.6.0: New variable CONTACT.",
}
OF_MEMORY = "1.6.0: Nothing in memory tells the CONTACT."

Start = Callable[[Combination, str], Path]


@pytest.fixture
def start(renderings: Renderings, tmp_path: Path) -> Start:
    """Makes a service of one version, committed, whose owner has edited the same line as 1.1.0."""

    def make(shape: Combination, version: str) -> Path:
        answers = answers_at(answers_of(shape), version)
        service = renderings.copy(version, answers, tmp_path / "one")
        if version == FIRST:
            next(edit for edit in EDITS if edit.kind == "same lines").make(service)
        start_repository(service, in_monorepo=False)
        return service

    return make


def notices(output: str) -> list[str]:
    return re.findall(r"^  (\d+\.\d+\.\d+: .*)$", output, re.MULTILINE)


def test_the_versions_that_are_crossed_tell_what_is_new(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """In their order, and not what concerns only those who chose something else."""
    scaffold_update(start(SHAPES[0], FIRST), to=LAST)
    assert notices(capsys.readouterr().out) == sorted(EVERYBODYS)


def test_only_what_is_new_to_the_service_is_told(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service of a version in between has heard of those before. What concerns its choice is
    told too, and a dry run tells the same."""
    service = start(IN_MEMORY, "1.5.0")
    before = tree(service)
    main.update(service, None, "1.6.0", dry_run=True)
    assert tree(service) == before
    told = notices(capsys.readouterr().out)
    assert told == ["1.6.0: New variable CONTACT.", OF_MEMORY]
    assert scaffold_update(service, to="1.6.0") is None
    assert notices(capsys.readouterr().out) == told
    commit_service(service)
    assert scaffold_update(service, "team=payments", to="1.6.0") is None
    assert notices(capsys.readouterr().out) == [], "another answer crosses no version"


def test_it_ends_with_notices_conflicts_and_the_way_back(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """What one has to know comes last, where one looks, each once."""
    failure = scaffold_update(start(SHAPES[0], FIRST), to="1.1.0")
    assert failure is not None
    assert COLLIDING in failure
    output = capsys.readouterr().out
    places = [
        output.index(text)
        for text in (
            "changed   app/policy.py",
            f"New since {FIRST}:\n  1.1.0: The ledger",
            f"Conflicts, where your edit and the template's meet:\n  {COLLIDING}: ",
            "git restore --source=HEAD",
        )
    ]
    assert places == sorted(places)
