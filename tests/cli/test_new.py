"""`scaffold new` by flags: what it makes, records, installs and commits."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import Scaffold, commit, files_in, git

RENDERED = {".copier-answers.yml", ".gitignore", "README.md", "app/alpha.py", "pyproject.toml"}


def answers_of(service: Path) -> dict[str, object]:
    content = yaml.safe_load((service / ".copier-answers.yml").read_text())
    assert isinstance(content, dict)
    return content


def test_defaults_make_a_service_without_a_question(scaffold: Scaffold, workplace: Path) -> None:
    """With `--defaults` a service is made without a terminal."""
    result = scaffold("new", "my-service", "--defaults", "--no-install")
    assert result.returncode == 0, result.stderr
    assert files_in(workplace) == {f"my-service/{name}" for name in RENDERED}
    assert result.stderr == ""


def test_flags_choose_the_variants(scaffold: Scaffold, workplace: Path) -> None:
    """Flags alone suffice, and only the chosen framework's file is rendered."""
    flags = ["--framework", "beta", "--storage", "memory", "--provider", "blue"]
    assert scaffold("new", "x", *flags, "--no-install").returncode == 0
    assert files_in(workplace / "x" / "app") == {"beta.py"}
    answers = answers_of(workplace / "x")
    assert (answers["storage"], answers["providers"]) == ("memory", ["blue"])
    assert "primary_provider" not in answers


def test_first_provider_is_the_primary(scaffold: Scaffold, workplace: Path) -> None:
    """The order of `--provider` decides the primary, which Copier's list alone would lose."""
    scaffold("new", "x", "--defaults", "--no-install", "--provider", "blue", "--provider", "red")
    answers = answers_of(workplace / "x")
    assert answers["providers"] == ["red", "blue"]
    assert answers["primary_provider"] == "blue"
    assert (workplace / "x/README.md").read_text() == "x prefers blue\n"


@pytest.mark.parametrize(
    ("folder", "flags", "name"),
    [
        ("my-service", [], "my-service"),
        ("My Service", [], "my-service"),
        ("x", ["--name", "y"], "y"),
    ],
)
def test_name_is_the_folders_unless_given(
    scaffold: Scaffold, workplace: Path, folder: str, flags: list[str], name: str
) -> None:
    """The service is called as its folder, made into a name, or as `--name` says."""
    scaffold("new", folder, "--defaults", "--no-install", *flags)
    assert answers_of(workplace / folder)["project_name"] == name


def test_answers_come_from_a_file_and_flags_win(scaffold: Scaffold, workplace: Path) -> None:
    """`--answers` takes another service's record, and a flag overrides it."""
    scaffold("new", "one", "--defaults", "--no-install", "--framework", "beta", "--name", "uno")
    record = workplace / "one" / ".copier-answers.yml"
    result = scaffold(
        "new", "two", "--answers", record, "--no-install", "--provider", "blue", "--name", "two"
    )
    assert result.returncode == 0, result.stderr
    answers = answers_of(workplace / "two")
    assert (answers["project_name"], answers["framework"]) == ("two", "beta")
    assert answers["providers"] == ["blue"]


def test_dry_run_lists_the_files_and_writes_none(
    scaffold: Scaffold, workplace: Path, temporary: Path
) -> None:
    """`--dry-run` names every file and leaves the disk as it was."""
    result = scaffold("new", "x", "--defaults", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert {line.strip() for line in result.stdout.splitlines()} >= RENDERED
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


def test_summary_and_next_steps_are_printed(scaffold: Scaffold) -> None:
    """What is made stands above what comes next, and the path can be pasted into a shell."""
    output = scaffold("new", "my service", "--defaults", "--no-install").stdout
    assert output.index("red, green") < output.index("my-service is ready.")
    assert "cd 'my service'" in output
    assert "\x1b" not in output


@pytest.mark.parametrize("folder", ["with space", "größe-[bold]", "deep/er/x"])
def test_any_path_serves(scaffold: Scaffold, workplace: Path, folder: str) -> None:
    """Spaces, letters beyond ASCII, brackets and missing parents are no obstacle."""
    result = scaffold("new", folder, "--defaults", "--no-install", "--name", "x")
    assert result.returncode == 0, result.stderr
    assert files_in(workplace / folder) == RENDERED
    assert str(workplace / folder) in result.stdout


def test_an_empty_folder_is_filled(scaffold: Scaffold, workplace: Path) -> None:
    """The current folder serves as destination when it is empty."""
    result = scaffold("new", ".", "--defaults", "--no-install", "--name", "x")
    assert result.returncode == 0, result.stderr
    assert files_in(workplace) == RENDERED


def test_a_new_folder_has_the_usual_permissions(scaffold: Scaffold, workplace: Path) -> None:
    """The service's folder is as readable as any that the person makes."""
    umask = os.umask(0o022)
    try:
        scaffold("new", "x", "--defaults", "--no-install")
    finally:
        os.umask(umask)
    assert (workplace / "x").stat().st_mode & 0o777 == 0o755


class TestCommit:
    def test_the_service_starts_with_one_commit(self, scaffold: Scaffold, workplace: Path) -> None:
        """Everything is committed on `main`, in the person's own name."""
        scaffold("new", "x", "--defaults", "--no-install")
        service = workplace / "x"
        assert git(service, "log", "--format=%an <%ae> %D") == "Ada <ada@example.com> HEAD -> main"
        assert git(service, "status", "--porcelain") == ""

    def test_no_git_identity_is_needed(
        self, scaffold: Scaffold, workplace: Path, variables: dict[str, str]
    ) -> None:
        """A machine on which git knows no name commits all the same."""
        Path(variables["HOME"], ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
        result = scaffold("new", "x", "--defaults", "--no-install")
        assert result.returncode == 0, result.stderr
        assert git(workplace / "x", "log", "--format=%an") == "scaffold"

    def test_inside_a_repository_nothing_is_committed(
        self, scaffold: Scaffold, workplace: Path
    ) -> None:
        """A service made inside a repository is left for that repository's owner to commit."""
        git(workplace, "init", "--quiet")
        result = scaffold("new", "services/x", "--defaults", "--no-install")
        assert result.returncode == 0
        assert not (workplace / "services/x/.git").exists()
        assert git(workplace, "status", "--porcelain") == "?? services/"
        assert str(workplace) in result.stdout

    def test_the_calling_repository_is_not_touched(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """`GIT_DIR` in the environment, as in a hook, does not redirect the commit."""
        head = git(template, "rev-parse", "HEAD")
        scaffold("new", "x", "--defaults", "--no-install", GIT_DIR=str(template / ".git"))
        assert git(template, "rev-parse", "HEAD") == head
        assert git(workplace / "x", "log", "--format=%s") != ""

    def test_a_refused_commit_leaves_the_service(
        self, scaffold: Scaffold, workplace: Path, variables: dict[str, str]
    ) -> None:
        """When git refuses, the service stays, the reason is shown and the status is 1."""
        hooks = workplace.parent / "hooks"
        hooks.mkdir()
        (hooks / "pre-commit").write_text("#!/bin/sh\necho not on a Sunday >&2; exit 1\n")
        (hooks / "pre-commit").chmod(0o755)
        with Path(variables["HOME"], ".gitconfig").open("a") as config:
            config.write(f"[core]\n\thooksPath = {hooks}\n")
        result = scaffold("new", "x", "--defaults", "--no-install")
        assert result.returncode == 1
        assert "not on a Sunday" in result.stderr
        assert files_in(workplace / "x") == RENDERED


class TestSource:
    def test_the_record_names_the_template_and_its_commit(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """The source is an absolute path, so that an update finds it from anywhere."""
        relative = os.path.relpath(template, workplace)
        scaffold("new", "x", "--defaults", "--no-install", SCAFFOLD_TEMPLATE=relative)
        answers = answers_of(workplace / "x")
        assert answers["_src_path"] == str(template)
        assert answers["_commit"] == git(template, "describe", "--tags", "--always")

    def test_a_checkout_is_rendered_as_it_stands(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """Neither an older tag nor the last commit is rendered in place of the working tree."""
        git(template, "tag", "v1.0.0")
        (template / "template/committed").touch()
        commit(template, "After the tag")
        (template / "template/uncommitted").touch()
        result = scaffold("new", "x", "--defaults", "--no-install")
        assert {"committed", "uncommitted"} <= files_in(workplace / "x")
        assert "uncommitted changes" in result.stdout

    def test_a_dirty_checkout_records_a_commit_that_exists(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """The temporary commit that Copier makes of uncommitted changes is not what is recorded."""
        (template / "template/uncommitted").touch()
        scaffold("new", "x", "--defaults", "--no-install")
        recorded = str(answers_of(workplace / "x")["_commit"])
        assert git(template, "rev-parse", recorded) == git(template, "rev-parse", "HEAD")

    def test_a_template_without_git_is_rendered_with_a_warning(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """A downloaded archive renders; that such a service cannot be updated is said."""
        (template / ".git").rename(template.parent / "gone")
        result = scaffold("new", "x", "--defaults", "--no-install")
        assert result.returncode == 0
        assert "cannot be updated" in result.stdout
        assert "_commit" not in answers_of(workplace / "x")

    def test_a_template_before_its_first_commit_is_rendered(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """A repository without a commit renders, and records none."""
        git(template, "update-ref", "-d", "HEAD")
        result = scaffold("new", "x", "--defaults", "--no-install")
        assert result.returncode == 0, result.stderr
        assert files_in(workplace / "x") == RENDERED
        assert "_commit" not in answers_of(workplace / "x")


class TestInstall:
    def test_the_environment_is_made_and_locked(self, scaffold: Scaffold, workplace: Path) -> None:
        """`uv sync` runs in the service, and its lock is part of the first commit."""
        result = scaffold("new", "x", "--defaults")
        assert result.returncode == 0, result.stderr
        assert "Installed the environment" in result.stdout
        assert (workplace / "x/.venv/pyvenv.cfg").is_file()
        assert "uv.lock" in git(workplace / "x", "ls-files").splitlines()

    def test_the_callers_environment_is_left_alone(
        self, scaffold: Scaffold, workplace: Path
    ) -> None:
        """An environment named by the caller's variables is not the one that is synced."""
        other = str(workplace.parent / "other")
        result = scaffold("new", "x", "--defaults", VIRTUAL_ENV=other, UV_PROJECT_ENVIRONMENT=other)
        assert result.returncode == 0, result.stderr
        assert not Path(other).exists()

    def test_an_unreachable_index_leaves_the_service(
        self, scaffold: Scaffold, workplace: Path, dependent_template: Path, tmp_path: Path
    ) -> None:
        """When uv fails the service stays, committed; the message says what to run; status 1."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            index = f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
        result = scaffold(
            "new",
            "x",
            "--defaults",
            SCAFFOLD_TEMPLATE=str(dependent_template),
            UV_DEFAULT_INDEX=index,
            UV_CACHE_DIR=str(tmp_path / "cache"),
            UV_HTTP_RETRIES="0",
            UV_NO_CONFIG="1",
        )
        assert result.returncode == 1
        assert f"the service is in {workplace / 'x'}, but has no environment yet" in result.stderr
        assert f"{index}/one-of-many" in result.stderr
        assert f"cd {workplace / 'x'} && uv sync" in result.stderr
        assert git(workplace / "x", "status", "--porcelain") == ""
        assert set(git(workplace / "x", "ls-files").splitlines()) == RENDERED

    def test_a_uv_that_is_gone_is_looked_for_on_the_path(
        self, scaffold: Scaffold, workplace: Path
    ) -> None:
        """`UV`, which uv sets for what it runs, may outlive the uv that it names."""
        result = scaffold("new", "x", "--defaults", UV="/nowhere/uv")
        assert result.returncode == 0, result.stderr
        assert (workplace / "x/.venv/pyvenv.cfg").is_file()

    def test_no_install_needs_no_uv(
        self, scaffold: Scaffold, workplace: Path, path_without: Callable[[str], str]
    ) -> None:
        """With `--no-install` the service is made on a machine without uv."""
        result = scaffold("new", "x", "--defaults", "--no-install", PATH=path_without("uv"), UV="")
        assert result.returncode == 0, result.stderr
        assert not (workplace / "x/.venv").exists()
