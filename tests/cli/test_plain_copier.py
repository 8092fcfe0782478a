"""This repository's template through plain `copier copy`: no CLI, no trust, the same service."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from scaffold_cli.questionnaire import Answers, InvalidAnswer, Questionnaire
from tests.matrix.combinations import covering_combinations
from tests.rendering import render

from .conftest import ROOT, Scaffold, commit, files_in, git

COPIER = str(Path(sys.executable).with_name("copier"))


def copier_copy(template: Path, destination: Path, *data: str) -> subprocess.CompletedProcess[str]:
    flags = [flag for item in data for flag in ("--data", item)]
    return subprocess.run(
        [
            COPIER,
            "copy",
            "--defaults",
            *flags,
            "--vcs-ref",
            "HEAD",
            str(template),
            str(destination),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def real_template(tmp_path: Path) -> Path:
    """This repository's template, committed in a repository of its own."""
    root = tmp_path / "real-template"
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv")
    shutil.copytree(ROOT / "template", root / "template", ignore=ignored)
    shutil.copy(ROOT / "copier.yml", root)
    git(root, "init", "--quiet")
    commit(root, "Template")
    return root


def test_copier_and_the_cli_render_the_same(
    scaffold: Scaffold, workplace: Path, real_template: Path
) -> None:
    """The CLI adds nothing to what `copier copy` renders, the recorded answers included."""
    providers = ["--provider", "anthropic", "--provider", "openai"]
    result = scaffold(
        "new", "x", "--defaults", "--no-install", *providers, SCAFFOLD_TEMPLATE=str(real_template)
    )
    assert result.returncode == 0, result.stderr
    copied = copier_copy(
        real_template,
        workplace / "y/x",
        "providers=[anthropic, openai]",
        "primary_provider=anthropic",
    )
    assert copied.returncode == 0, copied.stderr
    assert "uv run python -m sandbox" in copied.stderr
    assert files_in(workplace / "x") == files_in(workplace / "y/x")
    for name in files_in(workplace / "x"):
        assert (workplace / "x" / name).read_bytes() == (workplace / "y/x" / name).read_bytes()


@pytest.mark.parametrize(("chosen", "other"), [("openai", "anthropic"), ("anthropic", "openai")])
def test_a_provider_not_chosen_leaves_no_file(
    tmp_path: Path, real_template: Path, chosen: str, other: str
) -> None:
    """One provider is rendered without the other's files and without the question of a primary."""
    copied = copier_copy(real_template, tmp_path / "x", f"providers=[{chosen}]")
    assert copied.returncode == 0, copied.stderr
    names = [name for name in files_in(tmp_path / "x") if Path(name).stem.endswith(other)]
    assert names == []
    answers = yaml.safe_load((tmp_path / "x/.copier-answers.yml").read_text())
    assert answers["providers"] == [chosen]
    assert "primary_provider" not in answers


def test_what_serves_only_the_template_is_not_rendered(tmp_path: Path, real_template: Path) -> None:
    """Includes, stubs and caches stay in the template."""
    (real_template / "template/.mypy_cache").mkdir()
    (real_template / "template/.mypy_cache/x").touch()
    (real_template / "template/.env").write_text("OPENAI_API_KEY=secret")
    copier_copy(real_template, tmp_path / "x")
    for name in files_in(tmp_path / "x"):
        assert not name.startswith((".mypy_cache", ".env/", "app/routes_"))
        assert name != ".env"
        assert not name.endswith((".pyi", ".pyc", ".jinja"))


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("my-service", True),
        ("a", True),
        ("4-eyes", True),
        ("My-Service", False),
        ("my_service", False),
        ("my service", False),
        ("-x", False),
        ("x--y", False),
        ("größe", False),
        ("x\n", False),
        ("x" * 61, False),
        ("fastapi", False),
    ],
)
def test_names_are_those_of_python_projects(name: str, good: bool) -> None:
    """A name must serve as that of a Python project, and not be one that the service depends on."""
    given: Answers = {"project_name": name}
    with nullcontext() if good else pytest.raises(InvalidAnswer):
        Questionnaire(ROOT, "x").answer(given, lambda question: question.default)


def libraries_of(pyproject: Path) -> set[str]:
    """The names of what a project declares, its groups and extras included."""
    project = tomllib.loads(pyproject.read_text())
    groups = project.get("dependency-groups", {}).values()
    extras = project["project"].get("optional-dependencies", {}).values()
    declared = [
        *project["project"]["dependencies"],
        *(item for g in (*groups, *extras) for item in g),
    ]
    return {match[0] for item in declared if (match := re.match(r"[\w.-]+", str(item)))}


def libraries_of_any(template: Path, folder: Path) -> set[str]:
    """What the services declare that together have each choice."""
    libraries: set[str] = set()
    for combination in covering_combinations():
        render(template, folder / str(combination), combination.answers)
        libraries |= libraries_of(folder / str(combination) / "pyproject.toml")
    return libraries


def test_a_librarys_name_is_refused(tmp_path: Path, real_template: Path) -> None:
    """Each library that a rendered service declares is refused as its name."""
    validator = yaml.safe_load((ROOT / "copier.yml").read_text())["project_name"]["validator"]
    libraries = libraries_of_any(real_template, tmp_path)
    assert [library for library in sorted(libraries) if f"'{library}'" not in validator] == []


def test_the_template_is_checked_with_what_it_needs(tmp_path: Path, real_template: Path) -> None:
    """Each library of a rendered service is at hand where the template's code is checked."""
    needed = libraries_of_any(real_template, tmp_path)
    assert needed <= libraries_of(ROOT / "pyproject.toml")
