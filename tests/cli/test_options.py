"""`scaffold options`, `--version`, completion: what they say is what `copier.yml` says."""

from __future__ import annotations

import json
import shlex
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
    """A label reads `Title: description`."""
    for label in AXES[name]["choices"]:
        title, separator, description = label.partition(": ")
        assert title and separator and description


def test_options_fit_80_columns(scaffold: Scaffold) -> None:
    """No line of the real template's list is broken by an ordinary terminal."""
    result = scaffold("options", SCAFFOLD_TEMPLATE=str(ROOT))
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


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


def test_completion_is_printed_for_the_shell_that_asks(variables: dict[str, str]) -> None:
    """`--show-completion` prints a script that this very shell accepts."""
    result = subprocess.run(
        [
            "bash",
            "-c",
            f"script=$({shlex.quote(SCAFFOLD)} --show-completion) && bash -n <<< $script",
        ],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_scaffold_alone_prints_its_help(scaffold: Scaffold) -> None:
    """Without a command, the commands are listed."""
    result = scaffold()
    assert result.returncode == 2
    assert "new" in result.stdout
    assert result.stderr == ""
