"""The hint at a newer version: who sees it, when, and that nobody else notices it."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from scaffold_cli import git as scaffold_git
from scaffold_cli import hint, source
from scaffold_cli.hint import tell_of_newer_version
from scaffold_cli.main import app

from .conftest import COPIER_YML, commit, git

ANSWERS = {"project_name": "x", "framework": "alpha", "storage": "disk", "providers": ["red"]}
REPORT = '{"items": [], "verdict": "ready for production"}'


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's, at a terminal and with a cache of their own."""
    for name in ("CI", "SCAFFOLD_NO_HINT", *scaffold_git.LOCAL_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


class Terminal:
    """Runs something with stderr on a terminal, and tells what a person sees there."""

    def __init__(self) -> None:
        self._reading, writing = os.openpty()
        os.set_blocking(self._reading, False)
        self._stream = os.fdopen(writing, "w")

    def __call__(self, run: Callable[..., object], *arguments: object) -> str:
        with pytest.MonkeyPatch.context() as patch:  # not before: pytest's own is in place by now
            patch.setattr(sys, "stderr", self._stream)
            run(*arguments)
        self._stream.flush()
        try:
            return os.read(self._reading, 65_536).decode().replace("\r\n", "\n")
        except BlockingIOError:
            return ""

    def close(self) -> None:
        self._stream.close()
        os.close(self._reading)


@pytest.fixture
def at_terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def service(template: Path, tmp_path: Path) -> Path:
    """One of the version 1.0.0 of a template that has 1.1.0 too."""
    git(template, "tag", "1.0.0")
    (template / "copier.yml").write_text(f"# 1.1.0\n{COPIER_YML}")
    commit(template, "1.1.0")
    git(template, "tag", "1.1.0")
    folder = tmp_path / "my service"
    (folder / "tests/checklist").mkdir(parents=True)
    record(folder, template, "1.0.0")
    return folder


def record(service: Path, template: object, version: str) -> None:
    content = {"_src_path": str(template), "_commit": version, **ANSWERS}
    (service / ".copier-answers.yml").write_text(yaml.safe_dump(content))


def mark(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache/scaffold/hints").iterdir()
    return file


def test_a_newer_version_is_told_once_a_day(
    service: Path, at_terminal: Terminal, tmp_path: Path
) -> None:
    """It says what there is, what the service has, and the command, which a shell can take."""
    assert at_terminal(tell_of_newer_version, service) == (
        "\na newer version of the template exists: 1.1.0 (this service has 1.0.0):"
        f" scaffold update '{service}'\n"
    )
    assert at_terminal(tell_of_newer_version, service) == ""
    day_ago = time.time() - hint.DAY_SECONDS - 60
    os.utime(mark(tmp_path), (day_ago, day_ago))
    assert "1.1.0" in at_terminal(tell_of_newer_version, service)


def test_in_the_services_folder_the_command_is_short(
    service: Path, at_terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder need not be named."""
    monkeypatch.chdir(service)
    assert at_terminal(tell_of_newer_version, Path(".")).endswith("scaffold update\n")


@pytest.mark.parametrize("version", ["1.1.0", "1.1.0-3-gabcdef0", "2.0.0", "abcdef0"])
def test_a_service_that_is_not_behind_is_left_alone(
    service: Path, template: Path, at_terminal: Terminal, version: str
) -> None:
    """The newest, one beyond it, and a commit of which nobody can tell what it is like."""
    record(service, template, version)
    assert at_terminal(tell_of_newer_version, service) == ""


def test_commits_after_a_version_are_before_the_next(
    service: Path, template: Path, at_terminal: Terminal
) -> None:
    """What `git describe` names counts as the tag that it begins with."""
    record(service, template, "1.0.0-3-gabcdef0")
    seen = at_terminal(tell_of_newer_version, service)
    assert "1.1.0 (this service has 1.0.0-3-gabcdef0)" in seen


def test_only_releases_are_offered(service: Path, template: Path, at_terminal: Terminal) -> None:
    """As `scaffold update` chooses: no version before a release, and no other tag."""
    for tag in ("1.2.0rc1", "v2-old-layout", "1.0.5"):
        git(template, "tag", tag)
    assert "exists: 1.1.0 (" in at_terminal(tell_of_newer_version, service)


@pytest.mark.parametrize("variable", ["CI", "SCAFFOLD_NO_HINT"])
def test_whoever_wants_none_gets_none(
    service: Path, at_terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Neither in CI nor where it is turned off."""
    monkeypatch.setenv(variable, "1")
    assert at_terminal(tell_of_newer_version, service) == ""


def test_without_a_terminal_nobody_is_told(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked for a program either."""
    tell_of_newer_version(service)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("recorded", ["relative", "{tmp}", "{tmp}/absent", "-oops"])
def test_what_is_no_repository_is_not_asked(
    service: Path,
    template: Path,
    tmp_path: Path,
    at_terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    recorded: str,
) -> None:
    """A name of something else, a path from elsewhere, a folder without git: silence."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relative").symlink_to(template)
    record(service, recorded.format(tmp=tmp_path), "1.0.0")
    assert at_terminal(tell_of_newer_version, service) == ""
    assert at_terminal(tell_of_newer_version, tmp_path) == ""


def test_the_installed_template_is_asked_without_a_network(
    service: Path,
    template: Path,
    tmp_path: Path,
    at_terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who has a newer wheel than the service hears of it: its bundle is asked, and no folder that
    is called by the recorded name."""
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    (packaged / "copier.yml").touch()
    git(template, "bundle", "create", "--quiet", str(packaged / source.HISTORY), "HEAD", "--tags")
    monkeypatch.setattr(source, "PACKAGED", packaged)
    monkeypatch.chdir(tmp_path)
    (tmp_path / source.INSTALLED).mkdir()
    record(service, source.INSTALLED, "1.0.0")
    assert "exists: 1.1.0 (" in at_terminal(tell_of_newer_version, service)


def test_a_cache_that_cannot_be_written_does_not_matter(
    service: Path, at_terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be noted down it is told each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    for _ in range(2):
        assert "1.1.0" in at_terminal(tell_of_newer_version, service)


def test_a_repository_that_is_silent_is_left(
    service: Path, at_terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time it is given up, with all that was started, and not asked again that day."""
    monkeypatch.setattr(hint, "MAX_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        record(service, f"git://127.0.0.1:{silent.getsockname()[1]}/x", "1.0.0")
        assert at_terminal(tell_of_newer_version, service) == ""
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(10)
            assert b"git-upload-pack" in connection.recv(1000)
            assert connection.recv(1000) == b"", "it has hung up"
        assert at_terminal(tell_of_newer_version, service) == ""
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()


class Closed(BaseHTTPRequestHandler):
    """Wants a password of everybody."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("www-authenticate", 'Basic realm="x"')
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_nobody_is_asked_for_a_password(
    tmp_path: Path, program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that wants one is none of the hint's."""
    asked = tmp_path / "asked"
    ask = program("ask", f"touch '{asked}'; echo word")
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(ask))
    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        tags = scaffold_git.remote_tags(f"http://127.0.0.1:{server.server_port}/x", 10)
        server.shutdown()
        thread.join()
    assert tags == []
    assert not asked.exists()


class TestCommands:
    """Where the line stands: at the end of what a person has asked for."""

    @pytest.fixture(autouse=True)
    def template_variable(self, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCAFFOLD_TEMPLATE", str(template))

    @staticmethod
    def scaffold(*arguments: object) -> object:
        return typer.main.get_command(app)([*map(str, arguments)], standalone_mode=False)

    def test_new(
        self, service: Path, template: Path, tmp_path: Path, at_terminal: Terminal
    ) -> None:
        """A service of a checkout that is behind its own tags."""
        git(template, "checkout", "--quiet", "1.0.0")
        flags = ("--defaults", "--no-install")
        seen = at_terminal(self.scaffold, "new", tmp_path / "x", *flags)
        assert "exists: 1.1.0 (this service has 1.0.0)" in seen

    def test_update(self, service: Path, template: Path, at_terminal: Terminal) -> None:
        """One to a version that is not the newest."""
        git(template, "checkout", "--quiet", "1.0.0")
        (template / "template/added.md").write_text("1.0.1\n")
        commit(template, "1.0.1")
        git(template, "tag", "1.0.1")
        git(service, "init", "--quiet")
        commit(service, "Start")
        seen = at_terminal(self.scaffold, "update", service, "--to", "1.0.1")
        assert "exists: 1.1.0 (this service has 1.0.1)" in seen

    @pytest.mark.parametrize("flags", [[], ["--json"]])
    def test_check(
        self,
        service: Path,
        at_terminal: Terminal,
        program: Callable[[str, str], Path],
        monkeypatch: pytest.MonkeyPatch,
        flags: list[str],
    ) -> None:
        """The verdict is as it is without, and programs are told nothing."""
        uv = program("uv", f"echo '{REPORT}' > \"$CHECKLIST_REPORT\"")
        monkeypatch.setenv("UV", str(uv))
        ended: list[object] = []
        seen = at_terminal(lambda: ended.append(self.scaffold("check", service, *flags)))
        assert ended == [0]
        assert ("exists: 1.1.0" in seen) is not bool(flags)
