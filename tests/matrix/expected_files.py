"""Which files a combination has, told from the template's tree alone, without `_exclude`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from tests.matrix.combinations import Combination
from tests.matrix.unused_modules import imports_of, module_name

ANSWERS_FILE = ".copier-answers.yml"


def expected_files(template: Path, combination: Combination) -> set[str]:
    """Every file that is shared or named after a chosen value, or that a chosen one needs."""
    names = {path.relative_to(template) for path in template.rglob("*") if path.is_file()}
    values = combination.chosen | combination.not_chosen
    needed_by = values_that_need(template, values)
    return {
        _rendered_name(name)
        for name in names
        if not values_named_by(name) & combination.not_chosen
        and _needed_by(name, needed_by, values) & combination.chosen
        and not _is_included(name, names, values)
        and not _is_stub(name, names)
    }


def _needed_by(
    name: Path, modules: Mapping[Path, frozenset[str]], values: frozenset[str]
) -> frozenset[str]:
    """A module that some values share, or a file beside it that begins with its name: its SQL or
    Lua. Any other file is needed by all."""
    module = name.with_name(f"{name.name.partition('.')[0]}.py")
    return modules.get(module, values)


def files_in(project: Path) -> set[str]:
    return {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}


def values_named_by(name: Path) -> set[str]:
    """What a file or one of its folders is called: `app/storage/sqlite.sql` names `sqlite`."""
    return {part.partition(".")[0] for part in name.parts if not part.startswith(".")}


def values_that_need(template: Path, values: Collection[str]) -> Mapping[Path, frozenset[str]]:
    """The modules that are imported by nothing but files of these values, and by which of them."""
    paths = {
        module_name(path, template): path
        for package in ("app", "sandbox")
        for path in (template / package).rglob("*.py")
    }
    importers: dict[str, set[str]] = {module: set() for module in paths}
    for module, path in paths.items():
        for imported in set(imports_of(path, module)) & set(paths):
            importers[imported].add(module)
    owners = {module: values_named_by(Path(*module.split("."))) & set(values) for module in paths}
    return {
        paths[module].relative_to(template): frozenset[str]().union(
            *(owners[importer] for importer in by)
        )
        for module, by in importers.items()
        if by and not owners[module] and all(owners[importer] for importer in by)
    }


def _is_included(name: Path, names: set[Path], values: frozenset[str]) -> bool:
    """A variant that a file includes: `routes_x.py` beside `routes.py.jinja`."""
    bases = (name.stem.removesuffix(f"_{value}") for value in values)
    return name.suffix == ".py" and any(name.with_name(f"{b}.py.jinja") in names for b in bases)


def _is_stub(name: Path, names: set[Path]) -> bool:
    """It stands for a file that is not rendered yet: `wiring.pyi` beside `wiring.py.jinja`."""
    return name.suffix == ".pyi" and name.with_name(f"{name.stem}.py.jinja") in names


def _rendered_name(name: Path) -> str:
    if "_copier_conf.answers_file" in name.name:
        return name.with_name(ANSWERS_FILE).as_posix()
    return name.as_posix().removesuffix(".jinja")
