"""What `.env.example` lists, against what was chosen. That it lists every setting, and no other, is
proven by the rendered project's own tests."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.matrix.combinations import Combination

ASSIGNMENT = re.compile(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
SECRET_NAMES = ("KEY", "KEYS", "TOKEN", "DSN", "WEBHOOK_URL")


def faults_of_example(project: Path, combination: Combination) -> Iterator[str]:
    """One line for each variable that is there twice, belongs to nobody's choice, or holds a key,
    and for each provider without a variable."""
    assignments = ASSIGNMENT.findall((project / ".env.example").read_text(encoding="utf-8"))
    providers = {value for axis in combination.axes if axis.multiple for value in axis.values}
    owners = {owner for name, _ in assignments if (owner := _owner(name, providers))}
    yield from (f"variables of {name}" for name in owners - combination.chosen)
    yield from (f"no variable of {name}" for name in (providers & combination.chosen) - owners)
    names = [name for name, _ in assignments]
    yield from (f"{name} twice" for name in set(names) if names.count(name) > 1)
    yield from (f"{name} with a value" for name, value in assignments if value and _is_secret(name))


def _owner(variable: str, providers: Collection[str]) -> str:
    """Of `openai` and `openai_compatible` the longer has `OPENAI_COMPATIBLE_MODEL`."""
    fitting = [name for name in providers if variable.startswith(f"{name.upper()}_")]
    return max(fitting, key=len, default="")


def _is_secret(variable: str) -> bool:
    return variable.endswith(SECRET_NAMES)
