"""The wheel: it makes services without a checkout, and a newer one updates them anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.version import Version
from typer.testing import CliRunner, Result

from scaffold_cli import source
from scaffold_cli.errors import ScaffoldError
from scaffold_cli.main import app
from tools.build_hook import HISTORY, pack

from .conftest import ROOT, commit, files_in, git, write_template
from .test_update import LINES, answers_of, edit, is_clean, release
from .wheels import Person, build_wheel, install, make_repository, release_package

POLICY = "app/policy.py"
NOTICE = "The ledger keeps 36 days."


def clone(service: Path, person: Person) -> Path:
    """The service on another machine."""
    person.home.mkdir(exist_ok=True)
    copy = person.home / service.name
    git(person.home, "clone", "--quiet", str(service), str(copy))
    return copy


def assert_no_place_is_named(service: Path, *places: Path | str) -> None:
    """Nothing in the service tells where it, or what it came from, lay."""
    for name in files_in(service):
        content = (service / name).read_bytes()
        assert [place for place in places if str(place).encode() in content] == []


def test_a_service_of_a_wheel_is_updated_by_a_newer_one_on_another_machine(tmp_path: Path) -> None:
    """No checkout, no path of the machine: the change arrives, the edit stays, notices are told."""
    root = make_repository(tmp_path / "repository")
    ada = Person(install(build_wheel(root, tmp_path / "1"), tmp_path / "e1"), tmp_path / "ada")
    policy = (root / "template" / POLICY).read_text()
    assert policy.count("LEDGER_DAYS: Final = 35") == 1
    changed = policy.replace("LEDGER_DAYS: Final = 35", "LEDGER_DAYS: Final = 36")
    history = (root / "versions.yml").read_text() + f"1.1.0: {{notices: [{NOTICE}]}}\n"
    release_package(root, "1.1.0", {f"template/{POLICY}": changed, "versions.yml": history})
    bob = Person(install(build_wheel(root, tmp_path / "2"), tmp_path / "e2"), tmp_path / "bob")
    root.rename(tmp_path / "gone")

    result = ada.scaffold("new", "my-service", "--defaults", "--no-install")
    assert result.returncode == 0, result.stderr
    service = ada.home / "my-service"
    assert git(service, "log", "--format=%s") == "Start my-service from template 1.0.0"
    edit(service / POLICY, "BREAKER_FAILURES: Final = 5", "BREAKER_FAILURES: Final = 7")
    commit(service, "Edited")
    copy = clone(service, bob)
    service.rename(tmp_path / "hers")
    result = bob.scaffold("update", copy)
    assert result.returncode == 0, result.stderr
    assert "1.0.0 -> 1.1.0" in result.stdout
    assert NOTICE in result.stdout
    assert git(copy, "diff", "--name-only").split() == [".copier-answers.yml", POLICY]
    text = (copy / POLICY).read_text()
    assert "BREAKER_FAILURES: Final = 7" in text
    assert "LEDGER_DAYS: Final = 36" in text
    recorded = answers_of(copy)
    assert (recorded["_src_path"], recorded["_commit"]) == ("scaffold-cli", "1.1.0")
    assert_no_place_is_named(copy, tmp_path, ROOT, sys.prefix)
    commit(copy, "Update")
    assert "up to date" in bob.scaffold("update", copy).stdout


@dataclass(frozen=True, slots=True)
class Templates:
    """What the wheels of three commits in turn have packed: a release, what came after it without
    a tag, and the next release."""

    repository: Path
    first: Path
    between: Path
    second: Path


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    folder = tmp_path_factory.mktemp("packed")
    root = write_template(folder / "repository")
    git(folder, "init", "--quiet", "--initial-branch=main", str(root))

    def packed(name: str, version: str) -> Path:
        (folder / name).mkdir()
        pack(root, folder / name, Version(version))
        return folder / name

    release(root, "1.0.0", {})
    first = packed("first", "1.0.0")
    (root / "template/app/lines.py").write_text(LINES)
    commit(root, "Not released")
    between = packed("between", "1.0.0")
    release(root, "1.1.0", {"template/app/lines.py": LINES + "1.1.0\n"})
    return Templates(root, first, between, packed("second", "1.1.0"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `scaffold` as it is with one of these in its wheel, in this process."""
    monkeypatch.delenv("SCAFFOLD_TEMPLATE", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(packaged: Path, *arguments: str | Path, **variables: str) -> Result:
        monkeypatch.setattr(source, "PACKAGED", packaged)
        result = CliRunner(env=variables).invoke(app, [*map(str, arguments)])
        if not isinstance(result.exception, ScaffoldError | SystemExit | None):
            raise result.exception
        return result

    return run


@pytest.fixture
def new(tmp_path: Path, run: Callable[..., Result]) -> Callable[..., Path]:
    """Makes a service with the defaults."""

    def new(packaged: Path, **variables: str) -> Path:
        result = run(packaged, "new", "x", "--defaults", "--no-install", **variables)
        assert result.exit_code == 0, result.exception
        return tmp_path / "x"

    return new


def record(service: Path, **values: str) -> None:
    """What the service remembers of its template, changed and committed."""
    file = service / ".copier-answers.yml"
    file.write_text(yaml.safe_dump({**answers_of(service), **values}))
    commit(service, "Another record")


def recorded(service: Path) -> tuple[object, object]:
    answers = answers_of(service)
    return answers["_src_path"], answers["_commit"]


def assert_named(result: Result, *words: str) -> None:
    """The command has failed, and its line tells these."""
    assert isinstance(result.exception, ScaffoldError)
    assert [word for word in words if word not in str(result.exception)] == []


Run = Callable[..., Result]
New = Callable[..., Path]


def test_a_version_that_was_never_released_is_found_by_a_later_wheel(
    templates: Templates, new: New, run: Run
) -> None:
    """A wheel of any commit makes services; each later wheel has that commit too."""
    service = new(templates.between)
    assert str(recorded(service)[1]).startswith("1.0.0-1-g")
    result = run(templates.second, "update", service)
    assert result.exit_code == 0, result.exception
    assert (service / "app/lines.py").read_text() == LINES + "1.1.0\n"
    assert recorded(service) == ("scaffold-cli", "1.1.0")


def test_an_older_wheel_names_itself_and_the_remedy(
    templates: Templates, new: New, run: Run
) -> None:
    """What a newer wheel has made waits for as new a one; the service stays as it is."""
    service = new(templates.second)
    result = run(templates.first, "update", service)
    assert_named(result, f"scaffold {version('scaffold-cli')} has no template 1.1.0")
    assert_named(result, "uv tool upgrade scaffold-cli", "pip install --upgrade scaffold-cli")
    assert_named(result, "SCAFFOLD_TEMPLATE")
    assert is_clean(service)


def test_a_chosen_template_is_recorded_instead_of_the_wheels(
    templates: Templates, new: New
) -> None:
    """What `SCAFFOLD_TEMPLATE` names is rendered, whatever the wheel carries."""
    service = new(templates.first, SCAFFOLD_TEMPLATE=str(templates.repository))
    assert recorded(service) == (str(templates.repository), "1.1.0")


def test_a_chosen_template_updates_what_a_wheel_has_made(
    templates: Templates, new: New, run: Run
) -> None:
    """`SCAFFOLD_TEMPLATE` has what the wheel lacks; that service stays the wheels'."""
    service = new(templates.first)
    chosen = {"SCAFFOLD_TEMPLATE": str(templates.repository)}
    result = run(templates.first, "update", service, **chosen)
    assert result.exit_code == 0, result.exception
    assert recorded(service) == ("scaffold-cli", "1.1.0")


def test_a_checkout_updates_what_a_wheel_has_made(
    templates: Templates, new: New, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `scaffold` runs from a checkout that is the template; what it lacks is named."""
    service = new(templates.second)
    checkout, source_url = tmp_path / "checkout", templates.repository.as_uri()
    flags = ["--quiet", "--branch=1.0.0", "--depth=1"]
    git(tmp_path, "clone", *flags, source_url, str(checkout))
    monkeypatch.setattr(source, "__file__", str(checkout / "scaffold_cli/source.py"))
    unpacked = checkout / "scaffold_cli/packaged"
    result = run(unpacked, "update", service)
    assert_named(result, str(checkout), "has no 1.1.0", "git fetch --tags")
    git(checkout, "fetch", "--quiet", "--unshallow", "--tags", "origin", "main")
    assert "up to date" in run(unpacked, "update", service).stdout


def test_a_wheel_updates_what_a_checkout_has_made(templates: Templates, new: New, run: Run) -> None:
    """Where the checkout is not at hand, the record can be pointed at the wheel's template."""
    service = new(templates.first)
    record(service, _src_path="/nowhere/template")
    result = run(templates.second, "update", service)
    assert_named(result, "/nowhere/template", "_src_path", "scaffold-cli")
    record(service, _src_path="scaffold-cli")
    result = run(templates.second, "update", service)
    assert result.exit_code == 0, result.exception
    assert recorded(service) == ("scaffold-cli", "1.1.0")


def test_without_git_the_wheel_lists_its_choices_and_says_what_is_missing(
    templates: Templates, run: Run, path_without: Callable[[str], str], tmp_path: Path
) -> None:
    """The questions need no git; a service does, for its first commit."""
    without = {"PATH": path_without("git")}
    assert "beta" in run(templates.first, "options", **without).stdout
    result = run(templates.first, "new", "x", "--defaults", "--no-install", **without)
    assert_named(result, "git is not on the PATH", "https://git-scm.com")
    assert not (tmp_path / "x").exists()


class TestHistory:
    """What `tools/build_hook.py` packs."""

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        """Two releases, one of an older line, one that came later elsewhere, and another tag."""
        root = tmp_path / "repository"
        root.mkdir()
        git(root, "init", "--quiet", "--initial-branch=main")
        release(root, "1.0.0", {"copier.yml": "a: {type: str}\n"})
        for branch, tag in (("old", "1.0.1"), ("next", "2.0.0")):
            git(root, "checkout", "--quiet", "-b", branch, "1.0.0")
            release(root, tag, {"README.md": tag})
        git(root, "checkout", "--quiet", "main")
        release(root, "1.1.0", {"copier.yml": "b: {type: str}\n"})
        git(root, "tag", "nightly")
        return root

    def packed(self, root: Path, folder: Path) -> Path:
        folder.mkdir()
        pack(root, folder, Version("1.1.0"))
        return folder

    def test_older_versions_come_along_and_later_ones_do_not(
        self, repository: Path, tmp_path: Path
    ) -> None:
        """An older line's too: its services go on to this version. HEAD's questions lie beside."""
        folder = self.packed(repository, tmp_path / "packed")
        clone = tmp_path / "clone"
        git(tmp_path, "clone", "--quiet", str(folder / HISTORY), str(clone))
        assert git(clone, "tag", "--list").split() == ["1.0.0", "1.0.1", "1.1.0"]
        assert git(clone, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
        assert (folder / "copier.yml").read_text() == "b: {type: str}\n"
        assert (folder / "version").read_text() == "1.1.0\n"

    def test_the_same_commits_make_the_same_bytes(self, repository: Path, tmp_path: Path) -> None:
        """However the repository is packed."""
        packed = self.packed(repository, tmp_path / "1")
        git(repository, "-c", "pack.compression=0", "repack", "-adFq", "--window=0")
        again = self.packed(repository, tmp_path / "2")
        assert (packed / HISTORY).read_bytes() == (again / HISTORY).read_bytes()

    def test_a_shallow_clone_is_refused(self, repository: Path, tmp_path: Path) -> None:
        """Its wheel could not update what older ones have made."""
        shallow = tmp_path / "shallow"
        git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), str(shallow))
        with pytest.raises(SystemExit, match="git fetch --unshallow --tags"):
            self.packed(shallow, tmp_path / "packed")

    def test_a_folder_without_its_history_is_refused(self, tmp_path: Path) -> None:
        """Also inside some other repository, whose history it would take for its own."""
        git(tmp_path, "init", "--quiet")
        (tmp_path / "exported").mkdir()
        with pytest.raises(SystemExit, match="no clone of the template's repository"):
            self.packed(tmp_path / "exported", tmp_path / "packed")
