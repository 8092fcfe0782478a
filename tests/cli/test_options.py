"""`scaffold options`, `--version`, completion: what they say is what `copier.yml` says."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version

import pytest
import yaml

from scaffold_cli.answers import FLAGS

from .conftest import ROOT, SCAFFOLD, Scaffold

CONFIG = yaml.safe_load((ROOT / "copier.yml").read_text())
QUESTIONS = {name: value for name, value in CONFIG.items() if not name.startswith("_")}
AXES = {name: value for name, value in QUESTIONS.items() if isinstance(value.get("choices"), dict)}


def test_options_as_json_are_the_templates(scaffold: Scaffold) -> None:
    """Every question of `copier.yml` is listed with its choices and default, and no other."""
    result = scaffold("options", "--json", SCAFFOLD_TEMPLATE=str(ROOT))
    listed = json.loads(result.stdout)
    assert list(listed) == list(QUESTIONS)
    for name, question in AXES.items():
        assert [choice["value"] for choice in listed[name]["choices"]] == list(
            question["choices"].values()
        )
        assert listed[name]["default"] == question["default"]


def test_options_as_text_name_flags_and_choices(scaffold: Scaffold) -> None:
    """The list for people has each flag, each value and its line of description."""
    output = scaffold("options").stdout
    for text in ("--framework", "* alpha", "the first", "  beta", "--provider", "* red", "blue"):
        assert text in output


def test_every_question_has_a_flag() -> None:
    """A question added to the template without a flag in the CLI fails here."""
    assert set(FLAGS) == set(QUESTIONS)


@pytest.mark.parametrize("name", list(AXES))
def test_every_choice_has_one_line_of_description(name: str) -> None:
    """A label reads `Title: description`, short enough for a line of a terminal."""
    for label in AXES[name]["choices"]:
        title, separator, description = label.partition(": ")
        assert title and separator and description
        assert len(label) <= 80


@pytest.mark.parametrize("name", list(AXES))
def test_every_choice_stands_in_the_exclude_block_of_its_axis(name: str) -> None:
    """A value that no block names would leave its files in services that did not choose it."""
    values = list(AXES[name]["choices"].values())
    block = next(
        block for block in CONFIG["_exclude"] if f"!= {name}" in block or f"in {name}" in block
    )
    assert [value for value in values if f"'{value}'" not in block] == []


def test_version_is_the_packages(scaffold: Scaffold) -> None:
    """`--version` says which one is installed."""
    assert scaffold("--version").stdout == f"scaffold {version('scaffold-cli')}\n"


def test_completion_offers_the_templates_values(variables: dict[str, str]) -> None:
    """Shell completion offers the values of an axis, read from `copier.yml`."""
    completion = {
        "_SCAFFOLD_COMPLETE": "complete_bash",
        "COMP_WORDS": "scaffold new x --framework ",
        "COMP_CWORD": "4",
    }
    result = subprocess.run(
        [SCAFFOLD], env={**variables, **completion}, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["alpha", "beta"]


def test_scaffold_alone_prints_its_help(scaffold: Scaffold) -> None:
    """Without a command, the commands are listed."""
    result = scaffold()
    assert result.returncode == 2
    assert "new" in result.stdout
    assert result.stderr == ""
