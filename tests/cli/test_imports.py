"""What a command loads: nobody waits for a library that it does not use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from .conftest import ROOT

# What the dependencies stand on, and parts of Python that take as long to load.
SLOW = {"asyncio", "importlib.metadata", "plumbum", "prompt_toolkit", "pydantic"}
QUESTIONS = {"jinja2", "jinja2-ansible-filters", "pyyaml"}

# As the console script does it; what is loaded in the end is the last line on stderr.
SCRIPT = """
import json, sys
from scaffold_cli.main import main
sys.argv[0] = "scaffold"
try:
    main()
finally:
    print("\\n", json.dumps([*sys.modules]), file=sys.stderr)
"""


def run(script: str, variables: Mapping[str, str], *arguments: str) -> set[str]:
    """The modules that are loaded when it ends."""
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=dict(variables),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(result.stderr.splitlines()[-1]))


def declared() -> set[str]:
    """What the package depends on, by the names of the index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]}


def dependencies(modules: set[str]) -> set[str]:
    """Those that the modules are part of."""
    distributions = packages_distributions()
    loaded = {
        name.lower() for module in modules & distributions.keys() for name in distributions[module]
    }
    return loaded & declared()


def test_the_package_alone_loads_typer(variables: dict[str, str]) -> None:
    """No dependency more, so that what every command begins with takes a tenth of a second."""
    script = (
        "import json, sys, scaffold_cli.main; print(json.dumps([*sys.modules]), file=sys.stderr)"
    )
    modules = run(script, variables)
    assert dependencies(modules) == {"typer"}
    assert modules & SLOW == set()


def test_help_loads_what_draws_it(variables: dict[str, str]) -> None:
    """Neither Copier, nor the template's questions, nor prompts, nor an HTTP client."""
    modules = run(SCRIPT, variables, "--help")
    assert dependencies(modules) == {"typer", "rich"}
    assert modules & SLOW == set()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--version", {"typer"}),
        ("new --help", {"typer", "rich"}),
        ("update --help", {"typer", "rich"}),
        ("check --help", {"typer", "rich"}),
        ("options", {"typer", "rich", *QUESTIONS}),
        ("options --json", {"typer", *QUESTIONS}),
    ],
)
def test_a_command_loads_what_it_uses(
    arguments: str, expected: set[str], variables: dict[str, str]
) -> None:
    assert dependencies(run(SCRIPT, variables, *arguments.split())) == expected


def test_a_value_is_completed_by_the_questions_alone(variables: dict[str, str]) -> None:
    completion = {
        "_SCAFFOLD_COMPLETE": "complete_bash",
        "COMP_WORDS": "scaffold new x --framework ",
        "COMP_CWORD": "4",
    }
    modules = run(SCRIPT, {**variables, **completion})
    assert dependencies(modules) == {"typer", *QUESTIONS}


def test_a_new_service_takes_no_http_client_and_nothing_of_an_update(
    variables: dict[str, str], workplace: Path
) -> None:
    """Where nobody sits at a terminal; Copier brings the rest."""
    modules = run(SCRIPT, variables, "new", f"{workplace}/x", "--defaults", "--no-install")
    assert {"copier", "rich.console", "scaffold_cli.new"} <= modules
    unused = {"httpx", "rich.progress", "scaffold_cli.check", "scaffold_cli.update"}
    assert modules & unused == set()
