"""A SQLite file that lives as long as the sandbox does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

VARIABLE = "SQLITE_PATH"


@contextmanager
def run() -> Iterator[str]:
    """Yields what the variable is to hold."""
    with TemporaryDirectory(prefix="sandbox-") as folder:
        yield str(Path(folder) / "sandbox.db")
