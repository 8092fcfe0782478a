"""`copier update` and `scaffold update`: a template's change comes in, and no edit is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.rendering import render, take_snapshot

from .conftest import COPIER_YML, Scaffold, Terminal, commit, files_in, git
from .test_plain_copier import COPIER, copier_copy
from .test_terminal import ended, interrupt, wait_for

LINES = "".join(f"line {number}\n" for number in range(1, 41))
BYTES = bytes(range(256))
OWNED = ("app/routes.py", "app/prompts/summary.md", "app/prompts/system.md")


def release(template: Path, version: str, files: dict[str, str | bytes | None]) -> None:
    """Change the template, None for a file that goes, and tag the commit."""
    for name, content in files.items():
        path = template / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    commit(template, version)
    git(template, "tag", version)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def answers_of(service: Path) -> dict[str, object]:
    content = yaml.safe_load((service / ".copier-answers.yml").read_text())
    assert isinstance(content, dict)
    return content


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def is_clean(service: Path) -> bool:
    return git(service, "status", "--porcelain") == ""


def assert_refused(result: subprocess.CompletedProcess[str], *words: str, status: int = 2) -> None:
    assert result.returncode == status, result.stderr + result.stdout
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, "one line"
    for word in words:
        assert word in result.stderr


class TestThisTemplate:
    """The template of this repository, as it stands, and a next version of it."""

    @pytest.fixture
    def real_template(self, tmp_path: Path) -> Path:
        root = take_snapshot(tmp_path / "real-template")
        git(root, "init", "--quiet")
        release(root, "1.0.0", {})
        return root

    @pytest.fixture
    def new(
        self, scaffold: Scaffold, workplace: Path, real_template: Path
    ) -> Callable[[str], Path]:
        """Makes a service by either command, with edits of its owner's, committed."""

        def make(command: str) -> Path:
            service = workplace / "my-service"
            if command == "copier copy":
                assert copier_copy(real_template, service).returncode == 0
                git(service, "init", "--quiet")
            else:
                flags = ["--defaults", "--no-install"]
                result = scaffold("new", service, *flags, SCAFFOLD_TEMPLATE=str(real_template))
                assert result.returncode == 0, result.stderr
            with (service / "app/routes.py").open("a") as routes:
                routes.write("\n# An endpoint of the owner's.\n")
            (service / "app/prompts/summary.md").write_text("Fasse das Gespräch zusammen.\n")
            (service / "app/prompts/system.md").write_text("")
            edit(
                service / "app/policy.py",
                "BREAKER_FAILURES: Final = 5",
                "BREAKER_FAILURES: Final = 7",
            )
            commit(service, "The owner's edits")
            return service

        return make

    def next_version(self, template: Path) -> None:
        """Another file, another place of an edited file, and other first texts of the owner's."""
        edit(
            template / "template/app/policy.py",
            "LEDGER_DAYS: Final = 35",
            "LEDGER_DAYS: Final = 36",
        )
        with (template / "template/app/main.py").open("a") as main:
            main.write("# 1.1.0\n")
        with (template / "template/app/routes_fastapi.py").open("a") as routes:
            routes.write("# 1.1.0\n")
        for name in ("summary", "system"):
            with (template / f"template/app/prompts/{name}.md").open("a") as prompt:
                prompt.write("1.1.0\n")
        release(template, "1.1.0", {"template/app/added.py": '"""Added."""\n'})

    @pytest.fixture
    def update(self, scaffold: Scaffold) -> Callable[[str, Path], str]:
        """Updates a service by either command."""

        def run(command: str, service: Path) -> str:
            if command == "scaffold update":
                result = scaffold("update", service)
            else:
                result = subprocess.run(
                    [COPIER, "update", "--defaults", str(service)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            assert result.returncode == 0, result.stderr
            return result.stdout

        return run

    @pytest.mark.parametrize("made_by", ["copier copy", "scaffold new"])
    @pytest.mark.parametrize("updated_by", ["copier update", "scaffold update"])
    def test_a_change_comes_in_and_the_edits_stay(
        self,
        real_template: Path,
        new: Callable[[str], Path],
        update: Callable[[str, Path], str],
        made_by: str,
        updated_by: str,
    ) -> None:
        """A service of an older tag takes the newer one in; of the owner's own files none is
        touched, edited or emptied."""
        service = new(made_by)
        owned = [service / name for name in OWNED]
        before = [path.read_bytes() for path in owned]
        self.next_version(real_template)
        update(updated_by, service)
        policy = (service / "app/policy.py").read_text()
        assert "LEDGER_DAYS: Final = 36" in policy
        assert "BREAKER_FAILURES: Final = 7" in policy
        assert (service / "app/main.py").read_text().endswith("# 1.1.0\n")
        assert (service / "app/added.py").is_file()
        assert [path.read_bytes() for path in owned] == before
        assert answers_of(service)["_commit"] == "1.1.0"
        changed = git(service, "status", "--porcelain").split()[1::2]
        assert sorted(changed) == [
            ".copier-answers.yml",
            "app/added.py",
            "app/main.py",
            "app/policy.py",
        ]
        commit(service, "Update")
        update(updated_by, service)
        assert is_clean(service), "a second update is a no-op"

    def test_both_commands_come_to_the_same(
        self,
        real_template: Path,
        new: Callable[[str], Path],
        update: Callable[[str, Path], str],
    ) -> None:
        """What `scaffold update` writes is, byte for byte, what `copier update` writes."""
        service = new("scaffold new")
        other = service.with_name("other")
        shutil.copytree(service, other)
        self.next_version(real_template)
        update("scaffold update", service)
        update("copier update", other)
        assert contents(service) == contents(other)

    def test_another_answer_makes_the_service_that_it_would_have_made(
        self, scaffold: Scaffold, new: Callable[[str], Path], real_template: Path
    ) -> None:
        """With `--set` the files are those of a fresh service with these answers; edits stay."""
        service = new("scaffold new")
        result = scaffold(
            "update", service, "--set", "storage=memory", "--set", "providers=anthropic"
        )
        assert result.returncode == 0, result.stderr
        assert "storage: sqlite -> memory" in result.stdout
        fresh = service.with_name("fresh") / "my-service"
        copier_copy(real_template, fresh, "storage=memory", "providers=[anthropic]")
        edited = {*OWNED, "app/policy.py"}
        updated = contents(service)
        assert updated.keys() == files_in(fresh)
        differing = {name for name, content in contents(fresh).items() if content != updated[name]}
        assert differing == edited


@pytest.fixture
def template(template: Path) -> Path:
    """The tiny template at 1.0.0, with a file for each thing that may happen to one."""
    owned = "_skip_if_exists: [app/routes.py, tests/test_routes.py]\n"
    release(
        template,
        "1.0.0",
        {
            "copier.yml": owned + COPIER_YML,
            "template/app/lines.py": LINES,
            "template/app/dropped.py": LINES,
            "template/app/picture": BYTES,
            "template/app/alpha.py": "alpha\n",
            "template/app/beta.py": "beta\n",
            "template/app/routes.py.jinja": "routes for {{ framework }}\n",
            "template/tests/test_routes.py": "tests of routes\n",
            "template/storage.txt.jinja": "{{ storage }}\n",
        },
    )
    return template


@pytest.fixture
def service(workplace: Path, template: Path) -> Path:
    """A service of version 1.0.0, committed."""
    folder = workplace / "x"
    render(template, folder, {})
    git(folder, "init", "--quiet")
    commit(folder, "Start")
    return folder


def change_line(number: int, to: str) -> str:
    return LINES.replace(f"line {number}\n", f"{to}\n")


def owner_edits(service: Path, files: dict[str, str | bytes | None]) -> None:
    for name, content in files.items():
        path = service / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    commit(service, "Edit")


def make_conflict(template: Path, service: Path) -> None:
    """Both sides change line 5; the template changes and adds other files besides."""
    owner_edits(service, {"app/lines.py": change_line(5, "mine")})
    lines = change_line(5, "theirs")
    release(
        template,
        "1.1.0",
        {
            "template/app/lines.py": lines,
            "template/app/added/deep.py": "added\n",
            "template/app/alpha.py": "alpha 1.1.0\n",
            "template/app/dropped.py": None,
        },
    )


class TestMerging:
    def test_what_is_done_is_listed_with_the_way_back(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Versions and files are printed, and the printed command restores the last commit."""
        before = contents(service)
        release(
            template,
            "1.1.0",
            {
                "template/app/lines.py": LINES + "more\n",
                "template/app/new/added.py": "added\n",
                "template/app/dropped.py": None,
            },
        )
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        assert "x: template 1.0.0 -> 1.1.0\n" in result.stdout
        for line in ("changed   app/lines.py", "added     app/new/added.py", "removed   app/drop"):
            assert f"  {line}" in result.stdout
        assert not (service / "app/dropped.py").exists()
        back = next(line for line in result.stdout.splitlines() if "git restore" in line)
        subprocess.run(back, shell=True, cwd=service, check=True, capture_output=True)
        assert contents(service) == before
        assert is_clean(service)

    def test_a_second_update_says_that_there_is_nothing_to_do(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Once committed, an update is over: the next one changes nothing and ends with 0."""
        release(template, "1.1.0", {"template/app/lines.py": LINES + "more\n"})
        scaffold("update", "x")
        commit(service, "Update")
        result = scaffold("update", cwd=service)
        assert result.returncode == 0
        assert result.stdout == "x is up to date: template 1.1.0\n"
        assert is_clean(service)

    def test_a_conflict_is_left_to_the_owner_with_both_sides(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Edits of the same line stand between markers, are named, and cannot be committed so."""
        make_conflict(template, service)
        result = scaffold("update", "x")
        assert_refused(result, "app/lines.py", "git add", status=1)
        assert "conflict  app/lines.py" in result.stdout
        text = (service / "app/lines.py").read_text()
        for line in ("<<<<<<< before updating", "mine", "theirs", ">>>>>>> after updating"):
            assert f"{line}\n" in text
        assert (service / "app/alpha.py").read_text() == "alpha 1.1.0\n"
        assert git(service, "diff", "--name-only", "--diff-filter=U") == "app/lines.py"
        with pytest.raises(subprocess.CalledProcessError):
            git(service, "commit", "--all", "--message", "As it is")

    def test_the_way_back_undoes_conflicts_too(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """The printed command restores the last commit from an unmerged index."""
        make_conflict(template, service)
        before = contents(service)
        output = scaffold("update", "x").stdout
        back = next(line for line in output.splitlines() if "git restore" in line)
        subprocess.run(back, shell=True, cwd=service, check=True, capture_output=True)
        assert contents(service) == before
        assert is_clean(service)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("app/picture", BYTES[::-1]),
            ("app/lines.py", change_line(5, "größe").encode("latin-1")),
            ("app/lines.py", LINES.replace("\n", "\r\n")),
            ("app/lines.py", LINES.removesuffix("\n")),
        ],
    )
    def test_an_edit_of_any_bytes_stays(
        self,
        scaffold: Scaffold,
        template: Path,
        service: Path,
        name: str,
        content: str | bytes,
    ) -> None:
        """Binary files, other encodings and line ends survive a change of other files."""
        owner_edits(service, {name: content, "own.png": BYTES})
        before = contents(service)
        release(template, "1.1.0", {"template/app/alpha.py": "alpha 1.1.0\n"})
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        after = contents(service)
        changed = {path for path in after if after[path] != before[path]}
        assert changed == {".copier-answers.yml", "app/alpha.py"}

    def test_other_encodings_merge(self, scaffold: Scaffold, template: Path, service: Path) -> None:
        """Both sides' changes to a file that is no UTF-8 come together without loss."""
        owner_edits(service, {"app/lines.py": change_line(5, "größe").encode("latin-1")})
        release(template, "1.1.0", {"template/app/lines.py": change_line(35, "theirs")})
        assert scaffold("update", "x").returncode == 0
        expected = change_line(5, "größe").replace("line 35", "theirs").encode("latin-1")
        assert (service / "app/lines.py").read_bytes() == expected

    def test_what_cannot_be_merged_stays_the_owners(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Of a picture that both have changed the owner's stands, and the other is at hand."""
        owner_edits(service, {"app/picture": BYTES[::-1]})
        release(template, "1.1.0", {"template/app/picture": BYTES * 2})
        result = scaffold("update", "x")
        assert_refused(result, "app/picture", status=1)
        assert (service / "app/picture").read_bytes() == BYTES[::-1]
        git(service, "checkout", "--theirs", "app/picture")
        assert (service / "app/picture").read_bytes() == BYTES * 2

    def test_what_both_have_added_is_not_overwritten(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A file that the owner has made and the template brings now keeps both contents."""
        owner_edits(service, {"app/gamma.py": "mine\n"})
        release(template, "1.1.0", {"template/app/gamma.py": "theirs\n"})
        assert_refused(scaffold("update", "x"), "app/gamma.py", status=1)
        text = (service / "app/gamma.py").read_text()
        assert "mine\n" in text
        assert "theirs\n" in text

    def test_what_the_owner_has_deleted_stays_deleted(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Neither a changed file nor an owned one comes back."""
        owner_edits(service, {"app/lines.py": None, "tests/test_routes.py": None})
        release(template, "1.1.0", {"template/app/lines.py": LINES + "more\n"})
        assert scaffold("update", "x").returncode == 0
        assert not (service / "app/lines.py").exists()
        assert not (service / "tests/test_routes.py").exists()

    def test_modes_follow_whoever_changed_them(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """The owner's executable bit stays, the template's comes in."""
        (service / "app/lines.py").chmod(0o755)
        commit(service, "Executable")
        (template / "template/app/alpha.py").chmod(0o755)
        release(template, "1.1.0", {"template/app/lines.py": LINES + "more\n"})
        assert scaffold("update", "x").returncode == 0
        assert os.access(service / "app/lines.py", os.X_OK)
        assert os.access(service / "app/alpha.py", os.X_OK)

    def test_what_git_ignores_is_not_overwritten(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A file that could not be brought back stops the update that would replace it."""
        owner_edits(service, {".gitignore": ".venv/\nlocal.txt\n"})
        (service / "local.txt").write_text("precious\n")
        release(template, "1.1.0", {"template/local.txt": "theirs\n"})
        assert_refused(scaffold("update", "x"), "local.txt", "Move it")
        assert (service / "local.txt").read_text() == "precious\n"
        assert is_clean(service)

    @pytest.mark.parametrize("path", ["app/local", "app"])
    def test_a_link_out_of_the_service_is_not_followed(
        self, scaffold: Scaffold, template: Path, service: Path, path: str
    ) -> None:
        """Nothing is written through a link that the owner has put in a folder's place."""
        elsewhere = service.parent / "elsewhere"
        if path == "app":
            (service / "app").rename(elsewhere)
        else:
            elsewhere.mkdir()
        (service / path).symlink_to(elsewhere)
        commit(service, "Link")
        before = contents(elsewhere)
        release(template, "1.1.0", {"template/app/local/new.py": "theirs\n"})
        assert_refused(scaffold("update", "x"), "app/local/new.py")
        assert contents(elsewhere) == before

    def test_a_service_inside_a_repository_is_updated_alone(
        self, scaffold: Scaffold, workplace: Path, template: Path
    ) -> None:
        """Beside the service a monorepo may be dirty, and stays so; conflicts are marked there."""
        git(workplace, "init", "--quiet")
        service = workplace / "services/größe one"
        scaffold("new", service, "--defaults", "--no-install", "--name", "x")
        (workplace / "app").mkdir()
        (workplace / "app/lines.py").write_text("not the service's\n")
        commit(workplace, "Start")
        make_conflict(template, service)
        (workplace / "app/lines.py").write_text("half done\n")
        result = scaffold("update", service)
        assert_refused(result, "app/lines.py", status=1)
        assert (workplace / "app/lines.py").read_text() == "half done\n"
        assert files_in(workplace / "app") == {"lines.py"}
        assert (service / "app/added/deep.py").is_file()
        assert (
            git(service, "diff", "--name-only", "--relative", "--diff-filter=U") == "app/lines.py"
        )
        back = next(line for line in result.stdout.splitlines() if "git restore" in line)
        subprocess.run(back, shell=True, cwd=service, check=True, capture_output=True)
        assert git(workplace, "status", "--porcelain") == "M app/lines.py"


class TestRenames:
    """The template renames `app/lines.py` to `app/moved.py`, and declares it."""

    def rename(self, template: Path, content: str | bytes = LINES) -> None:
        history = "1.1.0: {renamed: {app/lines.py: app/moved.py}}\n"
        release(
            template,
            "1.1.0",
            {
                "template/app/lines.py": None,
                "template/app/moved.py": content,
                "versions.yml": history,
            },
        )

    def test_an_edited_file_keeps_its_edits_under_its_new_name(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Both sides' changes meet there; the diff of a dry run is what the update does."""
        owner_edits(service, {"app/lines.py": change_line(5, "mine")})
        self.rename(template, change_line(35, "theirs"))
        patch = service.with_name("patch")
        patch.write_text(scaffold("update", "x", "--dry-run").stdout)
        assert "-mine\n" in patch.read_text()
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        assert "  renamed   app/moved.py, which was app/lines.py\n" in result.stdout
        assert "removed" not in result.stdout
        merged = change_line(5, "mine").replace("line 35\n", "theirs\n")
        assert (service / "app/moved.py").read_text() == merged
        assert not (service / "app/lines.py").exists()
        after = contents(service)
        back = next(line for line in result.stdout.splitlines() if "git restore" in line)
        subprocess.run(back, shell=True, cwd=service, check=True, capture_output=True)
        assert is_clean(service)
        git(service, "apply", str(patch))
        assert contents(service) == after

    def test_edits_of_the_same_line_collide_under_the_new_name(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """The conflict stands where the file now is, and so it stands in git's index."""
        owner_edits(service, {"app/lines.py": change_line(5, "mine")})
        self.rename(template, change_line(5, "theirs"))
        result = scaffold("update", "x")
        assert_refused(result, "app/moved.py", status=1)
        assert "  conflict  app/moved.py, which was app/lines.py\n" in result.stdout
        text = (service / "app/moved.py").read_text()
        assert "mine\n" in text
        assert "theirs\n" in text
        assert git(service, "diff", "--name-only", "--diff-filter=U") == "app/moved.py"

    @pytest.mark.parametrize("content", [LINES, change_line(5, "mine"), None])
    def test_a_file_whose_content_did_not_change_is_moved(
        self, scaffold: Scaffold, template: Path, service: Path, content: str | None
    ) -> None:
        """As the owner left it; who has deleted it does not get it back."""
        owner_edits(service, {"app/lines.py": content, "own": ""})
        self.rename(template)
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        assert not (service / "app/lines.py").exists()
        moved = service / "app/moved.py"
        assert (moved.read_text() if moved.exists() else None) == content

    def test_who_has_renamed_it_before_has_its_edits_merged(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """An owner who gave it the same name first is not told of a conflict."""
        owner_edits(service, {"app/lines.py": None, "app/moved.py": change_line(5, "mine")})
        self.rename(template, change_line(35, "theirs"))
        assert scaffold("update", "x").returncode == 0
        merged = change_line(5, "mine").replace("line 35\n", "theirs\n")
        assert (service / "app/moved.py").read_text() == merged

    def test_a_file_of_the_owners_own_keeps_the_new_name(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Two files do not become one: the edited old one is kept aside, the other in conflict."""
        mine = change_line(5, "mine")
        owner_edits(service, {"app/lines.py": mine, "app/moved.py": "my own\n"})
        self.rename(template)
        result = scaffold("update", "x")
        assert_refused(result, "app/moved.py", status=1)
        assert "\n  app/lines.py.orig: app/lines.py is no part" in result.stdout
        assert (service / "app/lines.py.orig").read_text() == mine
        assert not (service / "app/lines.py").exists()
        assert "my own\n" in (service / "app/moved.py").read_text()
        assert git(service, "diff", "--name-only", "--diff-filter=U") == "app/moved.py"

    def test_what_is_not_in_git_is_not_overwritten(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A file that git ignores stops the update when the new name is its."""
        owner_edits(service, {".gitignore": ".venv/\nmoved.py\n"})
        (service / "app/moved.py").write_text("precious\n")
        self.rename(template)
        assert_refused(scaffold("update", "x"), "app/moved.py", "Move it")
        assert (service / "app/moved.py").read_text() == "precious\n"

    def test_names_are_followed_over_versions(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A file renamed twice arrives at its last name, and what the owner owns as it is."""
        owner_edits(
            service,
            {"app/lines.py": change_line(5, "mine"), "app/routes.py": "my routes\n"},
        )
        self.rename(template)
        config = (template / "copier.yml").read_text()
        history = """\
1.1.0: {renamed: {app/lines.py: app/moved.py}}
1.2.0: {renamed: {app/moved.py: lib/last.py, app/routes.py: app/endpoints.py}}
"""
        release(
            template,
            "1.2.0",
            {
                "copier.yml": config.replace("app/routes.py", "app/endpoints.py"),
                "versions.yml": history,
                "template/app/moved.py": None,
                "template/lib/last.py": change_line(35, "theirs"),
                "template/app/routes.py.jinja": None,
                "template/app/endpoints.py": "other routes\n",
            },
        )
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        merged = change_line(5, "mine").replace("line 35\n", "theirs\n")
        assert (service / "lib/last.py").read_text() == merged
        assert (service / "app/endpoints.py").read_text() == "my routes\n"
        for name in ("app/lines.py", "app/moved.py", "app/routes.py"):
            assert not (service / name).exists()

    @pytest.mark.parametrize("step", ["hash-object", "update-index"])
    def test_a_failure_brings_the_old_name_back(
        self,
        scaffold: Scaffold,
        template: Path,
        service: Path,
        program: Callable[..., Path],
        variables: dict[str, str],
        step: str,
    ) -> None:
        """When the conflict cannot be written into git's index, the service is as it was."""
        owner_edits(service, {"app/lines.py": change_line(5, "mine")})
        self.rename(template, change_line(5, "theirs"))
        before = contents(service)
        stand_in = program("git", f'[ "$1" = {step} ] && exit 1\nexec {shutil.which("git")} "$@"')
        path = f"{stand_in.parent}:{variables['PATH']}"
        assert scaffold("update", "x", PATH=path).returncode == 1
        assert contents(service) == before
        assert is_clean(service)


class TestHistory:
    @pytest.mark.parametrize(
        ("history", "word"),
        [
            ("1.1.0: {moved: {a: b}}", "versions.yml: 1.1.0 may have"),
            ("1.1.0: {notices: ['{{ nobody_knows }}']}", "nobody_knows"),
        ],
    )
    def test_a_broken_one_changes_nothing(
        self, scaffold: Scaffold, template: Path, service: Path, history: str, word: str
    ) -> None:
        """A version that cannot be read names itself, and another one can be chosen."""
        release(template, "1.1.0", {"versions.yml": history})
        assert_refused(scaffold("update", "x"), word, "1.1.0", "--to", status=1)
        assert is_clean(service)

    def test_what_was_broken_before_is_no_hindrance(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A service of a version with a broken history can leave it, and hears all there is."""
        release(template, "1.1.0", {"versions.yml": "{"})
        edit(service / ".copier-answers.yml", "_commit: 1.0.0", "_commit: 1.1.0")
        commit(service, "At 1.1.0")
        release(template, "1.2.0", {"versions.yml": "1.2.0: {notices: [Mended.]}\n"})
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        assert "New since 1.1.0:\n  1.2.0: Mended.\n" in result.stdout

    def test_a_change_to_a_deleted_file_is_told(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Who has moved a file elsewhere learns that the template has changed it."""
        owner_edits(service, {"app/lines.py": None})
        release(template, "1.1.0", {"template/app/lines.py": LINES + "more\n"})
        result = scaffold("update", "x")
        assert "  left out  app/lines.py, which you have deleted\n" in result.stdout


class TestVersions:
    def test_the_latest_release_is_taken_unless_told(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """Neither a tag before it, nor a pre-release, nor a commit without a tag is the target."""
        for version in ("1.9.0", "1.10.0", "2.0.0rc1"):
            release(template, version, {"template/app/lines.py": LINES + version})
        release(template, "not-a-version", {"template/app/lines.py": LINES})
        assert scaffold("update", "x").returncode == 0
        assert answers_of(service)["_commit"] == "1.10.0"
        assert (service / "app/lines.py").read_text() == LINES + "1.10.0"

    def test_a_version_may_be_named(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """`--to` takes a tag in between, and then the commit that has none."""
        release(template, "1.1.0", {"template/app/lines.py": LINES + "1.1.0"})
        release(template, "1.2.0", {"template/app/lines.py": LINES + "1.2.0"})
        (template / "template/app/lines.py").write_text("unreleased")
        commit(template, "Unreleased")
        (template / "template/app/lines.py").write_text("uncommitted")
        assert scaffold("update", "x", "--to", "1.1.0").returncode == 0
        assert (service / "app/lines.py").read_text() == LINES + "1.1.0"
        commit(service, "Update")
        assert scaffold("update", "x", "--to", "HEAD").returncode == 0
        assert (service / "app/lines.py").read_text() == "unreleased"
        assert answers_of(service)["_commit"] == git(template, "describe", "--tags")
        commit(service, "Update")
        assert "up to date" in scaffold("update", "x").stdout, "newer than the latest release"

    def test_a_template_without_tags_is_followed_by_commits(
        self, scaffold: Scaffold, template: Path, workplace: Path
    ) -> None:
        """Where nothing is tagged the target is the last commit, without what is uncommitted."""
        git(template, "tag", "--delete", "1.0.0")
        scaffold("new", "x", "--defaults", "--no-install")
        (template / "template/app/lines.py").write_text("committed")
        commit(template, "Next")
        (template / "template/app/lines.py").write_text("uncommitted")
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        assert (workplace / "x/app/lines.py").read_text() == "committed"

    @pytest.mark.parametrize(
        ("to", "words"),
        [
            ("9.9.9", ["--to 9.9.9", "1.2.0, 1.1.0, 1.0.0"]),
            ("--help-me", ["--to --help-me", "no such version"]),
            ("1.0.0", ["--to 1.0.0", "older than 1.1.0"]),
        ],
    )
    def test_a_version_that_will_not_do_is_refused(
        self, scaffold: Scaffold, template: Path, service: Path, to: str, words: list[str]
    ) -> None:
        """An unknown version is refused with those that there are, an older one with a way back."""
        release(template, "1.1.0", {"template/app/lines.py": LINES + "1.1.0"})
        scaffold("update", "x")
        commit(service, "Update")
        release(template, "1.2.0", {"template/app/lines.py": LINES + "1.2.0"})
        assert_refused(scaffold("update", "x", "--to", to), *words)
        assert is_clean(service)

    def test_a_template_that_is_gone_is_named(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A moved template is found again once the record says where."""
        moved = template.with_name("moved")
        template.rename(moved)
        # The command's own template stays; the service's has gone.
        result = scaffold("update", "x", SCAFFOLD_TEMPLATE=str(moved))
        assert_refused(result, str(template), "_src_path", status=1)
        edit(service / ".copier-answers.yml", str(template), str(moved))
        commit(service, "The template has moved")
        release(moved, "1.1.0", {"template/app/lines.py": LINES + "more\n"})
        assert scaffold("update", "x").returncode == 0
        assert answers_of(service)["_src_path"] == str(moved)

    def test_a_history_without_the_recorded_version_is_named(
        self, scaffold: Scaffold, service: Path
    ) -> None:
        """A template that no longer has what the service came from cannot tell what changed."""
        edit(service / ".copier-answers.yml", "_commit: 1.0.0", "_commit: 0.9.0")
        commit(service, "From elsewhere")
        assert_refused(scaffold("update", "x"), "has no 0.9.0", "_src_path", status=1)


class TestAnswers:
    def test_the_providers_first_is_the_primary(self, scaffold: Scaffold, service: Path) -> None:
        """`--set providers` takes several; only what depends on them changes."""
        result = scaffold("update", "x", "--set", "providers=blue,red")
        assert result.returncode == 0, result.stderr
        assert "providers: red, green -> red, blue" in result.stdout
        assert (service / "README.md").read_text() == "x prefers blue\n"
        assert git(service, "diff", "--name-only").split() == [".copier-answers.yml", "README.md"]

    def test_one_provider_needs_no_primary(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """The question of a primary is dropped with the second provider."""
        readme = "{{ project_name }} has {{ providers | join }}\n"
        release(template, "1.1.0", {"template/README.md.jinja": readme})
        result = scaffold("update", "x", "--set", "providers=green")
        assert result.returncode == 0, result.stderr
        assert "primary provider: red -> none" in result.stdout
        assert "primary_provider" not in answers_of(service)

    def test_an_answer_as_it_is_changes_nothing(self, scaffold: Scaffold, service: Path) -> None:
        """Answers that the service has already are nothing to do."""
        result = scaffold("update", "x", "--set", "storage=disk")
        assert (result.returncode, result.stdout) == (0, "x is up to date: template 1.0.0\n")
        assert is_clean(service)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--set", "storage=tape"], ["--set storage", '"tape"', "disk, memory"]),
            (["--set", "providers=red,pink"], ["--set providers", '"pink"', "red, green, blue"]),
            (["--set", "providers="], ["--set providers", "choose at least one"]),
            (["--set", "colour=red"], ["--set", '"colour"', "framework, storage"]),
            (["--set", "storage"], ["--set storage", "storage=..."]),
            (["--set", "storage=disk", "--set", "storage=disk"], ["storage", "twice"]),
            (["--set", "providers=red", "--set", "primary_provider=blue"], ["primary_provider"]),
            (["--set", "primary_provider=blue"], ["--set primary_provider", "red, green"]),
            (["--set"], ["--set"]),
            (["--colour"], ["--colour", "scaffold --help"]),
        ],
    )
    def test_a_bad_answer_is_named_with_what_would_do(
        self, scaffold: Scaffold, service: Path, flags: list[str], words: list[str]
    ) -> None:
        """An answer that the template refuses changes nothing."""
        assert_refused(scaffold("update", "x", *flags), *words)
        assert is_clean(service)

    def test_an_answer_that_is_no_choice_any_more_is_asked_for(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A version that dropped the service's storage names the flag, and takes another one."""
        config = COPIER_YML.replace('"Disk: slow": disk, ', "").replace(
            "default: disk", "default: memory"
        )
        release(template, "1.1.0", {"copier.yml": config})
        assert_refused(scaffold("update", "x"), '"disk"', "--set storage=")
        assert scaffold("update", "x", "--set", "storage=memory").returncode == 0
        assert (service / "storage.txt").read_text() == "memory\n"

    def test_a_new_question_takes_its_default(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A question that the service was never asked does not stop an update."""
        question = 'colour: {type: str, help: "Its colour?", default: grey}\n'
        release(template, "1.1.0", {"copier.yml": COPIER_YML + question})
        assert scaffold("update", "x").returncode == 0
        assert answers_of(service)["colour"] == "grey"

    def test_another_framework_keeps_the_owners_endpoints_aside(
        self, scaffold: Scaffold, service: Path
    ) -> None:
        """What the owner has edited is kept under another name; its place is rendered anew."""
        owner_edits(service, {"app/routes.py": "my routes\n"})
        result = scaffold("update", "x", "--set", "framework=beta")
        assert result.returncode == 0, result.stderr
        assert (service / "app/routes.py").read_text() == "routes for beta\n"
        assert (service / "app/routes.alpha.py.orig").read_text() == "my routes\n"
        assert "app/routes.alpha.py.orig" in result.stdout
        assert not list((service / "tests").glob("*.orig"))
        assert (service / "app/beta.py").exists()
        assert not (service / "app/alpha.py").exists()


class TestKeptAside:
    """What the owner has edited and the service has no more, or begins anew."""

    def test_what_the_template_gives_up(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """It is kept beside where it was, with its mode, for git to take in, and listed with what
        to do; a dry run says the same. A second update leaves it where it is."""
        mine = change_line(5, "mine")
        (service / "app/dropped.py").chmod(0o755)
        owner_edits(service, {"app/dropped.py": mine, "app/lines.py": mine})
        before = contents(service)
        release(template, "1.1.0", {"template/app/dropped.py": None})
        listed = "  kept      app/dropped.py.orig, which was app/dropped.py\n"
        told = " aside, since you have edited it; no tool reads it there:\n"
        told += "  app/dropped.py.orig: app/dropped.py is no part of the service any more\n"
        foretold = scaffold("update", "x", "--dry-run").stdout
        assert listed in foretold
        assert f"Would be kept{told}" in foretold
        assert contents(service) == before
        result = scaffold("update", "x")
        assert result.returncode == 0, result.stderr
        assert listed in result.stdout
        assert f"Kept{told}" in result.stdout
        assert "removed" not in result.stdout
        aside = service / "app/dropped.py.orig"
        assert aside.read_text() == mine
        assert os.access(aside, os.X_OK)
        assert not (service / "app/dropped.py").exists()
        assert "?? app/dropped.py.orig" in git(service, "status", "--porcelain")
        commit(service, "Update")
        assert "up to date" in scaffold("update", "x", "--set", "framework=alpha").stdout
        assert is_clean(service)

    def test_nothing_is_overwritten(self, scaffold: Scaffold, service: Path) -> None:
        """What was kept aside before stays as it is: what differs gets a number, and what does not
        is not kept twice. Names that git ignores are taken too, and told."""
        owner_edits(
            service,
            {
                ".gitignore": ".venv/\nalpha.py.*\n",
                "app/routes.py": "my routes\n",
                "app/routes.alpha.py.orig": "precious\n",
                "app/alpha.py": "my alpha\n",
                "tests/test_routes.py": "my tests\n",
                "tests/test_routes.alpha.py.orig": "my tests\n",
            },
        )
        (service / "app/alpha.py.orig").write_text("ignored\n")
        before = contents(service)
        result = scaffold("update", "x", "--set", "framework=beta")
        assert result.returncode == 0, result.stderr
        after = contents(service)
        for name in ("app/routes.alpha.py.orig", "app/alpha.py.orig"):
            assert after[name] == before[name]
        assert after["app/routes.alpha.py.2.orig"] == b"my routes\n"
        assert after["app/alpha.py.2.orig"] == b"my alpha\n"
        assert after["tests/test_routes.alpha.py.orig"] == b"my tests\n"
        assert "tests/test_routes.alpha.py.2.orig" not in after
        assert "app/alpha.py.2.orig (git ignores that name): app/alpha.py is no" in result.stdout
        for line in (
            "app/routes.alpha.py.2.orig: app/routes.py begins anew, for beta",
            "tests/test_routes.alpha.py.orig: tests/test_routes.py begins anew, for beta",
        ):
            assert f"  {line}\n" in result.stdout
        assert "  app/routes.py: app/routes.alpha.py.orig\n" in result.stdout

    def test_who_changes_back_is_led_to_it(self, scaffold: Scaffold, service: Path) -> None:
        """A file that comes back is the template's, and what the owner had made of it is named."""
        owner_edits(service, {"app/alpha.py": "my alpha\n", "app/routes.py": "my routes\n"})
        result = scaffold("update", "x", "--set", "framework=beta")
        assert "earlier updates" not in result.stdout
        commit(service, "Beta")
        result = scaffold("update", "x", "--set", "framework=alpha")
        assert result.returncode == 0, result.stderr
        assert (service / "app/alpha.py").read_text() == "alpha\n"
        assert (service / "app/routes.py").read_text() == "routes for alpha\n"
        assert (service / "app/alpha.py.orig").read_text() == "my alpha\n"
        told = result.stdout.partition("What earlier updates have kept aside")[2]
        assert "  app/alpha.py: app/alpha.py.orig\n" in told
        assert "  app/routes.py: app/routes.alpha.py.orig\n" in told
        assert "Kept aside" not in result.stdout


class TestChangedAnswers:
    NOTICES = """\
storage:
  - "{{ before.storage }} gives way to {{ storage }} in {{ project_name }}."
  - "{% if storage == 'disk' %}Disks are slow.{% endif %}"
framework: [Nobody hears this.]
"""

    def test_what_an_answer_means_is_told(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """The template's words on the answers that change, and no others; by a dry run as well."""
        release(template, "1.1.0", {"changed-answers.yml": self.NOTICES})
        told = "\nAbout storage, disk -> memory:\n  - disk gives way to memory in x.\n\n"
        for flags, next_line in ((["--dry-run"], "This was a dry run"), ([], "Next:")):
            result = scaffold("update", "x", "--set", "storage=memory", *flags)
            assert result.returncode == 0, result.stderr
            assert f"{told}{next_line}" in result.stdout
            assert "Nobody" not in result.stdout
        commit(service, "Update")
        release(template, "1.2.0", {"template/app/alpha.py": "alpha 1.2.0\n"})
        assert "About" not in scaffold("update", "x").stdout

    @pytest.mark.parametrize(
        ("notices", "word"),
        [
            ("{", "no YAML"),
            ("storage: told", "lists of texts"),
            ("storage: ['{{ before.colour }}']", "colour"),
        ],
    )
    def test_words_that_cannot_be_read_change_nothing(
        self, scaffold: Scaffold, template: Path, service: Path, notices: str, word: str
    ) -> None:
        """The file, the version and the way round it are named."""
        release(template, "1.1.0", {"changed-answers.yml": notices})
        result = scaffold("update", "x", "--set", "storage=memory")
        assert_refused(result, "changed-answers.yml", word, "1.1.0", "--to", status=1)
        assert is_clean(service)


class TestDryRun:
    def test_the_diff_is_what_the_update_does(
        self, scaffold: Scaffold, template: Path, service: Path, temporary: Path
    ) -> None:
        """`--dry-run` prints a diff that git can apply, and leaves the disk as it was."""
        owner_edits(service, {"app/lines.py": change_line(5, "mine")})
        before = contents(service)
        release(
            template,
            "1.1.0",
            {
                "template/app/lines.py": change_line(35, "theirs"),
                "template/app/new/added.py": "added\n",
                "template/app/dropped.py": None,
            },
        )
        result = scaffold("update", "x", "--dry-run")
        assert result.returncode == 0, result.stderr
        assert "+theirs" in result.stdout
        assert "nothing was written" in result.stdout
        assert contents(service) == before
        assert is_clean(service)
        assert not list(temporary.iterdir())
        patch = service.with_name("patch")
        patch.write_text(result.stdout)
        git(service, "apply", str(patch))
        applied = contents(service)
        git(service, "add", "--all")
        git(service, "reset", "--hard", "--quiet")
        scaffold("update", "x")
        assert contents(service) == applied

    def test_conflicts_are_foretold(
        self, scaffold: Scaffold, template: Path, service: Path
    ) -> None:
        """A dry run names what would be left to the owner."""
        make_conflict(template, service)
        result = scaffold("update", "x", "--dry-run")
        assert result.returncode == 0
        assert "yours to settle: app/lines.py" in result.stdout
        assert is_clean(service)


class TestRefusals:
    @pytest.mark.parametrize("name", ["app/lines.py", "untracked.py"])
    def test_a_dirty_tree(
        self, scaffold: Scaffold, template: Path, service: Path, name: str
    ) -> None:
        """Uncommitted work could not be told from the update's, and stays as it is."""
        release(template, "1.1.0", {"template/app/lines.py": LINES + "more\n"})
        (service / name).write_text("not yet committed\n")
        git(service, "config", "status.showUntrackedFiles", "no")
        before = contents(service)
        assert_refused(scaffold("update", "x"), name, "commit or stash")
        assert contents(service) == before

    def test_a_folder_that_is_not_in_git(self, scaffold: Scaffold, service: Path) -> None:
        """Without git there is no way back, and the message says how to get one."""
        shutil.rmtree(service / ".git")
        assert_refused(scaffold("update", "x"), "git init && git add --all && git commit")

    def test_a_service_that_git_ignores(self, scaffold: Scaffold, workplace: Path) -> None:
        """In a repository that ignores the service, git could not bring it back either."""
        git(workplace, "init", "--quiet")
        (workplace / ".gitignore").write_text("x/\n")
        scaffold("new", "x", "--defaults", "--no-install")
        commit(workplace, "Start")
        assert_refused(scaffold("update", "x"), "git ignores", "git add --force")

    @pytest.mark.parametrize("folder", [".", "absent", "x/app"])
    def test_a_folder_that_holds_no_service(
        self, scaffold: Scaffold, service: Path, folder: str
    ) -> None:
        """What was not rendered by `scaffold` is not touched."""
        assert_refused(scaffold("update", folder), "give ")

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("storage:", "shelf:", ["another template", "copier update"]),
            ("_src_path:", "path:", ["_src_path"]),
            ("_commit:", "_was:", ["_commit: VERSION"]),
            ("_src_path: /", "_src_path: ../", ["absolute"]),
            ("_commit", "[", ["YAML"]),
        ],
    )
    def test_a_record_that_will_not_do(
        self, scaffold: Scaffold, service: Path, old: str, new: str, words: list[str]
    ) -> None:
        """Another template's service, and a record without a source or version, are refused."""
        edit(service / ".copier-answers.yml", old, new)
        commit(service, "Another record")
        assert_refused(scaffold("update", "x"), *words)
        assert is_clean(service)

    def test_a_missing_git(
        self, scaffold: Scaffold, service: Path, path_without: Callable[[str], str]
    ) -> None:
        """Without git nothing is begun, and the message says where to get it."""
        result = scaffold("update", "x", PATH=path_without("git"))
        assert_refused(result, "git is not on the PATH", "https://")


class TestFailures:
    @pytest.mark.parametrize(
        ("name", "content", "word"),
        [("template/zzz.jinja", "{{ nobody_knows }}", "nobody_knows"), ("copier.yml", "{", "--to")],
    )
    def test_a_template_that_cannot_be_rendered_changes_nothing(
        self,
        scaffold: Scaffold,
        template: Path,
        service: Path,
        temporary: Path,
        name: str,
        content: str,
        word: str,
    ) -> None:
        """A broken version leaves the service, and no temporary file."""
        release(template, "1.1.0", {name: content})
        assert_refused(scaffold("update", "x"), word, status=1)
        assert is_clean(service)
        assert not list(temporary.iterdir())

    def test_a_failure_after_the_last_file_puts_every_file_back(
        self, scaffold: Scaffold, template: Path, service: Path, temporary: Path
    ) -> None:
        """When git's index cannot be written, files changed, added and removed are as they were."""
        make_conflict(template, service)
        before = contents(service)
        (service / ".git/index.lock").touch()
        assert_refused(scaffold("update", "x"), "is as it was", status=1)
        (service / ".git/index.lock").unlink()
        assert contents(service) == before
        assert {path.name for path in (service / "app").iterdir() if path.is_dir()} == set()
        assert is_clean(service)
        assert not list(temporary.iterdir())

    @pytest.mark.parametrize(("by", "status"), [("Ctrl-C", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
    @pytest.mark.parametrize("step", ["clone", "merge-file", "update-index"])
    def test_an_interruption_leaves_the_service_as_it_was(
        self,
        terminal: Terminal,
        template: Path,
        service: Path,
        temporary: Path,
        variables: dict[str, str],
        program: Callable[[str, str], Path],
        step: str,
        by: str,
        status: int,
    ) -> None:
        """At the first step, in the middle, and at the last, when every file is in place."""
        make_conflict(template, service)
        before = contents(service)
        started = service.with_name("started")
        stand_in = program(
            "git",
            f'[ "$1" = {step} ] || exec {shutil.which("git")} "$@"\n'
            f"touch '{started}'; exec sleep 60",
        )
        child = terminal("update", "x", PATH=f"{stand_in.parent}:{variables['PATH']}")
        wait_for(started, child)
        placed = (service / "app/added/deep.py").exists()
        assert placed is (step == "update-index")
        interrupt(child, by)
        assert ended(child) == status
        assert contents(service) == before
        assert is_clean(service)
        assert not list(temporary.iterdir())
