"""What files are called: fit for Windows and for file systems that ignore case.

The names of all combinations are told from the template's tree alone, without rendering them.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest

from tests.matrix.combinations import covering_combinations
from tests.matrix.expected_files import ANSWERS_FILE, expected_files
from tests.rendering import ROOT

# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file, "Naming conventions"
RESERVED = {
    *("con", "prn", "aux", "nul"),
    *(f"{device}{digit}" for device in ("com", "lpt") for digit in "123456789¹²³"),
}
FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f]')

# .../win32/fileio/maximum-file-path-limitation: MAX_PATH is 260 with the zero at its end. What
# is left below it is for the folder that an owner chooses.
MAX_PATH = 259
OWNERS_FOLDER = 100
IN_A_WORKTREE = MAX_PATH - OWNERS_FOLDER


def unfit(names: Iterable[str], *, longest: int) -> dict[str, str]:
    """The names that would not do, and why."""
    found: dict[str, str] = {}
    names = list(names)
    # Folders too: `App/x` and `app/y` are two folders here and one there.
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    spelt = Counter(path.casefold() for path in {*names, *folders})
    for name in names:
        parts = PurePosixPath(name).parts
        on_the_way = (name, *map(str, PurePosixPath(name).parents))
        if any(FORBIDDEN.search(part) for part in parts):
            found[name] = "has a character that is forbidden"
        elif any(part.rstrip(". ") != part for part in parts):
            found[name] = "ends with a dot or a space"
        elif any(part.partition(".")[0].rstrip().casefold() in RESERVED for part in parts):
            found[name] = "is the name of a device"
        elif any(spelt[path.casefold()] > 1 for path in on_the_way):
            found[name] = "differs from another by case alone"
        elif len(name.encode("utf-16-le")) // 2 > longest:
            found[name] = f"is longer than {longest}"
    return found


@pytest.mark.parametrize(
    "names",
    [
        *(["a<b"], ["a>b"], ["a:b"], ['a"b'], ["a|b"], ["a?b"], ["a*b/c"], ["a\\b"], ["a\nb"]),
        *(["a."], ["a "], ["a./b"], ["con"], ["app/AUX.py"], ["nul.tar.gz"], ["lpt9"], ["com¹"]),
        *(["app/x.py", "app/X.py"], ["App/x.py", "app/y.py"], ["é" * 160]),
    ],
    ids=ascii,
)
def test_what_windows_refuses_is_found(names: list[str]) -> None:
    """The test below can fail."""
    assert unfit(names, longest=IN_A_WORKTREE) != {}


def test_what_windows_takes_is_left_alone() -> None:
    """Dots at the beginning, spaces within, and names that only begin like a device's."""
    names = [".env", "a b", "console.py", "com10", "é" * 159, "app/x.py", "tests/x.py"]
    assert unfit(names, longest=IN_A_WORKTREE) == {}


def test_every_rendered_path_is_fit_for_windows(template: Path) -> None:
    """With a hundred characters left for where its owner keeps the service.

    Each file of any combination is in one of a few; all together, case has more to collide with.
    """
    few = (*covering_combinations(), *covering_combinations(all_at_once=True))
    names = set[str]().union(*(expected_files(template / "template", one) for one in few))
    assert ANSWERS_FILE in names
    assert unfit(names, longest=IN_A_WORKTREE) == {}


def test_every_path_of_the_repository_is_fit_for_windows() -> None:
    """Whoever clones it there gets all of it. Between braces stands Copier's own syntax."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert len(names) > 100
    assert unfit(names, longest=IN_A_WORKTREE) == {}
