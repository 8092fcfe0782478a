"""Each guardrail is unplugged in turn, in services that have every framework and every store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.matrix.combinations import Combination, covering_combinations

from .conftest import Project
from .edits import UNPLUGGED, DoesNotApply, Unplug
from .report import PROPERTY

CHECKLIST_SECONDS = 300.0


def services() -> tuple[Combination, ...]:
    """As few as have each framework and each store, with every provider: one can step in for
    another."""
    return covering_combinations(all_at_once=True)


def test_each_item_of_the_checklist_has_its_edit(rendered: Project) -> None:
    """The edits are those of the checklist's tests, one each."""
    files = (rendered(services()[0]) / "tests" / "checklist").glob("test_*.py")
    tests = [
        line.partition("(")[0].removeprefix("def ")
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("def test_")
    ]
    assert sorted(tests) == sorted(edit.item for edit in UNPLUGGED)


@pytest.mark.parametrize("service", services(), ids=str)
def test_nothing_is_open_in_a_whole_service(service: Combination, copied: Project) -> None:
    """Without an edit each item is a yes; else the edits would show nothing."""
    assert open_items(copied(service)) == []


@pytest.mark.parametrize("service", services(), ids=str)
@pytest.mark.parametrize("unplug", UNPLUGGED, ids=lambda unplug: str(unplug.item))
def test_an_unplugged_guardrail_is_seen(
    unplug: Unplug,
    service: Combination,
    copied: Project,
    record_property: Callable[[str, object], None],
) -> None:
    """Exactly its own item turns to no."""
    project = copied(service)
    unplug.apply(project)
    found = open_items(project)
    seen = {"item": unplug.item, "service": str(service), "open": found}
    record_property(PROPERTY, seen)
    assert found == [unplug.item]


def test_an_edit_that_finds_nothing_is_an_error(copied: Project) -> None:
    """An edit that the code has moved away from does not pass for one that was made."""
    project = copied(services()[0])
    unplug = UNPLUGGED[0]
    unplug.apply(project)
    with pytest.raises(DoesNotApply):
        unplug.apply(project)


def open_items(project: Path) -> list[str]:
    """The tests of the items that the service's own checklist says no to."""
    report = project.with_name("checklist.json")
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests/checklist"],
        cwd=project,
        env={**inherited, "CHECKLIST_REPORT": str(report)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CHECKLIST_SECONDS,
        check=False,
    )
    assert report.exists(), f"{run.stdout}\n{run.stderr}"
    items = json.loads(report.read_text(encoding="utf-8"))["items"]
    assert len(items) == len(UNPLUGGED), run.stdout
    return [item["test"] for item in items if not item["passed"]]
