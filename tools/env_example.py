"""Writes `template/.env.example.jinja` from the settings' own descriptions: `make env-example`.

A setting is documented once, where it is defined. Its place in the file is its place in its class,
and a heading holds until the next one, so that a new setting needs nothing here.
"""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.fields import FieldInfo

from app.guardrails.environment.settings import Settings
from app.guardrails.environment.startup import variable_name, written
from app.variables import Variables

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLE: Final = ROOT / "template" / ".env.example.jinja"
COLUMNS: Final = 100
CODE: Final = re.compile(r"`([^`]*)`")
HELD: Final = "\0"
"""A blank that no line is broken at."""

INTRODUCTION: Final = (
    "Copy to .env and fill in. It is read in development only; production gets real variables.",
    "A line that is commented shows the default; `python -m app --check` shows what holds.",
    "A secret may also be a file: one under /run/secrets with its variable's name, or one that the"
    " variable points at when _FILE is added to the name.",
)
FIRST_OF_LIMITS: Final = "daily_budget_usd"
"""What providers and the store need stands before it: without that nothing runs."""
HEADINGS: Final = {
    "host": "the server",
    "log_level": "logs, metrics and docs",
    "allow_anonymous": "callers",
    "providers": "providers",
    "connect_timeout_seconds": "waits in seconds, attempts",
    "shutdown_delay_seconds": "shutdown",
    "idempotency_ttl_seconds": "repeated requests",
    "budget_timezone": "limits",
}
"""By the first setting of each part that few owners change."""
FIRST_OF_WAITS: Final = "connect_timeout_seconds"
"""What few change of the providers stands before it."""
FOR_EVERYONE: Final = ("api_key", "model")
"""What else of a provider stands in the first part, beside what it cannot do without."""
SET: Final = {"ENVIRONMENT": "development"}
"""What the example sets, since it is copied by developers."""
SHOWN: Final = {
    "PROVIDERS": "{{ ([primary_provider] + (providers | reject('equalto', primary_provider)"
    " | list)) | join(',') }}",
}
"""A default that depends on the answers."""


def example() -> str:
    """The text of the template."""
    providers = _titled("providers")
    adapters = {name: _module("providers", name).Adapter.settings_type for name in providers}
    stores = {name: _module("storage", name).Store.settings_type for name in _titled("storage")}
    blocks = ["\n".join(map(_comment, INTRODUCTION))]
    for field in Settings.model_fields:
        if field == FIRST_OF_LIMITS:
            for name, kind in adapters.items():
                blocks.append(_when(f'"{name}" in providers', _entries(kind, _needed(kind))))
            for name, kind in stores.items():
                if kind.model_fields:
                    blocks.append(_when(f'storage == "{name}"', _entries(kind, kind.model_fields)))
        if field == FIRST_OF_WAITS:
            for name, kind in adapters.items():
                others = [other for other in kind.model_fields if other not in _needed(kind)]
                entries = [_heading(providers[name]), *_entries(kind, others)]
                blocks.append(_when(f'"{name}" in providers', entries))
        if field in HEADINGS:
            blocks.append(_heading(HEADINGS[field]))
        blocks += _entries(Settings, [field])
    return "\n\n".join(blocks) + "\n"


def _titled(axis: str) -> Mapping[str, str]:
    """The values of a question of `copier.yml`, with what people call them."""
    question = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))[axis]
    return {value: label.partition(":")[0] for label, value in question["choices"].items()}


def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"app.{package}.{name}")


def _needed(kind: type[Variables]) -> list[str]:
    """What has no default comes first."""
    fields = kind.model_fields
    required = [field for field, info in fields.items() if info.is_required()]
    return required + [field for field in FOR_EVERYONE if field not in required]


def _entries(kind: type[Variables], fields: Iterable[str]) -> Iterator[str]:
    """What each is for, and its line."""
    for field in fields:
        info = kind.model_fields[field]
        assert info.description, f"{kind.__name__}.{field} has no description"
        yield f"{_comment(info.description)}\n{_line(variable_name(kind, field), info)}"


def _line(variable: str, info: FieldInfo) -> str:
    """To be filled in where there is no default; else a comment that shows it."""
    if variable in SET:
        return f"{variable}={SET[variable]}"
    if info.is_required():
        return f"{variable}="
    return f"# {variable}={SHOWN.get(variable) or written(info.get_default()) or ''}"


def _comment(text: str) -> str:
    """Code is in one piece, and without its marks."""
    bare = CODE.sub(lambda code: code[1].replace(" ", HELD), text)
    lines = textwrap.wrap(bare, COLUMNS - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines).replace(HELD, " ")


def _heading(title: str) -> str:
    return f"# --- Advanced: {title} ".ljust(COLUMNS, "-")


def _when(condition: str, entries: Iterable[str]) -> str:
    """No blank line is left where the condition does not hold."""
    return f"{{%- if {condition} %}}\n\n" + "\n\n".join(entries) + "\n{%- endif %}"


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
