"""What no rendered file should show: Jinja, the scar of a removed block, an option not taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.matrix.combinations import Combination
from tests.matrix.expected_files import ANSWERS_FILE

# `{{` doubles a brace in an f-string and `${{` opens an expression of GitHub's workflows.
JINJA = re.compile(r"\{%|\{#|_copier|(?<!\$)\{\{-? ")
MAX_TEXT_BYTES = 1_000_000

GENERIC: Mapping[str, str] = {
    # The service speaks OpenAI's wire format whatever it calls, so of the provider there are only
    # its variables, its modules and its address.
    "openai": r"OPENAI_|(providers|vendors|sandbox)[./]openai|platform\.openai|api\.openai|gpt-\d",
    # Every service has some.
    "memory": r"(?<![\w.])(storage|stores)[./]memory|MemorySettings|\bmemory storage\b",
}


def blemishes_in(project: Path, combination: Combination) -> list[str]:
    """One line for each, with file and line number."""
    found: list[str] = []
    for path in sorted(project.rglob("*")):
        name = path.relative_to(project).as_posix()
        if not path.is_file() or name == ANSWERS_FILE or path.stat().st_size > MAX_TEXT_BYTES:
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{name}: {scar}" for scar in _scars(text, path.suffix)]
        found += [f"{name}: its name is a trace of {value}" for value in _traces(name, combination)]
        if not JINJA.search(text) and not any(_traces(text, combination)):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if JINJA.search(line):
                found.append(f"{name}:{number}: Jinja: {line.strip()}")
            found += [
                f"{name}:{number}: a trace of {value}: {line.strip()}"
                for value in _traces(line, combination)
            ]
    return found


@cache  # combinations have most of their files in common
def _scars(text: str, suffix: str) -> tuple[str, ...]:
    return tuple(_each_scar(text, suffix))


def _each_scar(text: str, suffix: str) -> Iterator[str]:
    if not text.strip():
        yield "empty"
        return
    if not text.endswith("\n"):
        yield "no newline at the end"
    if text.startswith("\n") or text.endswith("\n\n"):
        yield "a blank line at the beginning or the end"
    lines = text.split("\n")
    most = 2 if suffix == ".py" else 1
    for number in range(1, len(lines) - most):
        if lines[number - 1] and not any(lines[number : number + most + 1]):
            yield f"more than {most} blank line{'s' * (most > 1)} after line {number}"
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield f"blanks at the end of line {number}"


def _traces(said: str, combination: Combination) -> Iterator[str]:
    for value in sorted(combination.not_chosen):
        # One value's name may begin another's.
        longer = tuple(name for name in sorted(combination.chosen) if name.startswith(value))
        if _is_named(said, value, combination.title(value), longer):
            yield value


@cache
def _is_named(said: str, value: str, title: str, longer: tuple[str, ...]) -> bool:
    """Whether `value` is, by itself and not as the beginning of a longer name."""
    for name in longer:
        said = re.sub(_word(name), "", said, flags=re.IGNORECASE)
    if value in GENERIC:
        return re.search(GENERIC[value], said) is not None
    return re.search(f"{_word(value)}|{_word(title)}", said, re.IGNORECASE) is not None


def _word(name: str) -> str:
    return rf"(?<![a-zA-Z0-9]){re.escape(name)}(?![a-zA-Z0-9])"
