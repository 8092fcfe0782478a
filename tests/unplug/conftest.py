"""Services to unplug guardrails in: rendered once, and a copy for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.matrix.combinations import Combination
from tests.rendering import render, take_snapshot

Project = Callable[[Combination], Path]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A whole service, which is not to be changed."""
    template = take_snapshot(tmp_path_factory.mktemp("template"))
    projects: dict[str, Path] = {}

    def find(combination: Combination) -> Path:
        name = str(combination)
        if name not in projects:
            projects[name] = tmp_path_factory.mktemp("whole") / name
            render(template, projects[name], combination.answers)
        return projects[name]

    return find


@pytest.fixture
def copied(rendered: Project, tmp_path: Path) -> Iterator[Project]:
    """A service of the test's own, gone when it ends."""
    project = tmp_path / "service"

    def copy(combination: Combination) -> Path:
        shutil.copytree(rendered(combination), project)
        return project

    yield copy
    shutil.rmtree(project, ignore_errors=True)
