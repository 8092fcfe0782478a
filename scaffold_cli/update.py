"""`scaffold update`: a newer template, or other answers, taken into a service that was edited.

Copier renders what the service started from and what it would start from today. Everything is
known before the first file is written.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from rich.console import Console

from . import git
from .answers import from_assignments, settle_again
from .errors import ScaffoldError, UsageError
from .history import HISTORY_FILE, History, InvalidHistory, read_history, renames
from .merge import ANSWERS_FILE, Merge, merge_trees, read_tree, require_harmless, write_file
from .notices import notices_of_answers, notices_of_versions
from .questionnaire import Answer, Answers, Questionnaire
from .render import render_version
from .source import INSTALLED
from .versions import Target, find_target

AXES = ("framework", "storage", "providers")
"""What every version of the template has asked."""
NAMED_FILES = 5
LINE_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Record:
    """What a service remembers of its template."""

    source: str
    version: str
    answers: Answers


@dataclass(frozen=True, slots=True)
class Update:
    """All that is known of an update before the first file is written."""

    before: Record
    after: Record
    merge: Merge
    notices: Sequence[tuple[str, str]]
    """What the versions that are crossed tell the owner, each with the version's name."""
    notices_of_answers: Mapping[str, Sequence[str]]
    """What the owner is told of each answer that changes, by the question's name."""


def require_updatable(folder: Path) -> Record:
    """What the service in `folder` records. Raises `UsageError` where an update cannot start."""
    git.require_git()
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give that of a service")
    record = read_record(folder)
    if git.enclosing_repository(folder) is None:
        raise UsageError(
            f"{folder} is in no git repository, so an update could not be undone: run `git init &&"
            " git add --all && git commit` there, then this again"
        )
    if changed := git.changes(folder):
        raise UsageError(
            f"{folder} has uncommitted changes ({_shortened(changed)}): commit or stash them, so"
            " that they can be told from the update's"
        )
    if ANSWERS_FILE not in git.tracked(folder):
        raise UsageError(
            f"git ignores {folder / ANSWERS_FILE}: run `git add --force {ANSWERS_FILE} && git"
            " commit` there, then this again"
        )
    return record


def read_record(folder: Path) -> Record:
    """What Copier wrote down. Raises `UsageError` for a service that `scaffold` did not render."""
    file = folder / ANSWERS_FILE
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} was not rendered by scaffold (it has no {ANSWERS_FILE}): give the folder of"
            " a service that was"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML: restore it from git") from error
    if not isinstance(content, dict) or "_src_path" not in content:
        raise UsageError(f"{file} names no template (_src_path): restore it from git")
    source = str(content["_src_path"])
    if any(axis not in content for axis in AXES):
        raise UsageError(
            f"{folder} was rendered from another template, {source}: use `copier update` there"
        )
    if "_commit" not in content:
        raise UsageError(
            f"{file} names no version of the template, which had no commit when it was rendered:"
            " add the one it stands closest to as a line `_commit: VERSION`, and commit that"
        )
    if _is_relative(source):
        raise UsageError(
            f"{file} has the template's path as {source}, which leads nowhere from elsewhere:"
            " make its _src_path absolute, and commit that"
        )
    answers: Answers = {
        key: [str(item) for item in value] if isinstance(value, list) else str(value)
        for key, value in content.items()
        if not str(key).startswith("_")
    }
    return Record(source, str(content["_commit"]), answers)


def plan(folder: Path, record: Record, assignments: Sequence[str], to: str | None) -> Update | None:
    """What an update of the clean service in `folder` does; None when there is nothing to do.

    Writes nothing. Raises `UsageError` for an unknown version or answer, and where something lies
    in a new file's place; `ScaffoldError` when the template cannot be had or rendered.
    """
    with tempfile.TemporaryDirectory(prefix="scaffold-") as workspace:
        target = find_target(record.source, record.version, to, Path(workspace, "template"))
        if not assignments and target.commit == target.recorded_commit:
            return None
        questionnaire = _questionnaire(target, folder)
        answers = _answers(record, assignments, questionnaire)
        history = _history(target)
        notices = notices_of_versions(target, history, questionnaire, answers)
        of_answers = notices_of_answers(target, questionnaire, record.answers, answers)
        old, new = Path(workspace, "old", folder.name), Path(workspace, "new", folder.name)
        render_version(record.source, target.recorded_commit, record.answers, old)
        render_version(record.source, target.commit, answers, new)
        is_owned = _owned(target.template_root)
        renewed = read_record(new)
        left = record.answers["framework"]
        merge = merge_trees(
            folder,
            read_tree(old),
            read_tree(new),
            is_owned,
            left if left != renewed.answers["framework"] else None,
            renames(history),
        )
    require_harmless(folder, merge)
    if not merge.changes and not merge.conflicts:
        return None
    return Update(record, renewed, merge, notices, of_answers)


def _questionnaire(target: Target, folder: Path) -> Questionnaire:
    try:
        return Questionnaire(target.template_root, folder.name)
    except yaml.YAMLError as error:
        raise ScaffoldError(
            f"the copier.yml of {target.version} is no YAML: choose another version with --to"
        ) from error


def _answers(record: Record, assignments: Sequence[str], questionnaire: Questionnaire) -> Answers:
    known = {question.name for question in questionnaire.questions}
    recorded = {name: answer for name, answer in record.answers.items() if name in known}
    return settle_again(questionnaire, recorded, from_assignments(assignments, questionnaire))


def _history(target: Target) -> History:
    try:
        return read_history(git.content(target.template_root, target.commit, HISTORY_FILE))
    except InvalidHistory as error:
        raise ScaffoldError(
            f"{error}, in {target.version} of the template: choose another version with --to"
        ) from error


def _owned(template_root: Path) -> Callable[[str], bool]:
    """Whether a file is the owner's from the first rendering on."""
    config = yaml.safe_load((template_root / "copier.yml").read_text(encoding="utf-8"))
    patterns = [str(pattern) for pattern in config.get("_skip_if_exists", ())]
    return lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_relative(source: str) -> bool:
    """Whether it is a path from wherever the template was rendered; no URL, no `host:path`,
    nor the installed scaffold's own."""
    is_remote = re.match(r"[^/]+:", source) is not None
    return source != INSTALLED and not is_remote and not Path(source).expanduser().is_absolute()


# What the person reads


def print_plan(console: Console, update: Update) -> None:
    """The diff that the update would make, and what it would leave to the owner."""
    print(_difference(update.merge, coloured=console.is_terminal and not console.no_color))
    _print_files(console, update)
    _print_kept_aside(console, update, "Would be kept aside")
    _print_notices(console, update)
    if update.merge.conflicts:
        console.print(f"\nWould be yours to settle: {', '.join(update.merge.conflicts)}")
    console.print("\nThis was a dry run: nothing was written.")


def print_done(console: Console, dest: Path, update: Update) -> None:
    """What was changed, what comes next, how to go back. Raises `ScaffoldError` on conflicts."""
    _print_files(console, update)
    _print_kept_aside(console, update, "Kept aside")
    _print_notices(console, update)
    conflicts = update.merge.conflicts
    if conflicts:
        console.print("\nConflicts, where your edit and the template's meet:")
        for name in conflicts:
            console.print(f"  {name}: {_how_to_settle(update.merge, name)}")
    console.print("\nNext:\n")
    if dest.resolve() != Path.cwd():
        console.print(f"  cd {shlex.quote(str(dest))}")
    console.print("  git diff HEAD     # what changed")
    if conflicts:
        console.print("  git add FILE      # each of the conflicts, once it is settled")
    console.print("  uv sync")
    console.print("  uv run pytest     # then commit")
    console.print("\nOr back to the last commit, from which the update started, in that folder:\n")
    console.print("  git restore --source=HEAD --staged --worktree . && git clean -d --force .")
    if conflicts:
        raise ScaffoldError(
            f"the update is in place, but yours to settle: {', '.join(conflicts)}; edit and"
            " `git add` each, or go back as told above"
        )


def _print_files(console: Console, update: Update) -> None:
    old, new, merge = update.before, update.after, update.merge
    versions = dict.fromkeys([old.version, new.version])
    console.print(f"{new.answers['project_name']}: template {' -> '.join(versions)}")
    for name in dict.fromkeys([*old.answers, *new.answers]):
        before, after = _shown(old.answers.get(name)), _shown(new.answers.get(name))
        if before != after:
            console.print(f"{name.replace('_', ' ')}: {before} -> {after}")
    names = merge.changes.keys() | merge.conflicts.keys() | {*merge.left_out}
    names |= {*merge.kept_aside.values()}
    origins = {name: origin for origin, name in (merge.renamed | merge.kept_aside).items()}
    for name in sorted(names - merge.renamed.keys() - merge.given_up()):
        remark = f", which was {origins[name]}" if name in origins else ""
        remark = ", which you have deleted" if name in merge.left_out else remark
        console.print(f"  {_kind(merge, name):<10}{name}{remark}")


def _print_kept_aside(console: Console, update: Update, heading: str) -> None:
    """What the owner has edited and has to carry over, and what they had kept aside before."""
    merge = update.merge
    if merge.kept_aside:
        console.print(f"\n{heading}, since you have edited it; no tool reads it there:")
        for name, aside in merge.kept_aside.items():
            remark = " (git ignores that name)" if aside in merge.ignored else ""
            reason = f"begins anew, for {update.after.answers['framework']}"
            if name in merge.given_up():
                reason = "is no part of the service any more"
            console.print(f"  {aside}{remark}: {name} {reason}")
        console.print("Carry over what you still need of it, then remove it.")
    if merge.kept_before:
        console.print(
            "\nWhat earlier updates have kept aside of these files still lies beside them:"
        )
        for name, asides in merge.kept_before.items():
            console.print(f"  {name}: {', '.join(asides)}")


def _print_notices(console: Console, update: Update) -> None:
    for question, notices in update.notices_of_answers.items():
        change = " -> ".join(
            _shown(record.answers[question]) for record in (update.before, update.after)
        )
        console.print(f"\nAbout {question.replace('_', ' ')}, {change}:")
        for notice in notices:
            console.print(_as_item(notice, console.width))
    if update.notices:
        console.print(f"\nNew since {update.before.version}:")
    for version, notice in update.notices:
        console.print(f"  {version}: {' '.join(notice.split())}")


def _kind(merge: Merge, name: str) -> str:
    if name in merge.conflicts:
        return "conflict"
    if name in merge.left_out:
        return "left out"
    if name in merge.renamed.values():
        return "renamed"
    if name in merge.kept_aside.values():
        return "kept"
    if merge.changes[name].after is None:
        return "removed"
    return "changed" if merge.changes[name].before else "added"


def _how_to_settle(merge: Merge, name: str) -> str:
    if name in merge.unmergeable:
        return "it is no text, so yours stands; `git checkout --theirs` takes the template's"
    return "choose between <<<<<<< and >>>>>>>"


def _difference(merge: Merge, *, coloured: bool) -> str:
    with tempfile.TemporaryDirectory(prefix="scaffold-") as folder:
        for side in ("a", "b"):
            Path(folder, side).mkdir()
        for name, change in merge.changes.items():
            for side, file in (("a", change.before), ("b", change.after)):
                if file:
                    write_file(Path(folder, side, name), file)
        return git.difference(Path(folder), "a", "b", coloured=coloured)


def _as_item(text: str, width: int) -> str:
    """As an item of a list, in lines that can be read where the terminal is wide."""
    return textwrap.fill(
        " ".join(text.split()),
        min(width, LINE_WIDTH),
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shown(answer: Answer | None) -> str:
    return ", ".join(answer) if isinstance(answer, list) else answer or "none"


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - NAMED_FILES
    return ", ".join(names[:NAMED_FILES]) + (f" and {more} more" if more > 0 else "")
