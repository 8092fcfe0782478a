"""Modules of a rendered service that nothing imports: left over from an option not taken."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ENTRANCES = ("app.__main__", "app.main")


def unused_modules(project: Path) -> set[str]:
    """Those that no chain of imports reaches from where the service starts."""
    paths = {module_name(path, project): path for path in (project / "app").rglob("*.py")}
    reached: set[str] = set()
    waiting = list(ENTRANCES)
    while waiting:
        module = waiting.pop()
        if module in paths and module not in reached:
            reached.add(module)
            waiting += imports_of(paths[module], module)
    return set(paths) - reached


def module_name(path: Path, project: Path) -> str:
    parts = path.relative_to(project).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, module: str) -> tuple[str, ...]:
    """The modules that a file imports, and the packages that they are in."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _imports_in(path.read_text(encoding="utf-8"), package)


@cache  # combinations have most of their files in common
def _imports_in(source: str, package: str) -> tuple[str, ...]:
    return tuple(_each_import(source, package))


def _each_import(source: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(outer if node.level else ()), *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            yield from _with_packages(name)


def _with_packages(name: str) -> Iterator[str]:
    """`a.b.c` imports `a` and `a.b` as well."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))
