"""Where the values of settings come from. The first of these that has one counts: the process's
environment, `.env` in development, and a file under `/run/secrets` named like the variable. A
secret may also stand in the file that `<NAME>_FILE` points at, in either of the first two.

No message repeats a value, nor what a `_FILE` variable holds: it may be the key itself.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

MAX_SECRET_BYTES: Final = 64 * 1024
ALIKE: Final = 0.9
"""So close is one wrong letter of ten; `LOG_FORMATTER` and `LOG_FORMAT` have 0.87."""
UNITS: Final = ("_SECONDS", "_USD")
"""What is easily forgotten at the end of a name."""


class Unusable(Exception):
    """A source that is there and cannot be used. `remedy` goes with the variable's name."""

    def __init__(self, variable: str, remedy: str) -> None:
        super().__init__(f"{variable} {remedy}")
        self.variable = variable
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Found:
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Misspelt:
    """`name` is set and `right` is probably meant. Not `is_close`: it is only shorter."""

    name: str
    right: str
    is_close: bool


class Sources:
    """Everything that settings may be read from, by the variables' names, in capitals or not."""

    def __init__(
        self, environment: Mapping[str, str], dotenv: Mapping[str, str], folder: Path
    ) -> None:
        self._layers = {"environment": _in_capitals(environment), ".env": _in_capitals(dotenv)}
        self._folder = folder
        self._files = _files_by_name(folder)

    def find(self, variable: str, *, is_secret: bool) -> Found | None:
        """What `variable` is set to, and by which source.

        An empty variable of a secret counts only where nothing else has a value: Compose passes on
        empty ones. Raises `Unusable`.
        """
        empty: Found | None = None
        for source, layer in self._layers.items():
            value = layer.get(variable)
            path = layer.get(f"{variable}_FILE") if is_secret else None
            if value and path:
                raise Unusable(f"{variable}_FILE", f"is set, and so is {variable}; remove one")
            if path:
                return Found(_read_named(f"{variable}_FILE", Path(path)), f"{variable}_FILE")
            if value or (value is not None and not is_secret):
                return Found(value, source)
            if value is not None and empty is None:
                empty = Found(value, source)
        return self._find_mounted(variable) or empty

    def misspelt(self, known: Collection[str]) -> Iterator[Misspelt]:
        """Variables that nobody reads, each with the one of `known` that it is taken for.

        Others' variables are left alone: the process's environment is not ours. So a name must
        have several words, as ours, begin like one of ours and be nearly the same, and what has a
        word more is another name (`SERVICE_API_KEYS_2`).
        """
        names = {name for layer in self._layers.values() for name in layer}
        long = [name for name in known if "_" in name]
        for name in sorted(names.difference(known)):
            shortened = [f"{name}{unit}" for unit in UNITS if f"{name}{unit}" in known]
            like_ours = [other for other in long if other[:3] == name[:3] and "_" in name]
            close = get_close_matches(name, like_ours, n=1, cutoff=ALIKE)
            if shortened:
                yield Misspelt(name, shortened[0], is_close=False)
            elif close and not _has_more_words(name, close[0]):
                yield Misspelt(name, close[0], is_close=True)

    def _find_mounted(self, variable: str) -> Found | None:
        files = self._files.get(variable, [])
        if len(files) > 1:
            raise Unusable(variable, f"is there twice in {self._folder}, in capitals and not")
        return Found(_read_mounted(variable, files[0]), str(self._folder)) if files else None


def read_dotenv(path: Path) -> dict[str, str]:
    """What a `.env` file sets; nothing without one. Raises `Unusable`."""
    if not path.is_file():
        return {}
    try:
        # Some editors put a byte order mark before the first name.
        values = dotenv_values(path, encoding="utf-8-sig")
    except (OSError, UnicodeError):
        remedy = "cannot be read; save it as UTF-8, for the user who runs the service"
        raise Unusable(str(path), remedy) from None
    return {name: value for name, value in values.items() if value is not None}


def _in_capitals(variables: Mapping[str, str]) -> dict[str, str]:
    """Where a name is there in capitals too, these count: they sort before small letters."""
    return {name.upper(): variables[name] for name in sorted(variables, reverse=True)}


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Nothing for a folder that may not be listed: the platform's own may be there."""
    files: dict[str, list[Path]] = {}
    try:
        for path in folder.iterdir():
            files.setdefault(path.name.upper(), []).append(path)
    except OSError:
        return {}
    return files


def _has_more_words(name: str, than: str) -> bool:
    """Whether `name` has all words of the other, in their order, and others between or around."""
    words = iter(name.split("_"))
    return all(word in words for word in than.split("_"))


def _read_named(variable: str, path: Path) -> str:
    try:
        return _read(path)
    except ValueError as error:
        raise Unusable(variable, f"names {error}") from None


def _read_mounted(variable: str, path: Path) -> str:
    try:
        return _read(path)
    except ValueError as error:
        raise Unusable(variable, f"has {error} in {path.parent}") from None


def _read(path: Path) -> str:
    """The text of a file without blanks around it. Raises `ValueError`, saying what it is."""
    try:
        mode = os.stat(path).st_mode
        content = _begin(path) if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        raise ValueError("a file that does not exist; it takes a path") from None
    except PermissionError:
        raise ValueError("a file that this user may not read") from None
    except (OSError, ValueError):  # the latter for a path that none can be
        raise ValueError("a file that cannot be read; it takes a path") from None
    if content is None:
        raise ValueError("a folder, not a file" if stat.S_ISDIR(mode) else "no regular file")
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"a file of more than {MAX_SECRET_BYTES // 1024} KiB")
    try:
        text = content.decode().strip()
    except UnicodeError:
        raise ValueError("a file that is no UTF-8 text") from None
    if not text:
        raise ValueError("a file that is empty")
    return text


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_SECRET_BYTES + 1)
