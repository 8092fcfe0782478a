"""What a render records, what it defaults to, and that git's checkout renders just the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scaffold_cli.questionnaire import Answer
from tests.matrix.combinations import (
    PROJECT_NAME,
    Combination,
    all_combinations,
    default_combination,
)
from tests.matrix.conftest import EnvironmentOf, Render
from tests.matrix.expected_files import ANSWERS_FILE, files_in
from tests.rendering import ROOT, CommandFailed, render, run, take_snapshot


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A service made as a user makes one: `copier copy` from this repository's git checkout."""
    project = tmp_path / "checkout"
    flags = ["--defaults", "--quiet", "--vcs-ref", "HEAD", "--data", f"project_name={PROJECT_NAME}"]
    subprocess.run(
        [sys.executable, "-m", "copier", "copy", *flags, str(ROOT), str(project)],
        check=True,
        timeout=120,
    )
    return project


def contents(project: Path) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in files_in(project)}


def answers_of(project: Path) -> dict[str, object]:
    answers = yaml.safe_load((project / ANSWERS_FILE).read_text(encoding="utf-8"))
    assert isinstance(answers, dict)
    return answers


def test_the_defaults_render(template: Path, tmp_path: Path, rendered: Render) -> None:
    """Without an answer but the name, a service is rendered, and it is one of the combinations."""
    assert str(default_combination()) in map(str, all_combinations())
    render(template, tmp_path / "defaults", {"project_name": PROJECT_NAME})
    assert contents(tmp_path / "defaults") == contents(rendered(default_combination()))


def test_the_name_is_the_folders_unless_given(template: Path, tmp_path: Path) -> None:
    """No answer at all will do."""
    render(template, tmp_path / "My Service", {})
    assert answers_of(tmp_path / "My Service")["project_name"] == "my-service"


def test_a_checkout_renders_as_the_working_tree_does(checkout: Path, tmp_path: Path) -> None:
    """What the matrix tests is what a user gets."""
    snapshot = take_snapshot(tmp_path / "template")
    render(snapshot, tmp_path / "snapshot", {"project_name": PROJECT_NAME})
    from_checkout, from_snapshot = contents(checkout), contents(tmp_path / "snapshot")
    del from_checkout[ANSWERS_FILE], from_snapshot[ANSWERS_FILE]
    assert from_checkout == from_snapshot


def test_the_answers_file_holds_what_an_update_needs(checkout: Path) -> None:
    """It names the template, its commit and each answer, and nothing that might be a secret."""
    answers = answers_of(checkout)
    assert Path(str(answers["_src_path"])) == ROOT
    assert answers["_commit"]
    questions = {
        name: question
        for name, question in yaml.safe_load((ROOT / "copier.yml").read_text()).items()
        if not name.startswith("_")
    }
    assert set(answers) == {"_src_path", "_commit", *questions}
    assert [name for name, question in questions.items() if question.get("secret")] == []


def test_recorded_answers_render_the_same_again(
    template: Path, tmp_path: Path, rendered: Render
) -> None:
    """The file alone makes the service anew."""
    project = rendered(default_combination())
    answers: dict[str, Answer] = {
        name: answer if isinstance(answer, list) else str(answer)
        for name, answer in answers_of(project).items()
        if not name.startswith("_")
    }
    render(template, tmp_path / "again", answers)
    assert contents(tmp_path / "again") == contents(project)


def several() -> list[Combination]:
    """Combinations whose order of fallback is asked for."""
    return [c for c in all_combinations() if any(len(values) > 1 for values in c.selections)]


def test_the_primary_provider_only_orders(template: Path, tmp_path: Path) -> None:
    """Another primary provider changes the default order, where that stands, and nothing else."""
    combination = several()[-1]
    values = next(values for values in combination.selections if len(values) > 1)
    for primary in (values[0], values[-1]):
        answers = {**combination.answers, "primary_provider": primary}
        render(template, tmp_path / primary, answers)
    first, last = contents(tmp_path / values[0]), contents(tmp_path / values[-1])
    assert first.keys() == last.keys()
    changed = {name for name in first if first[name] != last[name]}
    assert changed == {ANSWERS_FILE, ".env.example", "README.md", "app/wiring.py"}
    adapters = re.findall(r"(\w+)\.Adapter", last["app/wiring.py"].decode())
    assert adapters == [values[-1], *values[:-1]]


def test_the_example_environment_works(rendered: Render, environment_of: EnvironmentOf) -> None:
    """As `.env` it is refused for its empty keys alone, and with those filled in it is fit."""
    project = rendered(default_combination())
    environment = environment_of(project)
    check = [environment.python, "-m", "app", "--check"]
    example = (project / ".env.example").read_text(encoding="utf-8")
    to_fill_in = re.findall(r"^(\w+)=$", example, re.MULTILINE)
    (project / ".env").write_text(example)
    with pytest.raises(CommandFailed) as refused:
        run(check, project, environment.variables())
    assert named_in(str(refused.value)) == to_fill_in
    (project / ".env").write_text(re.sub(r"^(\w+)=$", r"\1=4f0c-a-real-one", example, flags=re.M))
    assert "fit" in run(check, project, environment.variables())


def test_the_example_environment_works_with_every_provider(
    rendered: Render, environment_of: EnvironmentOf
) -> None:
    """What a provider needs beside a key, an address or a price, is empty in the example as well,
    and each is named."""
    project = rendered(all_combinations()[-1])
    environment = environment_of(project)
    check = [environment.python, "-m", "app", "--check"]
    example = (project / ".env.example").read_text(encoding="utf-8")
    to_fill_in = re.findall(r"^(\w+)=$", example, re.MULTILINE)
    (project / ".env").write_text(example)
    with pytest.raises(CommandFailed) as refused:
        run(check, project, environment.variables())
    assert sorted(named_in(str(refused.value))) == sorted(to_fill_in)
    for name in to_fill_in:
        example = re.sub(rf"^{name}=$", f"{name}={filled_in(name)}", example, flags=re.MULTILINE)
    (project / ".env").write_text(example)
    assert "fit" in run(check, project, environment.variables())


def named_in(output: str) -> list[str]:
    """The variables that the table of problems names."""
    return re.findall(r"^  ([A-Z_]+) ", output, re.MULTILINE)


def filled_in(name: str) -> str:
    """What a person might put there."""
    by_ending = {"_URL": "http://localhost:11434/v1", "_USD_PER_MTOK": "0"}
    found = (value for ending, value in by_ending.items() if name.endswith(ending))
    return next(found, "4f0c-a-real-one")
