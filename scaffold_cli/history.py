"""What a template tells of its own versions in `versions.yml`: files renamed, and notices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

HISTORY_FILE = "versions.yml"


class InvalidHistory(Exception):
    """It does not say what it should; the text names the place."""


@dataclass(frozen=True, slots=True)
class Version:
    """What one version tells. Paths are those of the rendered service.

    Notices are Jinja over the service's answers; one that renders to nothing does not concern it.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: Sequence[str] = ()
    notices: Sequence[str] = ()


History = Mapping[str, Version]
"""By the version's name, in the order of the file: the oldest first."""


def read_history(content: bytes | None) -> History:
    """None is that of a template which has no such file. Raises `InvalidHistory`."""
    try:
        parsed = yaml.safe_load(content or b"")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidHistory(f"{HISTORY_FILE} is no YAML") from error
    if not isinstance(parsed or {}, dict):
        raise InvalidHistory(f"{HISTORY_FILE} is no mapping of versions")
    return {str(name): _version(str(name), told) for name, told in (parsed or {}).items()}


def renames(history: History) -> dict[str, str]:
    """The next name of each file that some version has renamed."""
    return {old: new for told in history.values() for old, new in told.renamed.items()}


def notices_since(old: History, new: History) -> Iterator[tuple[str, str]]:
    """The versions' notices that `old` did not have yet, each with its version's name."""
    for name, told in new.items():
        known = old[name].notices if name in old else ()
        yield from ((name, notice) for notice in told.notices if notice not in known)


def _version(name: str, told: object) -> Version:
    told = {} if told is None else told
    if not isinstance(told, dict) or not told.keys() <= {"renamed", "removed", "notices"}:
        raise InvalidHistory(
            f"{HISTORY_FILE}: {name} may have `renamed`, `removed` and `notices`, nothing else"
        )
    renamed = told.get("renamed", {})
    removed, notices = told.get("removed", []), told.get("notices", [])
    if not isinstance(renamed, dict) or not _are_texts([*renamed, *renamed.values()]):
        raise InvalidHistory(f"{HISTORY_FILE}: `renamed` of {name} maps old paths to new ones")
    if not _are_texts(removed) or not _are_texts(notices):
        raise InvalidHistory(
            f"{HISTORY_FILE}: `removed` and `notices` of {name} are lists of texts"
        )
    return Version(renamed, removed, notices)


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
