"""`deploy/secrets.sh`, run as its reader would."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.packaging.conftest import SHARED_BY_HOSTS, Rendered
from tests.stores import stores_with_servers

pytestmark = pytest.mark.xdist_group("packaging")


def run(service: Rendered, folder: Path, answers: str) -> subprocess.CompletedProcess[str]:
    (folder / "deploy").mkdir(exist_ok=True)
    (folder / "deploy/secrets.sh").write_text(service.text("deploy/secrets.sh"))
    return subprocess.run(
        ["sh", "deploy/secrets.sh"], cwd=folder, input=answers, capture_output=True, text=True
    )


def typed(service: Rendered) -> str:
    return "".join(f"typed for {name}\n" for name in service.providers)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / ".secrets").iterdir()}


def test_it_writes_what_is_mounted(service: Rendered, tmp_path: Path) -> None:
    """One file for each secret that Compose names; a key is what was typed for it, the others are
    long, new each time, and told to nobody."""
    done = run(service, tmp_path, typed(service))
    assert done.returncode == 0, done.stderr
    written = contents(tmp_path)
    files = service.yaml("compose.yaml")["secrets"].values()
    assert {f".secrets/{name}" for name in written} == {secret["file"] for secret in files}
    for name in service.providers:
        assert written[f"{name}_api_key"] == f"typed for {name}\n"
    (tmp_path / "again").mkdir()
    run(service, tmp_path / "again", typed(service))
    again = contents(tmp_path / "again")
    made = written.keys() - {f"{name}_api_key" for name in service.providers}
    assert made and not [name for name in made if written[name] == again[name]]
    assert all(len(written[name]) >= 64 for name in made)
    said = done.stdout + done.stderr
    assert not [value for value in written.values() if value.strip() in said]


def test_it_keeps_what_is_there(service: Rendered, tmp_path: Path) -> None:
    """A second run asks nothing and changes nothing; a file that is gone is made anew."""
    run(service, tmp_path, typed(service))
    before = contents(tmp_path)
    assert run(service, tmp_path, "").returncode == 0
    assert contents(tmp_path) == before
    (tmp_path / ".secrets/metrics_token").unlink()
    assert run(service, tmp_path, "").returncode == 0
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"metrics_token"}


def test_the_stores_password_is_one(service: Rendered, tmp_path: Path) -> None:
    """The store is given the password that stands in the service's URL, and the owner's own URL is
    not overwritten."""
    run(service, tmp_path, typed(service))
    written = contents(tmp_path)
    if service.storage not in SHARED_BY_HOSTS:
        assert not [text for text in written.values() if "://" in text]
        return
    name = stores_with_servers()[service.storage].VARIABLE.lower()
    url = urlsplit(written[name].strip())
    store = service.yaml("compose.yaml")["services"][url.hostname]
    given = [written[secret].split() for secret in store["secrets"]]
    assert url.password and given and all(url.password in words for words in given)
    (tmp_path / ".secrets" / name).write_text("of my own\n")
    for secret in store["secrets"]:
        (tmp_path / ".secrets" / secret).unlink()
    assert run(service, tmp_path, "").returncode == 0
    again = contents(tmp_path)
    assert again[name] == "of my own\n"
    assert not [secret for secret in store["secrets"] if again[secret] == written[secret]]


def test_nobody_else_gets_in(services: Mapping[str, Rendered], tmp_path: Path) -> None:
    """The folder is the owner's alone; in a container, to which only the files are mounted, another
    user reads them."""
    service = next(iter(services.values()))
    run(service, tmp_path, typed(service))
    folder = tmp_path / ".secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("answers", ["", "\n"])
def test_without_an_answer_it_stops(
    services: Mapping[str, Rendered], tmp_path: Path, answers: str
) -> None:
    """A key that was not given is not an empty file, which the service would refuse later."""
    done = run(next(iter(services.values())), tmp_path, answers)
    assert done.returncode != 0
    assert list((tmp_path / ".secrets").iterdir()) == []
