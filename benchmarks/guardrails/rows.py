"""What is compared: unguarded services by hand, guarded ones as they are rendered, and peers."""

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
    "litellm": "LiteLLM",
    "portkey": "Portkey",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A service. Without a framework it is an unguarded one, by httpx alone or over another
    `transport`, or a `peer`; `keyed` says whether its callers send an `Idempotency-Key` with each
    request."""

    framework: str = ""
    storage: str = ""
    processes: int = 1
    keyed: bool = True
    transport: str = ""
    peer: str = ""

    @property
    def name(self) -> str:
        if self.peer:
            parts = [NAMES[self.peer]]
        elif self.framework:
            parts = [NAMES[self.framework], NAMES[self.storage]]
        else:
            parts = ["unguarded"]
        if self.transport:
            parts.append(f"over {self.transport}")
        if self.processes > 1:
            parts.append(f"{self.processes} processes")
        if not self.keyed:
            parts.append("no key sent")
        return ", ".join(parts)

    @property
    def baseline(self) -> Row:
        """The unguarded service with as many processes."""
        return Row(processes=self.processes)

    @property
    def beside(self) -> tuple[Row, ...]:
        """What it is compared with."""
        return (self.baseline, FASTAPI) if self.peer else (self.baseline,)


FASTAPI = Row("fastapi", "memory")
ROWS = (
    Row(),
    Row(transport="aiohttp"),
    FASTAPI,
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
LITELLM = Row(peer="litellm")
PEER_ROWS = (LITELLM, Row(peer="portkey"))
"""Only when they are asked for."""


def chosen(words: Iterable[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows whose name has one of these words, and what they are compared with."""
    wanted = [word.lower() for word in words]
    found = [row for row in rows if any(word in row.name.lower() for word in wanted)]
    needed = {other for row in found for other in (row, *row.beside)}
    return [row for row in rows if row in needed]
