"""The few questions to git, the first commit of a new service, and the merge of one file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import UsageError

LOCAL_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
)


def forget_calling_repository() -> None:
    """Drop what a git hook or alias exports: we, and Copier, are about other repositories."""
    for name in LOCAL_VARIABLES:
        os.environ.pop(name, None)


def require_git() -> None:
    if shutil.which("git") is None:
        raise UsageError(
            "git is not on the PATH; install it (https://git-scm.com) and run this again"
        )


def enclosing_repository(folder: Path) -> Path | None:
    """The root of the repository that holds `folder`, or of its nearest ancestor that exists."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    root = _output(existing, "rev-parse", "--show-toplevel")
    return Path(root) if root else None


def describe(repository: Path, commit: str = "HEAD") -> str | None:
    """The commit's name that `git rev-parse` resolves again; nothing before the first commit."""
    return _output(repository, "describe", "--tags", "--always", commit)


def is_dirty(repository: Path) -> bool:
    return bool(_output(repository, "status", "--porcelain"))


def changes(folder: Path) -> list[str]:
    """The paths below `folder` that differ from the last commit, untracked ones included."""
    flags = ["--porcelain", "-z", "--untracked-files=all", "--no-renames"]
    return [entry[3:] for entry in _names(folder, "status", *flags, "--", ".")]


def tracked(folder: Path) -> set[str]:
    """The files below `folder` that git knows, relative to it."""
    return set(_names(folder, "ls-files", "-z", "--", "."))


def ignored(folder: Path, names: Iterable[str]) -> set[str]:
    """Those of the paths below `folder`, relative to it, that git would not take in."""
    paths = b"".join(os.fsencode(name) + b"\0" for name in names)
    result = _run(folder, "check-ignore", "-z", "--stdin", stdin=paths)
    return {os.fsdecode(name) for name in result.stdout.split(b"\0") if name}


def clone(url: str, folder: Path) -> None:
    """Clone without checking anything out. Raises `CalledProcessError` with what git said."""
    _git(
        folder.parent, "clone", "--quiet", "--no-checkout", "--", url, str(folder)
    ).check_returncode()


def take_file(repository: Path, commit: str, name: str) -> bool:
    """Put one file of a commit into the work tree; False where the commit has none."""
    return _git(repository, "checkout", "--quiet", commit, "--", name).returncode == 0


def content(repository: Path, commit: str, name: str) -> bytes | None:
    """One file of a commit; nothing where the commit has none."""
    result = _run(repository, "cat-file", "blob", f"{commit}:{name}")
    return result.stdout if result.returncode == 0 else None


def tags(repository: Path) -> list[str]:
    return (_output(repository, "tag", "--list") or "").splitlines()


def remote_tags(url: str, seconds: float) -> list[str]:
    """The tags of a repository elsewhere; none where it does not tell them in this time.

    Nobody is asked for a password or whether a host may be trusted: that is for who wants to clone.
    """
    silent = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GCM_INTERACTIVE": "never",
        "GIT_SSH_COMMAND": f"{os.environ.get('GIT_SSH_COMMAND', 'ssh')} -o BatchMode=yes",
    }
    process = subprocess.Popen(
        ["git", "ls-remote", "--quiet", "--tags", "--refs", "--", url],
        env={**os.environ, **silent},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what it starts has no terminal to ask at
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return []
    finally:
        _end_all(process)
    lines = output.decode(errors="replace").splitlines() if process.returncode == 0 else []
    return [line.partition("refs/tags/")[2] for line in lines]


def commit_of(clone: Path, name: str) -> str | None:
    """The full hash of a tag, branch or commit of a clone; nothing where there is no such."""
    for candidate in (name, f"refs/remotes/origin/{name}"):
        # By stdin: as an argument, a name that begins with a hyphen would be read as an option.
        query = f"{candidate}^{{commit}}".replace("\n", " ").encode()
        result = _run(clone, "cat-file", "--batch-check=%(objectname)", stdin=query)
        # Of what it does not find, git repeats the name with a remark.
        if len(words := result.stdout.decode(errors="replace").split()) == 1:
            return words[0]
    return None


def is_ancestor(repository: Path, older: str, newer: str) -> bool:
    """Whether `older` is in the history of `newer`; a commit is in its own."""
    return _git(repository, "merge-base", "--is-ancestor", older, newer).returncode == 0


def merge_file(mine: bytes, old: bytes, new: bytes) -> tuple[bytes, bool] | None:
    """Both sides' changes since `old`, and whether they leave each other alone.

    Where they meet, both stand between conflict markers. Nothing for what is no text.
    """
    labels = ("before updating", "last update", "after updating")
    with tempfile.TemporaryDirectory(prefix="scaffold-") as folder:
        for name, content in zip(labels, (mine, old, new), strict=True):
            Path(folder, name).write_bytes(content)
        flags = [argument for label in labels for argument in ("-L", label)]
        result = _run(Path(folder), "merge-file", "-p", *flags, *labels)
    # The status counts the conflicts; above 127 git has failed, as it does for binary files.
    return (result.stdout, result.returncode == 0) if 0 <= result.returncode <= 127 else None


def mark_unmerged(folder: Path, files: Mapping[str, Mapping[int, tuple[int, bytes]]]) -> None:
    """Record conflicts as a merge does, so that git refuses to commit before they are mended.

    Each file has a mode and content for stages 1 (common), 2 (ours) and 3 (theirs). Raises
    `CalledProcessError`.
    """
    root = enclosing_repository(folder)
    assert root is not None
    lines = []
    for name, stages in files.items():
        path = (folder / name).relative_to(root).as_posix()
        entries = []
        for stage, (mode, content) in stages.items():
            result = _run(root, "hash-object", "-w", "--stdin", "--path", path, stdin=content)
            result.check_returncode()
            entries.append((f"{mode:o}", result.stdout.decode().strip(), stage))
        nothing = "0" * len(entries[0][1])
        lines.append(f"0 {nothing}\t{path}")
        lines += [f"{mode} {blob} {stage}\t{path}" for mode, blob, stage in entries]
    index = b"".join(os.fsencode(line) + b"\0" for line in lines)
    _run(root, "update-index", "-z", "--index-info", stdin=index).check_returncode()


def unstage(folder: Path, names: Iterable[str]) -> None:
    """Make the index hold again what the last commit has of these files."""
    _git(folder, "reset", "--quiet", "HEAD", "--", *names)


def difference(folder: Path, before: str, after: str, *, coloured: bool) -> str:
    """The diff of two folders below `folder`, as git prints it."""
    flags = ["--no-index", "--no-prefix", "--no-renames", "--no-ext-diff"]
    colour = f"--color={'always' if coloured else 'never'}"
    readable = ["-c", "core.quotePath=false"]  # letters beyond ASCII as they are
    result = _run(folder, "--no-pager", *readable, "diff", *flags, colour, before, after)
    return result.stdout.decode(errors="replace")


def commit_all(folder: Path, message: str) -> None:
    """Make `folder` a repository with one commit on `main`. Raises `CalledProcessError`."""
    # Not `init -b`: git before 2.28 lacks it, and ignores a setting that it does not know.
    _git(folder, "-c", "init.defaultBranch=main", "init", "--quiet").check_returncode()
    # As one pack, lightly compressed: a file for each object takes twice as long to write, and the
    # next `git gc` would do away with them.
    packed = ["-c", "core.bigFileThreshold=1", "-c", "core.compression=1"]
    _git(folder, *packed, "add", "--all").check_returncode()
    commit = ["-c", "maintenance.auto=false", "commit", "--quiet", "--message", message]
    result = _git(folder, *commit)
    if result.returncode != 0 and (identity := _fallback_identity(folder)):
        result = _git(folder, *identity, *commit)
    result.check_returncode()


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """It, and those that it has started; nothing where it has ended by itself."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _fallback_identity(folder: Path) -> list[str]:
    if _output(folder, "var", "GIT_AUTHOR_IDENT") and _output(folder, "var", "GIT_COMMITTER_IDENT"):
        return []
    return ["-c", "user.name=scaffold", "-c", "user.email=scaffold@localhost"]


def _output(folder: Path, *arguments: str) -> str | None:
    result = _git(folder, *arguments)
    return result.stdout.strip() if result.returncode == 0 else None


def _names(folder: Path, *arguments: str) -> list[str]:
    """The paths of a command that ends each with a zero byte. Raises `CalledProcessError`."""
    result = _run(folder, *arguments)
    result.check_returncode()
    return [os.fsdecode(name) for name in result.stdout.split(b"\0") if name]


def _run(
    folder: Path, *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """As `_git`, for what may not be text."""
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, input=stdin or b"", check=False
    )


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
