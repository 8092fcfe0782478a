"""Where a store is: its address is a secret like any other, and a file must have a place."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.guardrails.environment.startup import InvalidEnvironment, load
from sandbox.stores import redis

from ..rendering import render, take_snapshot
from .every_setting import PROVIDERS, STORES
from .nobody import as_nobody


@pytest.mark.promise("E3")
@pytest.mark.parametrize("place", ["service.db", "data/of/the/service.db", "file/service.db"])
def test_production_refuses_a_file_without_a_place(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A store's file that could not be written, or whose folder could not be made, is refused."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("PROVIDERS", "openai")
    with TemporaryDirectory() as name:
        (Path(name) / "file").touch()
        monkeypatch.setenv("SQLITE_PATH", str(Path(name) / place))
        assert ("SQLITE_PATH" in _problems()) is place.startswith("file")
        Path(name).chmod(0o555)
        with as_nobody():
            assert "SQLITE_PATH" in _problems()


def _problems() -> set[str]:
    with pytest.raises(InvalidEnvironment) as refused:
        load({"openai": PROVIDERS["openai"]}, STORES["sqlite"])
    return {problem.variable for problem in refused.value.problems}


def test_the_address_of_a_store_may_be_a_file(tmp_path: Path) -> None:
    """The check reaches the server that the file names, and shows no password."""
    project = tmp_path / "service"
    template = take_snapshot(tmp_path / "template")
    render(template, project, {"storage": "redis", "providers": ["openai"]})
    with redis.run() as url:
        (tmp_path / "url").write_text(f"{url}\n")
        status, output = _check(project, tmp_path / "url")
    assert status == 0 and "REDIS_URL_FILE  set" in output and url not in output
    status, output = _check(project, tmp_path / "url")
    assert status == 2 and "REDIS_URL  leads to no redis store" in output
    assert "redis://" not in output


def _check(project: Path, url: Path) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "app", "--check"],
        cwd=project,
        env={
            "PATH": os.environ["PATH"],
            "ENVIRONMENT": "development",
            "OPENAI_API_KEY": "sk-a-key",
            "REDIS_URL_FILE": str(url),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout
