"""The new service's environment: one `uv sync`, with something to look at while it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .errors import ScaffoldError, UsageError


def find_uv() -> str:
    """The uv that runs this command, or the one on the PATH. Raises `UsageError` without either."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise UsageError(
            "uv is not on the PATH: install it (https://docs.astral.sh/uv), or pass --no-install"
        )
    return uv


def install(uv: str, folder: Path, console: Console) -> None:
    """Make the environment of the service in `folder`. Raises `ScaffoldError` with what uv said."""
    started = time.monotonic()
    with _progress("Installing the environment with uv sync", console):
        # Both name the environment of whoever called us; uv would sync that one.
        ignored = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}
        environment = {name: value for name, value in os.environ.items() if name not in ignored}
        result = subprocess.run(
            [uv, "sync", "--quiet"],
            cwd=folder,
            env=environment,
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


def _progress(description: str, console: Console) -> Progress:
    if not console.is_terminal:
        console.print(f"{description} ...")
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    progress.add_task(description, total=None)
    return progress
