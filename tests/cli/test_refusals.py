"""What `scaffold new` refuses: one line on stderr, a remedy in it, and a disk as it was."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import SCAFFOLD, Scaffold, files_in, git


def assert_refused(result: subprocess.CompletedProcess[str], *words: str, status: int = 2) -> None:
    assert result.returncode == status, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, "one line"
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--framework", "gamma"], ["--framework", '"gamma"', "alpha, beta"]),
        (["--storage", "tape"], ["--storage", '"tape"', "disk, memory"]),
        (["--provider", "pink"], ["--provider", '"pink"', "red, green, blue"]),
        (["--provider", "red", "--provider", "red"], ["--provider", '"red" is given twice']),
        (["--name", "My Service"], ["--name", "use a-z"]),
        (["--name", ""], ["--name", "use a-z"]),
        (["--answers", "absent.yml"], ["absent.yml"]),
        (["--colour"], ["--colour", "scaffold --help"]),
        (["--provider"], ["--provider"]),
        (["another"], ["another"]),
    ],
)
def test_a_bad_value_is_named_with_what_would_do(
    scaffold: Scaffold, workplace: Path, flags: list[str], words: list[str]
) -> None:
    """A flag that the template does not know is refused before anything is written."""
    assert_refused(scaffold("new", "x", "--defaults", "--no-install", *flags), *words)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("providers: [red, blue]\nprimary_provider: green\n", ['"green"', "red, blue"]),
        ("providers: []\n", ["--provider", "choose at least one"]),
        ("colour: red\n", ['"colour"', "framework"]),
        ("- framework\n", ["mapping"]),
        ("{", ["YAML"]),
    ],
)
def test_a_bad_answer_in_a_file_is_named(
    scaffold: Scaffold, workplace: Path, content: str, words: list[str]
) -> None:
    """A primary that is not among the chosen, an unknown question and a broken file are refused."""
    file = workplace.parent / "answers.yml"
    file.write_text(content)
    result = scaffold("new", "x", "--defaults", "--no-install", "--answers", file)
    assert_refused(result, *words)
    assert not list(workplace.iterdir())


def test_without_a_terminal_open_questions_are_named(scaffold: Scaffold, workplace: Path) -> None:
    """Where nobody can be asked, the missing flags are listed, and `--defaults` is offered."""
    result = scaffold("new", "x", "--framework", "beta")
    assert_refused(result, "--storage", "--provider", "--defaults")
    assert "--framework" not in result.stderr
    assert not list(workplace.iterdir())


def test_a_missing_destination_is_named(scaffold: Scaffold) -> None:
    """`scaffold new` alone says what is missing."""
    assert_refused(scaffold("new"), "DEST")


def test_a_folder_with_content_is_refused(scaffold: Scaffold, workplace: Path) -> None:
    """A non-empty destination keeps what it has."""
    (workplace / "x").mkdir()
    (workplace / "x/mine").write_text("precious")
    assert_refused(scaffold("new", "x", "--defaults"), "is not empty", "choose another")
    assert files_in(workplace) == {"x/mine"}


@pytest.mark.parametrize("destination", ["file", "file/below"])
def test_a_file_is_refused(scaffold: Scaffold, workplace: Path, destination: str) -> None:
    """A destination that is a file, or lies below one, is refused."""
    (workplace / "file").write_text("precious")
    assert_refused(scaffold("new", destination, "--defaults"), "is a file")
    assert (workplace / "file").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_refused(scaffold: Scaffold, workplace: Path) -> None:
    """A parent in which nothing can be made is refused."""
    locked = workplace / "locked"
    locked.mkdir(mode=0o555)
    # Permissions do not hold root back; the kernel's own tree does.
    destination = locked / "x" if os.geteuid() else Path("/proc/x")
    assert_refused(scaffold("new", destination, "--defaults", "--no-install"), "choose another")


@pytest.mark.parametrize("destination", ["{long}", "deep/{long}/x"])
def test_a_name_that_is_too_long_is_refused(
    scaffold: Scaffold, workplace: Path, destination: str
) -> None:
    """What the file system will not take is named, and the folders above it are removed again."""
    folder = destination.format(long="x" * 300)
    result = scaffold("new", folder, "--defaults", "--no-install", "--name", "x")
    assert_refused(result, "File name too long", "choose another")
    assert not list(workplace.iterdir())


def test_a_folder_inside_the_template_is_refused(scaffold: Scaffold, template: Path) -> None:
    """A service inside the template would become part of it."""
    result = scaffold("new", template / "x", "--defaults", "--no-install")
    assert_refused(result, "inside the template")
    assert not (template / "x").exists()


@pytest.mark.parametrize("missing", ["git", "uv"])
def test_a_missing_program_is_named(
    scaffold: Scaffold, workplace: Path, path_without: Callable[[str], str], missing: str
) -> None:
    """Without git or uv nothing is begun, and the message says where to get it."""
    result = scaffold("new", "x", "--defaults", PATH=path_without(missing), UV="")
    assert_refused(result, f"{missing} is not on the PATH", "https://")
    assert not list(workplace.iterdir())


def test_a_missing_template_is_named(scaffold: Scaffold, tmp_path: Path) -> None:
    """A folder that holds no template is refused by name."""
    result = scaffold("new", "x", "--defaults", SCAFFOLD_TEMPLATE=str(tmp_path))
    assert_refused(result, "no template", str(tmp_path))


def test_a_broken_template_leaves_nothing(
    scaffold: Scaffold, workplace: Path, temporary: Path, template: Path
) -> None:
    """When rendering fails half-way, every folder that was made is removed again."""
    (template / "template/zzz.jinja").write_text("{{ nobody_knows }}")
    result = scaffold("new", "deep/er/x", "--defaults", "--no-install")
    assert_refused(result, "nobody_knows", "nothing is left behind", status=1)
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


@pytest.fixture
def with_little_room(workplace: Path, variables: dict[str, str]) -> Scaffold:
    """Runs `scaffold` where no file may grow beyond so many bytes, which stands for a full disk."""

    def run(max_bytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCAFFOLD, *arguments],
            cwd=workplace,
            env=variables,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("option", ["--no-install", "--dry-run"])
@pytest.mark.parametrize("max_bytes", [0, 100])
def test_a_disk_that_is_full_from_the_start_leaves_nothing(
    with_little_room: Scaffold, workplace: Path, temporary: Path, max_bytes: int, option: str
) -> None:
    """No room for the copy of the template that is rendered, or for any file at all."""
    result = with_little_room(max_bytes, "new", "deep/x", "--defaults", option)
    assert_refused(result, "run this again", status=1)
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


def test_a_full_disk_leaves_nothing(
    with_little_room: Scaffold, workplace: Path, temporary: Path, template: Path
) -> None:
    """When the disk is full half-way, nothing half-written stays."""
    (template / "template/large").write_bytes(os.urandom(400_000))
    (template / ".git").rename(template.parent / "gone")  # so that Copier, not git, meets the limit
    result = with_little_room(100_000, "new", "x", "--defaults", "--no-install")
    assert_refused(result, "File too large", "run this again", status=1)
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


def test_a_disk_too_full_to_commit_leaves_the_whole_service(
    with_little_room: Scaffold, workplace: Path, template: Path, variables: dict[str, str]
) -> None:
    """The service stays, without half a repository; what the message says to run makes it whole."""
    for number in range(400):  # none of them large, but git's list of them is
        (template / f"template/file-{number}").touch()
    (template / ".git").rename(template.parent / "gone")
    result = with_little_room(15_000, "new", "x", "--defaults", "--no-install")
    assert result.returncode == 1
    problem, remedy = result.stderr.splitlines()
    assert problem.startswith(f"error: the service is in {workplace / 'x'}, but not committed: git")
    assert len(files_in(workplace / "x")) == 405
    assert not (workplace / "x/.git").exists()
    subprocess.run(
        remedy.partition(": ")[2],
        shell=True,
        env={**variables, "GIT_EDITOR": "echo Start >"},
        capture_output=True,
        check=True,
    )
    assert git(workplace / "x", "status", "--porcelain") == ""
    assert git(workplace / "x", "log", "--format=%s") == "Start"
