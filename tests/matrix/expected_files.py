"""Which files a combination has, told from the template's tree alone, without `_exclude`."""

from __future__ import annotations

from pathlib import Path

from tests.matrix.combinations import Combination

ANSWERS_FILE = ".copier-answers.yml"


def expected_files(template: Path, combination: Combination) -> set[str]:
    """Every file that is shared or named after a chosen value."""
    names = {path.relative_to(template) for path in template.rglob("*") if path.is_file()}
    values = combination.chosen | combination.not_chosen
    return {
        _rendered_name(name)
        for name in names
        if not values_named_by(name) & combination.not_chosen
        and not _is_included(name, names, values)
        and not _is_stub(name, names)
    }


def files_in(project: Path) -> set[str]:
    return {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}


def values_named_by(name: Path) -> set[str]:
    """What a file or one of its folders is called: `app/storage/sqlite.sql` names `sqlite`."""
    return {part.partition(".")[0] for part in name.parts if not part.startswith(".")}


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
