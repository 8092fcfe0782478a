"""What is compared: an unguarded service by hand, and guarded ones as they are rendered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES = {
    "fastapi": "FastAPI",
    "litestar": "Litestar",
    "quart": "Quart",
    "django": "Django",
    "memory": "memory",
    "sqlite": "SQLite",
    "redis": "Redis",
    "postgres": "PostgreSQL",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A service. Without a framework it is the unguarded one; `keyed` says whether its callers send
    an `Idempotency-Key` with each request."""

    framework: str = ""
    storage: str = ""
    processes: int = 1
    keyed: bool = True

    @property
    def name(self) -> str:
        parts = [NAMES[self.framework], NAMES[self.storage]] if self.framework else ["unguarded"]
        if self.processes > 1:
            parts.append(f"{self.processes} processes")
        if not self.keyed:
            parts.append("no key sent")
        return ", ".join(parts)

    @property
    def baseline(self) -> Row:
        """The unguarded service with as many processes."""
        return Row(processes=self.processes)


ROWS = (
    Row(),
    Row("fastapi", "memory"),
    Row("fastapi", "memory", keyed=False),
    Row("litestar", "memory"),
    Row("quart", "memory"),
    Row("django", "memory"),
    Row("fastapi", "sqlite"),
    Row("fastapi", "redis"),
    Row("fastapi", "postgres"),
    # Memory storage serves in one process only.
    Row(processes=2),
    Row("fastapi", "sqlite", processes=2),
    Row("fastapi", "redis", processes=2),
    Row("fastapi", "postgres", processes=2),
)


def chosen(words: Iterable[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows whose name has one of these words, and what they are compared with."""
    wanted = [word.lower() for word in words]
    found = [row for row in rows if any(word in row.name.lower() for word in wanted)]
    needed = {row.name for row in found} | {row.baseline.name for row in found}
    return [row for row in rows if row.name in needed]
