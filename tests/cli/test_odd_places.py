"""Where a person may work: paths with spaces and letters beyond ASCII, a home that takes nothing, a
git that knows nobody; and each Python that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scaffold_cli.environment import find_uv

from .conftest import COPIER_YML, FILES, ROOT, SCAFFOLD, commit, git
from .test_update import release

NEWEST = 14


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "ä b" / "größe 'x' [y]"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def template(odd: Path) -> Path:
    """The tiny template in a path that is not tiny, of version 1.0.0."""
    root = odd / "template é"
    for name, content in {"copier.yml": COPIER_YML, **FILES}.items():
        path = root / name if name == "copier.yml" else root / "template" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(odd, "init", "--quiet", str(root))
    release(root, "1.0.0", {})
    return root


@pytest.fixture
def bare(tmp_path: Path, template: Path, temporary: Path) -> dict[str, str]:
    """Hardly a variable: a home in which nothing can be made, no cache, and no name for git."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    kept = {name: os.environ[name] for name in ("PATH", "UV") if name in os.environ}
    return {
        **kept,
        # Permissions do not hold root back; the kernel's own tree does.
        "HOME": str(home) if os.geteuid() else "/proc",
        "TMPDIR": str(temporary),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        "SCAFFOLD_TEMPLATE": str(template),
    }


def pythons() -> dict[str, str]:
    """By version, the interpreters of this machine that the package allows; this one is always."""
    root = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    found = {"{}.{}".format(*sys.version_info): sys.executable}
    for minor in range(11, NEWEST + 1):
        version = f"3.{minor}"
        on_path = shutil.which(f"python{version}")
        # What pyenv has on the PATH may not run; what it has installed does.
        installed = sorted(root.glob(f"versions/{version}.*/bin/python"))
        for python in (on_path, *map(str, installed)):
            if python and version_of(python) == version:
                found.setdefault(version, python)
    return found


def version_of(python: str) -> str | None:
    """Nothing for a name that exists and does not run."""
    ask = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    result = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


PYTHONS = pythons()


def make_and_update(
    command: list[str], odd: Path, template: Path, variables: dict[str, str], *flags: str
) -> Path:
    """A service, with an edit of its owner's, and the template's next version in it."""
    service = odd / "é service"

    def scaffold(*arguments: str | Path) -> None:
        result = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=odd,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""

    scaffold("new", service, "--defaults", *flags)
    (service / "app/alpha.py").write_text("MINE = 1\n")
    commit(service, "Mine")
    release(template, "1.1.0", {"template/naïve café.md": "1.1.0\n"})
    scaffold("update", service)
    return service


def test_everything_odd_at_once(odd: Path, template: Path, bare: dict[str, str]) -> None:
    """A service is made there, with its environment and first commit, and updated."""
    service = make_and_update([SCAFFOLD], odd, template, bare)
    assert (service / ".venv/pyvenv.cfg").is_file()
    assert git(service, "log", "--format=%an", "--reverse").splitlines()[0] == "scaffold"
    assert (service / "naïve café.md").read_text() == "1.1.0\n"
    assert (service / "app/alpha.py").read_text() == "MINE = 1\n"


@pytest.mark.parametrize("version", PYTHONS)
def test_each_python_of_this_machine(
    odd: Path, template: Path, bare: dict[str, str], tmp_path: Path, version: str
) -> None:
    """With what the package declares and nothing else, a service is made and updated there."""
    folder = tmp_path / "environment"
    for arguments in (
        ["venv", "--quiet", "--python", PYTHONS[version], str(folder)],
        ["pip", "install", "--quiet", "--python", str(folder), "--editable", str(ROOT)],
    ):
        subprocess.run([find_uv(), *arguments], cwd=tmp_path, check=True, timeout=300)
    command = [str(folder / "bin/python"), "-W", "error", "-m", "scaffold_cli"]
    service = make_and_update(command, odd, template, bare, "--no-install")
    assert (service / "naïve café.md").read_text() == "1.1.0\n"
