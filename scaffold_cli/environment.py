"""A service's own environment: uv and what it is run with, and something to look at meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ScaffoldError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def find_uv(otherwise: str = ", or pass --no-install") -> str:
    """The uv that runs this command, or the one on the PATH. Raises `UsageError` without either."""
    uv = shutil.which(os.environ.get("UV") or "uv") or shutil.which("uv")
    if uv is None:
        raise UsageError(
            f"uv is not on the PATH: install it (https://docs.astral.sh/uv){otherwise}"
        )
    return uv


def service_variables() -> dict[str, str]:
    """Ours, without those that name the environment of whoever called us: uv would change that."""
    ignored = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}
    variables = {name: value for name, value in os.environ.items() if name not in ignored}
    return variables if _has_cache() else {**variables, "UV_NO_CACHE": "1"}


def _has_cache() -> bool:
    """Whether uv can keep one, without which it refuses to do anything; as in a read-only home."""
    if os.name == "nt" or os.environ.get("UV_CACHE_DIR"):
        return True  # what is named is to be used, and complained about
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "uv")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(cache, os.W_OK | os.X_OK)


def install(uv: str, folder: Path, console: Console) -> None:
    """Make the environment of the service in `folder`. Raises `ScaffoldError` with what uv said."""
    started = time.monotonic()
    with progress("Installing the environment with uv sync", console):
        result = subprocess.run(
            [uv, "sync", "--quiet"],
            cwd=folder,
            env=service_variables(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        raise ScaffoldError(
            result.stderr.strip() or f"uv sync ended with status {result.returncode}"
        )
    console.print(f"Installed the environment in {time.monotonic() - started:.1f} s")


def progress(description: str, console: Console) -> Progress:
    """The time that passes, on a terminal, and one line elsewhere."""
    # Imported here: `new --no-install` shows none.
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        console.print(f"{description} ...")
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    bar.add_task(description, total=None)
    return bar
