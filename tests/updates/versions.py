"""A history of the template: what it is now, and seven versions after it, one for each kind of
change that an update has to carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from ..cli.conftest import commit, git
from ..rendering import take_snapshot

RENAMED: Final = "app/tasks.py"
NEW_NAME: Final = "app/background.py"
REMOVED: Final = ".github/dependabot.yml"
QUESTION: Final = {"team": "platform"}
"""The question that 1.4.0 adds, and its default."""


def build_template(folder: Path) -> Path:
    """A repository with a tag for each version."""
    root = take_snapshot(folder)
    git(root, "init", "--quiet")
    for version, make in VERSIONS.items():
        make(root)
        commit(root, version)
        git(root, "tag", version)
    git(root, "repack", "-adq")  # it is cloned again and again
    return root


def replace(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for old, new in pairs:
        assert text.count(old) == 1, f"{file.name} has {old!r} {text.count(old)} times, not once"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


def _as_it_is(root: Path) -> None:
    """The template of this repository."""


def _changed_files(root: Path) -> None:
    template = root / "template"
    replace(template / "app/policy.py", ("LEDGER_DAYS: Final = 35", "LEDGER_DAYS: Final = 36"))
    replace(template / "app/trace.py", ("What a request tells", "What 1.1.0 makes a request tell"))
    replace(template / ".devcontainer/devcontainer.json.jinja", ("[8000]", "[8000, 9000]"))
    dashboard = template / "observability/grafana-dashboard.json.jinja"
    replace(dashboard, ('"refresh": "30s"', '"refresh": "1m"'))
    for routes in (template / "app").glob("routes_*.py"):
        append(routes, "\n# 1.1.0\n")
    append(template / "tests/test_routes.py", "\n# 1.1.0\n")
    _tell(root, "1.1.0", notices=["The ledger keeps 36 days."])


def _renamed_file(root: Path) -> None:
    template = root / "template"
    (template / RENAMED).rename(template / NEW_NAME)
    append(template / NEW_NAME, "\n# 1.2.0\n")
    for name in ("service", "reply_stream", "chat"):
        replace(template / f"app/{name}.py", ("from .tasks import", "from .background import"))
    replace(template / "pyproject.toml.jinja", ("app.tasks |", "app.background |"))
    _give_up(root, RENAMED)
    _tell(root, "1.2.0", renamed={RENAMED: NEW_NAME})


def _removed_file(root: Path) -> None:
    (root / "template" / REMOVED).unlink()
    _give_up(root, REMOVED)
    _tell(root, "1.3.0", removed=[REMOVED], notices=["Dependabot is set up in GitHub now."])


def _new_question(root: Path) -> None:
    [(name, default)] = QUESTION.items()
    question = {"type": "str", "help": "Who is on call?", "default": default}
    append(root / "copier.yml", "\n" + yaml.safe_dump({name: question}))
    append(root / "template/README.md.jinja", "\nOn call is {{ " + name + " }}.\n")
    _tell(root, "1.4.0", notices=["On call is {{ " + name + " }}: `--set " + name + "=...`."])


def _changed_defaults(root: Path) -> None:
    replace(root / "copier.yml", ("{{ providers | first }}", "{{ providers | last }}"))
    settings = root / "template/app/guardrails/environment/settings.py"
    replace(
        settings,
        (
            "    rate_limit_requests: int = Field(\n        default=100,",
            "    rate_limit_requests: int = Field(\n        default=120,",
        ),
    )
    replace(
        root / "template/.env.example.jinja",
        ("RATE_LIMIT_REQUESTS=100", "RATE_LIMIT_REQUESTS=120"),
    )
    _tell(root, "1.5.0", notices=["RATE_LIMIT_REQUESTS is 120 where it is not set; it was 100."])


def _new_setting(root: Path) -> None:
    template = root / "template"
    described = "Whom to ask about this service."
    replace(
        template / "app/guardrails/environment/settings.py",
        (
            "    workers: int = Field(",
            f'    contact: str = Field(default="", description="{described}")\n'
            "    workers: int = Field(",
        ),
    )
    replace(
        template / ".env.example.jinja",
        ("# PORT=8000\n", f"# PORT=8000\n\n# {described}\n# CONTACT=\n"),
    )
    only_one = "{% if storage == 'memory' %}Nothing in memory tells the CONTACT.{% endif %}"
    _tell(root, "1.6.0", notices=["New variable CONTACT.", only_one])


def _new_dependency(root: Path) -> None:
    replace(
        root / "template/pyproject.toml.jinja",
        ('    "orjson>=3.13",\n', '    "orjson>=3.13",\n    "packaging>=24.0",\n'),
    )


VERSIONS: Final[dict[str, Callable[[Path], None]]] = {
    "1.0.0": _as_it_is,
    "1.1.0": _changed_files,
    "1.2.0": _renamed_file,
    "1.3.0": _removed_file,
    "1.4.0": _new_question,
    "1.5.0": _changed_defaults,
    "1.6.0": _new_setting,
    "1.7.0": _new_dependency,
}
FIRST, *_, LAST = VERSIONS


def is_crossed(version: str, start: str, end: str) -> bool:
    """Whether a service that goes from `start` to `end` takes this version in."""
    names = list(VERSIONS)
    return names.index(start) < names.index(version) <= names.index(end)


def _give_up(root: Path, name: str) -> None:
    replace(root / "copier.yml", ("\n_exclude:\n", f"\n_exclude:\n  - /{name}\n"))


def _tell(root: Path, version: str, **told: object) -> None:
    append(root / "versions.yml", yaml.safe_dump({version: told}, sort_keys=False))
