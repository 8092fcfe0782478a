"""A tiny template in a repository of its own, and ways to run `scaffold` against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pexpect
import pytest

SCAFFOLD = str(Path(sys.executable).with_name("scaffold"))
ROOT = Path(__file__).parents[2]

COPIER_YML = """\
_subdirectory: template
_envops: {undefined: jinja2.StrictUndefined}
_exclude:
  - "{% for name in ['alpha', 'beta'] if name != framework %}\\napp/{{ name }}.py\\n{% endfor %}"
_message_after_copy: |
  {{ project_name }} is ready.
    cd {{ _copier_conf.dst_path | string | quote }}

project_name:
  type: str
  help: Its name?
  default: "{{ _folder_name | lower | regex_replace('[^a-z0-9]+', '-') | trim('-') }}"
  validator: "{% if not project_name | regex_search('^[a-z0-9-]+$') %}use a-z, 0-9 and -{% endif %}"
framework:
  type: str
  help: Its framework?
  default: alpha
  choices: {"Alpha: the first": alpha, "Beta: the second": beta}
storage:
  type: str
  help: Its storage?
  default: disk
  choices: {"Disk: slow": disk, "Memory: fast": memory}
providers:
  type: str
  multiselect: true
  help: Its providers?
  default: [red, green]
  choices: {"Red: warm": red, "Green: calm": green, "Blue: cold": blue}
  validator: "{% if not providers %}choose at least one{% endif %}"
primary_provider:
  type: str
  help: The first of them?
  when: "{{ providers | length > 1 }}"
  default: "{{ providers | first }}"
  choices: "{{ providers | to_json }}"
"""

FILES = {
    "{{_copier_conf.answers_file}}.jinja": "{{ _copier_answers | to_nice_yaml -}}\n",
    "pyproject.toml.jinja": """\
[project]
name = "{{ project_name }}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = []

[tool.uv]
package = false
""",
    ".gitignore": ".venv/\n",
    "app/alpha.py": "",
    "app/beta.py": "",
    "README.md.jinja": "{{ project_name }} prefers {{ primary_provider }}\n",
}

Scaffold = Callable[..., "subprocess.CompletedProcess[str]"]
Terminal = Callable[..., "pexpect.spawn[str]"]


def git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    identity = ["-c", "user.name=Author", "-c", "user.email=author@example.com"]
    git(folder, *identity, "commit", "--quiet", "--message", message)


def files_in(folder: Path) -> set[str]:
    """Every file below `folder`, git's own left out."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def write_template(root: Path) -> Path:
    """The tiny template's files."""
    for name, content in {
        "copier.yml": COPIER_YML,
        **{f"template/{k}": v for k, v in FILES.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template with one commit."""
    root = write_template(tmp_path / "template-repository")
    git(root.parent, "init", "--quiet", str(root))
    commit(root, "Template")
    return root


@pytest.fixture
def dependent_template(template: Path) -> Path:
    """The template, whose services need a package that only an index has."""
    pyproject = template / "template/pyproject.toml.jinja"
    content = pyproject.read_text()
    pyproject.write_text(content.replace("dependencies = []", 'dependencies = ["one-of-many"]'))
    commit(template, "A dependency")
    return template


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """The folder in which `scaffold` is called; empty, so that what is left behind shows."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the command keeps temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def variables(tmp_path: Path, template: Path, temporary: Path) -> dict[str, str]:
    """The environment of a person with git set up and nothing else of this machine's."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.com\n")
    kept = ("PATH", "LANG", "UV", "UV_CACHE_DIR", "UV_PYTHON_DOWNLOADS", "PYENV_VERSION")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "GIT_CONFIG_NOSYSTEM": "1",
        "SCAFFOLD_TEMPLATE": str(template),
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # pexpect's terminal does not tell where its cursor is
    }


@pytest.fixture
def scaffold(workplace: Path, variables: Mapping[str, str]) -> Scaffold:
    """Runs `scaffold` without a terminal."""

    def run(
        *arguments: str | Path, cwd: Path = workplace, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCAFFOLD, *map(str, arguments)],
            cwd=cwd,
            env={**variables, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def terminal(workplace: Path, variables: Mapping[str, str]) -> Iterator[Terminal]:
    """Runs `scaffold` in a terminal of its own."""
    children: list[pexpect.spawn[str]] = []

    def spawn(*arguments: str, **more: str) -> pexpect.spawn[str]:
        child = pexpect.spawn(
            SCAFFOLD,
            list(arguments),
            cwd=str(workplace),
            env={**variables, **more},
            encoding="utf-8",
            timeout=30,
            dimensions=(40, 120),
        )
        children.append(child)
        return child

    yield spawn
    for child in children:
        child.close(force=True)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a stand-in for a program, such as a uv that cannot reach its index."""

    def write(name: str, script: str) -> Path:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def path_without(tmp_path: Path) -> Callable[[str], str]:
    """A PATH on which one program is missing."""

    def build(missing: str) -> str:
        folder = tmp_path / f"path-without-{missing}"
        folder.mkdir()
        for directory in os.environ["PATH"].split(os.pathsep):
            for program in Path(directory).glob("*"):
                link = folder / program.name
                if program.name != missing and not link.is_symlink():
                    link.symlink_to(program)
        return str(folder)

    return build
