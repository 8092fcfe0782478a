"""The template as it lies in the repository: it and `copier.yml` agree, and its Python is plain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from tests.matrix.blemishes import JINJA
from tests.matrix.combinations import Axis, read_axes
from tests.matrix.expected_files import values_named_by, values_that_need
from tests.rendering import ROOT

TAG = re.compile(r"\{%-?\s*(\w+)")
CONDITION = re.compile(r"\{%-?\s*(if|elif|else)\b|\{\{[^}]*\bif\b")


@pytest.fixture(scope="session")
def templated_python(template: Path) -> dict[str, str]:
    """The text of each templated Python file, by its name."""
    folder = template / "template"
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*.py.jinja")
    }


def axis_by_value() -> dict[str, Axis]:
    return {value: axis for axis in read_axes() for value in axis.values}


def excluded(answers: Mapping[str, object]) -> dict[str, set[str]]:
    """The templated patterns of `_exclude` under these answers, by the value that they name."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    jinja = SandboxedEnvironment(undefined=StrictUndefined)
    blocks = (block for block in config["_exclude"] if "{%" in block)
    lines = "\n".join(jinja.from_string(block).render(answers) for block in blocks).split()
    patterns: dict[str, set[str]] = {}
    for line in lines:
        patterns.setdefault(Path(line).name.partition(".")[0], set()).add(line)
    return patterns


def needed_by_some() -> dict[str, frozenset[str]]:
    """The modules that some values of an axis share, by name, and these values."""
    needed = values_that_need(ROOT / "template", axis_by_value())
    axes = {frozenset(axis.values) for axis in read_axes()}
    return {path.stem: values for path, values in needed.items() if values not in axes}


def nothing_chosen() -> dict[str, object]:
    return {axis.name: [] if axis.multiple else "" for axis in read_axes()}


def test_no_value_is_on_two_axes() -> None:
    """A value tells its axis, so that a file can be named after it."""
    assert len(axis_by_value()) == sum(len(axis.values) for axis in read_axes())


def test_each_value_is_excluded_unless_chosen() -> None:
    """The `_exclude` blocks name the values of the choices and what only some of them need, no
    more and no less."""
    assert set(excluded(nothing_chosen())) == set(axis_by_value()) | set(needed_by_some())


@pytest.mark.parametrize("value", axis_by_value())
def test_a_chosen_value_is_not_excluded(value: str) -> None:
    """Its own answer takes a value's patterns out, and those of what it needs, and no other."""
    axis = axis_by_value()[value]
    answers = {**nothing_chosen(), axis.name: [value] if axis.multiple else value}
    others = {name for name, values in needed_by_some().items() if value not in values}
    assert set(excluded(answers)) == (set(axis_by_value()) - {value}) | others


@pytest.mark.parametrize("value", axis_by_value())
def test_each_value_has_its_files(template: Path, value: str) -> None:
    """A value that can be chosen is there: some file of the service is named after it."""
    app = template / "template/app"
    named = [path for path in app.rglob("*") if value in values_named_by(path.relative_to(app))]
    assert named


@pytest.mark.parametrize("value", axis_by_value())
def test_each_file_of_a_value_is_excluded_with_it(template: Path, value: str) -> None:
    """Wherever a file is named after a value, a pattern leaves it out when that is not chosen."""
    folder = template / "template"
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    patterns = excluded(nothing_chosen())[value]
    forgotten = [
        name.as_posix()
        for name in names
        if value in values_named_by(name) and not any(name.match(p) for p in patterns)
    ]
    assert forgotten == []


@pytest.mark.parametrize("name", needed_by_some())
def test_each_shared_module_is_excluded_where_it_lies(name: str) -> None:
    """A module that some values share is left out by a pattern for each place that has one."""
    needed = values_that_need(ROOT / "template", axis_by_value())
    paths = [path for path in needed if path.stem == name]
    patterns = excluded(nothing_chosen())[name]
    assert {p for path in paths for p in patterns if path.match(p)} == patterns
    assert all(any(path.match(p) for p in patterns) for path in paths)


@pytest.mark.parametrize("axis", read_axes(), ids=lambda axis: str(axis.name))
def test_each_pattern_is_of_use(template: Path, axis: Axis) -> None:
    """Each place that an axis' block names holds a file of at least one of its values."""
    folder = template / "template"
    patterns = excluded(nothing_chosen())
    places = {pattern.replace(value, "*") for value in axis.values for pattern in patterns[value]}
    unused = {
        place
        for place in places
        if not any(
            path.match(pattern)
            for path in folder.rglob("*")
            for value in axis.values
            for pattern in patterns[value]
            if pattern.replace(value, "*") == place
        )
    }
    assert unused == set()


def test_plain_python_holds_no_jinja(template: Path) -> None:
    """Python that is not called a template is none."""
    plain = [*(template / "template").rglob("*.py"), *(template / "template").rglob("*.pyi")]
    assert [path.name for path in plain if JINJA.search(path.read_text(encoding="utf-8"))] == []


def test_one_templated_python_file_loops(templated_python: dict[str, str]) -> None:
    """The composition root loops over the chosen providers; every other one is an include."""
    tags = {name: set(TAG.findall(text)) for name, text in templated_python.items()}
    looping = [name for name, found in tags.items() if "for" in found]
    assert looping == ["app/wiring.py.jinja"]
    others = {name: found for name, found in tags.items() if name not in looping}
    assert {name: found for name, found in others.items() if found != {"include"}} == {}


def test_no_templated_python_file_branches(templated_python: dict[str, str]) -> None:
    """A variant is a file, so nothing in Python depends on an answer by a condition."""
    assert [name for name, text in templated_python.items() if CONDITION.search(text)] == []


def test_conditions_are_one_level_deep(template: Path) -> None:
    """Where a condition may stand, in text and configuration, none stands within another."""
    for path in (template / "template").rglob("*.jinja"):
        depth = 0
        for tag in TAG.findall(path.read_text(encoding="utf-8")):
            depth += {"if": 1, "endif": -1}.get(tag, 0)
            assert depth <= 1, path.name
