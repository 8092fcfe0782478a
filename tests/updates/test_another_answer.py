"""A service that becomes another by one changed answer: what becomes of the owner's edits in files
that go, and what the owner is told."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from itertools import permutations
from pathlib import Path

import pytest

from scaffold_cli import main
from scaffold_cli.git import changes
from scaffold_cli.notices import ANSWERS_NOTICES_FILE, read_notices
from scaffold_cli.questionnaire import Answers, Questionnaire

from ..matrix.combinations import Axis, Combination, default_combination, read_axes
from ..rendering import ROOT
from .services import Renderings, commit_service, scaffold_update, start_repository, tree
from .test_updates import answers_of
from .versions import FIRST

pytestmark = pytest.mark.xdist_group("updates")

AXES = {axis.name: axis for axis in read_axes()}
DEFAULT = default_combination()
CHOSEN = dict(zip(AXES, DEFAULT.selections, strict=True))
NO_PYTHON = b"\nwhat the owner wrote (\n"
OWNED = ("app/routes.py", "tests/test_routes.py")


def other_selection(axis: Axis) -> tuple[str, ...]:
    """The next value; of several, one fewer."""
    chosen = CHOSEN[axis.name]
    if axis.multiple:
        assert len(chosen) > 1
        return chosen[:-1]
    return (next(value for value in axis.values if value not in chosen),)


def with_selection(axis: Axis, selection: tuple[str, ...]) -> Combination:
    chosen = CHOSEN | {axis.name: selection}
    return Combination(DEFAULT.axes, tuple(chosen[each.name] for each in DEFAULT.axes))


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES.keys())
def test_a_changed_mind_loses_nothing_and_breaks_nothing(
    axis: Axis, renderings: Renderings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each edited file that another answer takes away the owner's stays beside its place, where
    no tool reads it; all else is the service that the answer makes. So it is on the way back."""
    there, back = answers_of(with_selection(axis, other_selection(axis))), answers_of(DEFAULT)
    old, new = (tree(renderings.folder(FIRST, answers)) for answers in (back, there))
    service = renderings.copy(FIRST, back, tmp_path / "one")
    asides = {}
    for name in sorted(old.keys() - new.keys()):
        (service / name).write_bytes(old[name] + NO_PYTHON)
        asides[f"{name}.orig"] = old[name] + NO_PYTHON
    if axis.name == "framework":
        for name in OWNED:
            (service / name).write_bytes(old[name] + NO_PYTHON)
            aside = name.replace(".py", f".{back[axis.name]}.py.orig")
            asides[aside] = old[name] + NO_PYTHON
    assert asides
    start_repository(service, in_monorepo=False)
    before = tree(service)
    main.update(service, [assignment(axis, there)], FIRST, dry_run=True)
    assert tree(service) == before
    foretold = capsys.readouterr().out.partition("Would be kept aside")[2]
    assert scaffold_update(service, assignment(axis, there), to=FIRST) is None
    told = capsys.readouterr().out.partition("Kept aside")[2]
    assert [aside for aside in asides if f"\n  {aside}: " in told] == [*asides]
    assert foretold.partition("This was")[0] == told.partition("Next:")[0]
    assert tree(service) == new | asides
    assert set(changes(service)) >= asides.keys(), "git takes them in"
    commit_service(service)
    assert scaffold_update(service, assignment(axis, there), to=FIRST) is None
    assert changes(service) == [], "a second update is a no-op"
    if axis.name == "storage":
        assert_sound(service)
    capsys.readouterr()
    assert scaffold_update(service, assignment(axis, back), to=FIRST) is None
    assert tree(service) == old | asides
    led = capsys.readouterr().out.partition("What earlier updates")[2]
    assert [aside for aside in asides if f": {aside}\n" in led] == [*asides]


def assignment(axis: Axis, answers: Answers) -> str:
    answer = answers[axis.name]
    return f"{axis.name}={','.join(answer) if isinstance(answer, list) else answer}"


def assert_sound(service: Path) -> None:
    """Its linter, its formatter and the tests of its endpoint find nothing amiss."""
    variables = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    for tool in (
        ["ruff", "check", "--no-cache"],
        ["ruff", "format", "--check", "--no-cache"],
        ["pytest", "--quiet", "-p", "no:cacheprovider", "tests/test_routes.py"],
    ):
        run = subprocess.run(
            [sys.executable, "-m", *tool],
            cwd=service,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


# What is told of the answers


@pytest.fixture(scope="module")
def questionnaire() -> Questionnaire:
    return Questionnaire(ROOT, "my-service")


def told(questionnaire: Questionnaire, axis: str, before: Answers, after: Answers) -> list[str]:
    notices = read_notices((ROOT / ANSWERS_NOTICES_FILE).read_bytes())
    read = [questionnaire.render(notice, after, before=before) for notice in notices[axis]]
    assert all("\n" not in notice and "  " not in notice for notice in read)
    return [*filter(None, read)]


def variables_of_store(name: str) -> set[str]:
    kind = import_module(f"app.storage.{name}").Store.settings_type
    return {field.upper() for field in kind.model_fields}


@pytest.mark.parametrize("change", [*permutations(AXES["storage"].values, 2)], ids="-".join)
def test_another_store_is_told_with_both_places(
    change: tuple[str, str], questionnaire: Questionnaire
) -> None:
    """Where the old data stays and that it is not carried over, what that means, and what the new
    store wants to know. No third store is named."""
    before, after = (answers_of(with_selection(AXES["storage"], (name,))) for name in change)
    text = "\n".join(told(questionnaire, "storage", before, after))
    variables = {name: variables_of_store(name) for name in AXES["storage"].values}
    named = {name for name, its in variables.items() if any(each in text for each in its)}
    assert named == {name for name in change if variables[name]}
    keeps = bool(variables[change[0]])
    project = after["project_name"]
    assert (f"{project}_{change[0]}-data" in text) is keeps, "Compose's volume"
    for word in ("stays where it is, unread and unchanged", "carried over", "budget", "remove it"):
        assert (word in text) is keeps


def test_other_providers_are_told_by_name(questionnaire: Questionnaire) -> None:
    """Of those that go the keys that nobody reads, of those that come what to set; none else."""
    axis = AXES["providers"]
    for change in permutations(axis.selections(), 2):
        before, after = (answers_of(with_selection(axis, names)) for names in change)
        text = "\n".join(told(questionnaire, axis.name, before, after))
        gone, come = (set(a) - set(b) for a, b in (change, change[::-1]))
        words = set(text.replace(",", " ").replace(".", " ").replace(":", " ").split())
        assert words & {*axis.values} == gone | come, change
        keys = {f"{name.upper()}_API_KEY" for name in axis.values}
        assert words & keys == {f"{name.upper()}_API_KEY" for name in gone}
