"""What owners do to their services, each kind to files of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..cli.conftest import files_in
from .versions import NEW_NAME, REMOVED, RENAMED, append, replace

RENAMED_BY_OWNER: Final = "observability/grafana-dashboard.json"
DELETED: Final = ".devcontainer/devcontainer.json"
COLLIDING: Final = "app/trace.py"
OWNERS_LINE: Final = '"""What an owner makes a request tell of its steps'
TEMPLATES_LINE: Final = '"""What 1.1.0 makes a request tell of its steps'


@dataclass(frozen=True, slots=True)
class Edit:
    kind: str
    make: Callable[[Path], None]
    stays: bool = False
    """Whether the template's changes pass its files by."""

    def apply(self, service: Path) -> set[str]:
        """The files that it has changed, added or taken away."""
        before = moments(service)
        self.make(service)
        after = moments(service)
        names = before.keys() | after.keys()
        return {name for name in names if before.get(name) != after.get(name)}


def moments(folder: Path) -> dict[str, int]:
    """When each file was written last."""
    return {name: (folder / name).stat().st_mtime_ns for name in files_in(folder)}


def _own_files(service: Path) -> None:
    (service / "app/owner").mkdir()
    (service / "app/owner/__init__.py").write_text('"""The owner\'s."""\n')
    (service / "größe.txt").write_bytes("nicht UTF-8: größer\r\n".encode("latin-1"))


def _owned_files(service: Path) -> None:
    for name in ("app/routes.py", "tests/test_routes.py"):
        append(service / name, "\n# The owner's.\n")


def _untouched_file(service: Path) -> None:
    append(service / ".dockerignore", "!owner.txt\n")


def _other_lines(service: Path) -> None:
    replace(
        service / "app/policy.py",
        ("BREAKER_FAILURES: Final = 5", "BREAKER_FAILURES: Final = 7"),
        ("BACKOFF_BASE_SECONDS: Final = 0.5", "BACKOFF_BASE_SECONDS: Final = 0.25"),
        ("KEEP_ALIVE_SECONDS: Final = 4.0\n", "# The owner's.\nKEEP_ALIVE_SECONDS: Final = 4.0\n"),
    )


def _same_lines(service: Path) -> None:
    first, rest = (service / COLLIDING).read_text().split("\n", 1)
    assert first.startswith('"""')
    (service / COLLIDING).write_text(f"{OWNERS_LINE}\n{rest}")


def _deleted(service: Path) -> None:
    (service / DELETED).unlink()


def _renamed_by_owner(service: Path) -> None:
    (service / RENAMED_BY_OWNER).rename(service / "observability/owner.json")


def _dependency(service: Path) -> None:
    replace(
        service / "pyproject.toml",
        ('    "aiohttp>=3.14",\n', '    "aiohttp>=3.14",\n    "boltons>=25.0",\n'),
    )


def _setting(service: Path) -> None:
    replace(
        service / "app/guardrails/environment/settings.py",
        (
            "    budget_timezone: str = Field(",
            '    motto: str = Field(default="", description="The owner\'s.")\n'
            "    budget_timezone: str = Field(",
        ),
    )
    replace(
        service / ".env.example",
        ("# Time zone whose", "# The owner's.\n# MOTTO=\n\n# Time zone whose"),
    )


def _in_renamed_file(service: Path) -> None:
    file = service / RENAMED
    replace(
        file if file.exists() else service / NEW_NAME,
        ("\nimport asyncio\n", "\n# The owner's.\nimport asyncio\n"),
        ("        self.closed = False\n", "        self.closed = False  # the owner's\n"),
    )


def _in_removed_file(service: Path) -> None:
    if (service / REMOVED).exists():
        append(service / REMOVED, "# The owner's.\n")


EDITS: Final = (
    Edit("own file", _own_files, stays=True),
    Edit("owned file", _owned_files, stays=True),
    Edit("untouched file", _untouched_file),
    Edit("other lines", _other_lines),
    Edit("same lines", _same_lines),
    Edit("deleted", _deleted),
    Edit("renamed", _renamed_by_owner, stays=True),
    Edit("dependency", _dependency),
    Edit("setting", _setting),
    Edit("in a renamed file", _in_renamed_file),
    Edit("in a removed file", _in_removed_file),
)
