"""The default service, rendered once, and what it needs to be fit."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..rendering import render, take_snapshot

FIT = {
    "ENVIRONMENT": "development",
    "OPENAI_API_KEY": "sk-an-openai-key",
    "ANTHROPIC_API_KEY": "sk-ant-an-anthropic-key",
    "SQLITE_PATH": "service.db",
}

Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("rendered") / "service"
    render(take_snapshot(tmp_path_factory.mktemp("template")), destination, {})
    return destination


@pytest.fixture
def start(rendered: Path, tmp_path: Path) -> Start:
    """Runs `python -m app`, in a folder of the test's own, under these variables until it ends;
    `None` takes one away from what is fit."""

    def run(*arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=tmp_path,
            env=variables(rendered, changes),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def variables(rendered: Path, changes: dict[str, str | None]) -> dict[str, str]:
    """Those of a fit service with these changes, and nothing of this process's own."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(rendered), **FIT, **changes}
    return {name: value for name, value in given.items() if value is not None}
