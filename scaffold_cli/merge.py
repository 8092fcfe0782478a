"""What the template's way from one version to another does to an edited service, file by file.

git merges each file that both sides have changed. Copier's own update is not asked: it loses edits
to a file that is no UTF-8 text, and deletes an edited file that the template no longer has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from . import git
from .errors import UsageError
from .questionnaire import Answer

ANSWERS_FILE = ".copier-answers.yml"
PLAIN, EXECUTABLE, LINK = 0o100644, 0o100755, 0o120000


@dataclass(frozen=True, slots=True)
class File:
    """A file as git sees it; a link's content is where it points."""

    content: bytes
    mode: int


Tree = Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Change:
    """A file before and after; None where there is none."""

    before: File | None
    after: File | None


@dataclass(slots=True)
class Merge:
    """What an update does to the service, by the files' paths in it."""

    changes: dict[str, Change] = field(default_factory=dict)
    conflicts: dict[str, dict[int, File]] = field(default_factory=dict)
    """The sides of each conflict, by git's numbers: common, ours, theirs."""
    unmergeable: list[str] = field(default_factory=list)
    """Those of the conflicts that are no text: the owner's file stands."""
    kept_aside: dict[str, str] = field(default_factory=dict)
    """Where the owner's edited file lies whose place the template takes or gives up."""
    kept_before: dict[str, list[str]] = field(default_factory=dict)
    """Of a file that comes back, or is rendered anew: what earlier updates have kept aside."""
    ignored: Set[str] = frozenset()
    """Those of the names kept aside that git does not see."""
    renamed: dict[str, str] = field(default_factory=dict)
    """The new name of each file that the template has renamed, by its old one."""
    left_out: list[str] = field(default_factory=list)
    """Files that the template has changed and the owner has deleted."""

    def given_up(self) -> set[str]:
        """Those of the files kept aside whose place stays empty."""
        return {name for name in self.kept_aside if self.changes[name].after is None}


def merge_trees(
    folder: Path,
    old: Tree,
    new: Tree,
    is_owned: Callable[[str], bool],
    left: Answer | None,
    renamed: Mapping[str, str],
) -> Merge:
    """What the template's way from `old` to `new` does to the service in `folder`, file by file.

    What the owner owns stays as it is, unless it was written for a framework that is now `left`.
    What they have edited and the template no longer has is kept aside. A file that git ignores
    counts as deleted: nobody could bring it back, so it is not touched. `renamed` has the
    next name of each file that some version has renamed.
    """
    merge = Merge()
    tracked = git.tracked(folder)
    origins = _origins(old, new, tracked, renamed)
    for name in sorted((old.keys() | new.keys()) - set(origins.values())):
        origin = origins.get(name, name)
        # Who has renamed it already, as the template does now, has it under the new name.
        path = origin if origin in tracked else name
        mine = read_file(folder / path) if path in tracked else None
        if name == ANSWERS_FILE:
            if mine != new.get(name):
                merge.changes[name] = Change(mine, new.get(name))
        elif mine and is_owned(name):
            if left and name in new:
                _start_anew(merge, folder, name, old.get(origin), mine, new[name], str(left))
                _remember(merge, name, tracked, r"\.[^.]+")
        else:
            _merge_file(merge, folder, name, old.get(origin), mine, new.get(name))
            if not mine and name in merge.changes:
                _remember(merge, name, tracked)
        if mine and path != name:
            _rename(merge, path, name, mine)
    if merge.kept_aside:
        merge.ignored = git.ignored(folder, merge.kept_aside.values())
    return merge


def _origins(old: Tree, new: Tree, tracked: set[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """The name in `old` of each file that has another one in `new`.

    Where the service has files of both names, the one of the new name is its owner's own: then
    neither takes the other's place.
    """
    origins = {}
    for origin in old.keys() - new.keys():
        name = origin
        for _ in renamed:  # at most so often, whatever is declared
            name = name if name in new else renamed.get(name, name)
        if name in new and name not in old and not {origin, name} <= tracked:
            origins[name] = origin
    return origins


def _rename(merge: Merge, origin: str, name: str, mine: File) -> None:
    """Put what was decided of a file under its new name."""
    decided = merge.changes.get(name)
    merge.changes[origin] = Change(mine, None)
    merge.changes[name] = Change(None, decided.after if decided else mine)
    merge.renamed[origin] = name


def _start_anew(
    merge: Merge, folder: Path, name: str, old: File | None, mine: File, new: File, left: str
) -> None:
    """Render what the owner owns again; what they made of it is kept beside it."""
    if mine == new:
        return
    merge.changes[name] = Change(mine, new)
    if mine != old:
        _keep_aside(merge, folder, name, mine, f".{left}")


def _keep_aside(merge: Merge, folder: Path, name: str, mine: File, label: str = "") -> None:
    """Put what the owner has made of a file beside it, where no tool takes it for what it was.

    Nothing is overwritten: the first name is taken that is free or has the same content already.
    """
    for aside in _names_aside(name, label):
        is_free = not os.path.lexists(folder / aside)
        if is_free:
            merge.changes[aside] = Change(None, mine)
        if is_free or read_file(folder / aside) == mine:
            merge.kept_aside[name] = aside
            return


def _names_aside(name: str, label: str) -> Iterator[str]:
    """`x.py.orig`, `x.py.2.orig` and so on; with a label `x.label.py.orig`."""
    path = PurePosixPath(name)
    labelled = path.with_name(f"{path.stem}{label}{path.suffix}")
    yield f"{labelled}.orig"
    yield from (f"{labelled}.{number}.orig" for number in count(2))


def _remember(merge: Merge, name: str, tracked: set[str], label: str = "") -> None:
    """Find what earlier updates have kept aside of a file; `label` is a pattern."""
    path = PurePosixPath(name)
    stem, suffix = re.escape(str(path.with_suffix(""))), re.escape(path.suffix)
    aside = re.compile(rf"{stem}{label}{suffix}(\.\d+)?\.orig")
    kept = sorted(filter(aside.fullmatch, tracked - {merge.kept_aside.get(name)}))
    if kept:
        merge.kept_before[name] = kept


def _merge_file(
    merge: Merge, folder: Path, name: str, old: File | None, mine: File | None, new: File | None
) -> None:
    if new in (old, mine):
        return
    if mine == old:
        merge.changes[name] = Change(mine, new)
    elif mine is None:  # deleted by the owner, and so it stays
        if new is not None:
            merge.left_out.append(name)
    elif new is None:
        merge.changes[name] = Change(mine, None)
        _keep_aside(merge, folder, name, mine)
    else:
        _merge_contents(merge, name, old, mine, new)


def _merge_contents(merge: Merge, name: str, old: File | None, mine: File, new: File) -> None:
    """Both have changed the file, or both have added it."""
    common = old.content if old else b""
    merged = None
    if LINK not in (mine.mode, new.mode):
        merged = git.merge_file(mine.content, common, new.content)
    if merged is None:
        merge.unmergeable.append(name)
    else:
        mode = new.mode if old and mine.mode == old.mode else mine.mode
        merge.changes[name] = Change(mine, File(merged[0], mode))
    if merged is None or not merged[1]:
        sides = {1: old, 2: mine, 3: new}
        merge.conflicts[name] = {number: side for number, side in sides.items() if side}


def require_harmless(folder: Path, merge: Merge) -> None:
    """Raise `UsageError`, with the files' names, where the update would overwrite something."""
    tracked = git.tracked(folder)
    blocked = [name for name in merge.changes if _is_in_the_way(folder, name, tracked)]
    if blocked:
        raise UsageError(
            f"where the template puts a file lies something else: {', '.join(blocked)}; nothing was"
            f" changed. Move it elsewhere in {folder}, commit, then run this again"
        )


def _is_in_the_way(folder: Path, name: str, tracked: set[str]) -> bool:
    """Whether something that is no earlier state of the file lies at its path or above."""
    parents = [folder / parent for parent in PurePosixPath(name).parents][:-1]
    if any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents):
        return True
    return name not in tracked and os.path.lexists(folder / name)


def read_tree(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): file
        for path in folder.rglob("*")
        if (file := read_file(path))
    }


def read_file(path: Path) -> File | None:
    """The file at `path`; None where there is none."""
    if path.is_symlink():
        return File(os.fsencode(path.readlink()), LINK)
    if not path.is_file():
        return None
    return File(path.read_bytes(), EXECUTABLE if path.stat().st_mode & 0o100 else PLAIN)


def write_file(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.mode == LINK:
        path.symlink_to(os.fsdecode(file.content))
        return
    path.write_bytes(file.content)
    if file.mode == EXECUTABLE:
        path.chmod(path.stat().st_mode | 0o111)
