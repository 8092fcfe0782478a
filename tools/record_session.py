"""Records the README's pictures of a session, in a real terminal: `make session`.

What is typed and printed is real: a service is made of what is committed here, checked, edited, and
updated to a version that only a clone of this repository has. Afterwards the home of the recording
is written `~`, what is long is cut with `…`, and what was typed is set off.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Final

import yaml
from packaging.version import Version
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from scaffold_cli.environment import find_uv
from scaffold_cli.errors import ScaffoldError
from scaffold_cli.git import forget_calling_repository
from scaffold_cli.history import HISTORY_FILE
from scaffold_cli.merge import ANSWERS_FILE

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURES: Final = "docs/session"
SERVICE: Final = "my-service"
COLUMNS: Final = 96
ROWS: Final = 50
BLANKS: Final = re.compile(r"(^ +| {2,})")
PATIENCE_SECONDS: Final = 300.0
"""For one command: the first one installs an environment."""
STOP_SECONDS: Final = 30.0
PROMPT: Final = "$ "
FAILED: Final = re.compile(r"(?m)^(?:error: |Traceback )")
CUT: Final = "…"
MOST_CONTINUED_LINES: Final = 2
"""Of one row of a table."""
CONTINUED: Final = re.compile(r" {20,}")

POLICY: Final = "app/policy.py"
OWNERS: Final = ("MAX_CONCURRENT_CALLS", "16")
TEMPLATES: Final = ("BREAKER_COOL_DOWN_SECONDS", "20.0")
NOTICE: Final = "A circuit breaker that has opened tries again after 20 s instead of 30."

FONTS: Final = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
WIDTH_TO_HEIGHT: Final = 0.6
"""Of a character of most of these."""
COLOURS: Final = TerminalTheme(
    (22, 27, 34),
    (213, 219, 227),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (213, 219, 227),
    ],
)
"""On a background of their own, which neither a white page nor a black one swallows."""
FRAME: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}">
<style>
text {{{{ font-family: {FONTS}; font-size: {{char_height}}px }}}}
.{{unique_id}}-title {{{{ font-size: 16px; opacity: 0.7 }}}}
{{styles}}
</style>
<defs>
{{lines}}
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})">
{{backgrounds}}
{{matrix}}
</g>
</svg>
"""


class NotRecorded(Exception):
    """There are no new pictures; the message names the problem and its remedy."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, and what is seen once it has ended as it should."""

    line: str
    shows: str = ""
    questions: Sequence[str] = ()
    """Each is answered by Enter when it appears."""
    without: tuple[str, str] | None = None
    """What stands between these two lines of its output is cut."""
    most_lines: int = 50
    """Of its output; what is more is cut from the middle."""
    before: Callable[[], object] = lambda: None
    """What happens elsewhere first: in an editor, or in the template's repository."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The commands of one picture."""

    name: str
    title: str
    commands: Sequence[Command]


def main(root: Path = ROOT) -> None:
    forget_calling_repository()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    try:
        for file in record(root):
            print(f"{file.relative_to(root)}: {file.stat().st_size // 1000} kB")
    except (NotRecorded, ScaffoldError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("cancelled: the pictures are as they were")
    print(f"Recorded in {time.monotonic() - started:.0f} s. Look at them before you commit them.")


def record(root: Path) -> list[Path]:
    """The pictures, written once all has ended well. Raises `NotRecorded`."""
    tmux = shutil.which("tmux")
    if tmux is None:
        raise NotRecorded(
            "tmux is not on the PATH: install it (apt install tmux, brew install tmux)"
        )
    # A short name: the path of tmux's socket may have a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="s-", ignore_cleanup_errors=True) as folder:
        home = Path(folder).resolve()
        template = Template(root, home / "template")
        scenes = _scenes(template, home / SERVICE)
        with terminal(tmux, home, _variables(home, template.folder)) as screen:
            for scene in scenes:
                for command in scene.commands:
                    screen.run(command)
            recorded = screen.everything().replace(str(home), "~")
    files = []
    for scene, lines in zip(scenes, _by_scene(recorded, scenes), strict=True):
        file = root / PICTURES / f"{scene.name}.svg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(picture(lines, scene.title), encoding="utf-8")
        files.append(file)
    return files


def picture(lines: Sequence[Text], title: str) -> str:
    """An SVG that asks no other host for anything."""
    console = Console(
        record=True, file=StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        # Broken as a terminal does it, in the middle of a word.
        for part in line.divide(range(COLUMNS, len(line), COLUMNS)):
            for text, style, _ in part.render(console):
                # Blanks by themselves: not every font is as wide as this one, and some renderers
                # leave out those that a text begins with.
                for piece in BLANKS.split(text):
                    console.print(Text(piece, style or ""), end="", soft_wrap=True)
            console.print()
    return console.export_svg(
        title=title,
        theme=COLOURS,
        code_format=FRAME,
        font_aspect_ratio=WIDTH_TO_HEIGHT,
        unique_id="session",
    )


def read(recorded: str) -> list[Text]:
    """What a terminal has shown, line by line in its colours, up to the prompt that waits there."""
    lines = [*Text.from_ansi(recorded).split("\n", allow_blank=True)]
    for line in lines:
        line.rstrip()
    while lines and lines[-1].plain in ("", PROMPT.rstrip()):
        lines.pop()
    return lines


def without(lines: Sequence[Text], first: str, last: str) -> list[Text]:
    """What stands between two lines is `…`; all of it where they do not follow each other."""
    plain = [line.plain for line in lines]
    if first not in plain or last not in plain[plain.index(first) :]:
        return [*lines]
    start, end = plain.index(first) + 1, plain.index(last, plain.index(first))
    return [*lines[:start], Text(CUT), *lines[end:]]


def shortened(lines: Sequence[Text], most: int) -> list[Text]:
    """At most so many; what is left out of a table's row or of the middle is `…` in its place."""
    rows: list[Text] = []
    for indent, group in groupby(lines, _indent_if_continued):
        row = [*group]
        if indent and len(row) > MOST_CONTINUED_LINES:
            row[MOST_CONTINUED_LINES - 1 :] = [Text(" " * indent + CUT)]
        rows += row
    if len(rows) <= most:
        return rows
    head = most // 2
    return [*rows[:head], Text(CUT), *rows[len(rows) - (most - head - 1) :]]


def _indent_if_continued(line: Text) -> int:
    blanks = CONTINUED.match(line.plain)
    return blanks.end() if blanks else 0


# What is recorded


class Template:
    """A clone of this repository, tagged with its version, and the version that comes after."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        _run(root, "git", "clone", "--quiet", "--no-tags", str(root), str(folder))
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        self.version = str(project["project"]["version"])
        number = Version(self.version)
        self.next_version = f"{number.major}.{number.minor + 1}.0"
        self._git("tag", self.version)

    @property
    def questions(self) -> list[str]:
        """As they are put, without the hint in brackets; the name is that of the folder."""
        config = yaml.safe_load((self.folder / "copier.yml").read_text(encoding="utf-8"))
        asked = [config[name] for name in config if not name.startswith("_")]
        chosen = [str(question["help"]) for question in asked if "choices" in question]
        return [question.partition(" (")[0] for question in chosen]

    def release(self) -> None:
        """Make the next version: another default, and what its owners are told of it."""
        _set_constant(self.folder / "template" / POLICY, *TEMPLATES)
        history = self.folder / HISTORY_FILE
        told = history.read_text(encoding="utf-8").rstrip()
        told += f'\n\n{self.next_version}:\n  notices:\n    - "{NOTICE}"\n'
        history.write_text(told, encoding="utf-8")
        self._git("commit", "--quiet", "--all", "--message", f"Release {self.next_version}")
        self._git("tag", self.next_version)

    def _git(self, *arguments: str) -> None:
        """By nobody in particular, unsigned, and without the user's own hooks."""
        settings = {
            "user.name": "Template",
            "user.email": "template@example.com",
            "commit.gpgSign": "false",
            "tag.gpgSign": "false",
            "core.hooksPath": os.devnull,
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        _run(self.folder, "git", *flags, *arguments)


def _scenes(template: Template, service: Path) -> list[Scene]:
    owners, templates = OWNERS[0], TEMPLATES[0]
    return [
        Scene(
            "make",
            "scaffold: make a service, and check it",
            [
                Command(
                    f"scaffold new {SERVICE}",
                    f"{SERVICE} is ready",
                    questions=[*template.questions, "Make it?"],
                ),
                Command(f"cd {SERVICE} && scaffold check", ": ready for production"),
            ],
        ),
        Scene(
            "update",
            "scaffold: take the template's next version in",
            [
                Command(
                    "git diff --color --unified=0 | tail -n 2    # an edit of your own",
                    f"+{owners}",
                    before=lambda: _set_constant(service / POLICY, *OWNERS),
                ),
                Command('git commit --quiet --all --message "Fewer calls at a time"'),
                Command(
                    "scaffold update --dry-run",
                    without=(_header(ANSWERS_FILE), _header(POLICY)),
                    before=template.release,
                ),
                Command("scaffold update"),
                Command(
                    f"grep -E '{owners}|{templates}' {POLICY}    # both are there",
                    f"{owners}: Final = {OWNERS[1]}\n{templates}: Final = {TEMPLATES[1]}",
                ),
            ],
        ),
    ]


def _header(name: str) -> str:
    return f"diff --git a/{name} b/{name}"


def _set_constant(file: Path, name: str, value: str) -> None:
    text = file.read_text(encoding="utf-8")
    changed, times = re.subn(rf"(?m)^({name}: Final) = .*$", rf"\1 = {value}", text)
    if times != 1 or changed == text:
        raise NotRecorded(f"{file.name} has no {name} to change to {value}: name another one here")
    file.write_text(changed, encoding="utf-8")


def _by_scene(recorded: str, scenes: Sequence[Scene]) -> Iterator[list[Text]]:
    lines = read(recorded)
    starts = [at for at, line in enumerate(lines) if line.plain.startswith(PROMPT)]
    runs = [lines[at:end] for at, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    following = iter(runs)
    for scene in scenes:
        shown: list[Text] = []
        for command in scene.commands:
            typed, *printed = next(following)
            typed.stylize("bold blue")
            if command.without:
                printed = without(printed, *command.without)
            shown += [Text(), typed, *shortened(printed, command.most_lines)]
        yield shown[1:]


# The terminal


class Screen:
    """A shell in tmux, typed at as a person does."""

    def __init__(self, tmux: Callable[..., str]) -> None:
        self._tmux = tmux

    def run(self, command: Command) -> None:
        """Type it, answer what it asks, and wait until the shell is back. Raises `NotRecorded`."""
        command.before()
        seen = len(self._lines())
        self._type(command.line)
        self._wait_until(lambda: self._last() == PROMPT + command.line, command)
        self._press("Enter")
        for question in command.questions:
            self._wait_until(partial(self._shows, question, seen), command)
            self._press("Enter")
        self._wait_until(self._is_idle, command)
        if not self._shows(command.shows, seen) or FAILED.search(self._since(seen)):
            raise NotRecorded(f"`{command.line}` did not end well:\n{self._since(seen)}")

    def wait_for_shell(self) -> None:
        self._wait_until(self._is_idle, Command("sh"))

    def interrupt(self) -> None:
        """End what runs, in order: hung up it would still write where nothing is to be left."""
        self._press("C-c")
        with suppress(NotRecorded):
            self._wait_until(self._is_idle, Command("sh"), STOP_SECONDS)

    def everything(self) -> str:
        """All that was shown, with the sequences that style it; broken lines are joined."""
        return self._tmux("capture-pane", "-p", "-e", "-J", "-S", "-")

    def _type(self, text: str) -> None:
        self._tmux("send-keys", "-l", "--", text)

    def _press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def _lines(self) -> list[str]:
        shown = self._tmux("capture-pane", "-p", "-J", "-S", "-")
        return [line.rstrip() for line in shown.rstrip().splitlines()]

    def _is_idle(self) -> bool:
        return self._last() == PROMPT.rstrip()

    def _last(self) -> str:
        return (self._lines() or [""])[-1]

    def _shows(self, text: str, seen: int) -> bool:
        return text in self._since(seen)

    def _since(self, seen: int) -> str:
        return "\n".join(self._lines()[seen:])

    def _wait_until(
        self, condition: Callable[[], bool], command: Command, seconds: float = PATIENCE_SECONDS
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                shown = "\n".join(self._lines())
                raise NotRecorded(f"`{command.line}` has not ended:\n{shown}")
            time.sleep(0.05)


@contextmanager
def terminal(tmux: str, home: Path, variables: Mapping[str, str]) -> Iterator[Screen]:
    """A shell in `home`, in a tmux server that ends with the block."""
    server = [tmux, "-u", "-S", str(home / ".tmux"), "-f", os.devnull]

    def act(*arguments: str) -> str:
        return _run(home, *server, *arguments)

    clean = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    act("new-session", "-d", *size, *clean, "sh")
    screen = Screen(act)
    try:
        screen.wait_for_shell()
        yield screen
    except BaseException:
        screen.interrupt()
        raise
    finally:
        act("kill-server")


def _variables(home: Path, template: Path) -> dict[str, str]:
    """A home of its own; how this machine reaches an index, and what it has of it, stay."""
    kept = re.compile(r"PATH|LANG|LC_.*|UV|UV_.*|SSL_.*|.*_proxy|.*_PROXY|PYENV_.*")
    ours = {name: value for name, value in os.environ.items() if kept.fullmatch(name)}
    uv = find_uv(otherwise=" and run this again")
    users = Path.home()
    (home / ".tmp").mkdir()
    (home / ".gitconfig").write_text("[user]\nname = You\nemail = you@example.com\n")
    return {
        **ours,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home / ".tmp"),
        "TERM": "screen-256color",
        "PS1": PROMPT,
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        "SCAFFOLD_TEMPLATE": str(template),
        "UV_CACHE_DIR": _run(home, uv, "cache", "dir"),
        "UV_PYTHON_INSTALL_DIR": _run(home, uv, "python", "dir"),
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME") or str(users / ".config"),
    }


def _run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = (result.stderr + result.stdout).strip()
        raise NotRecorded(f"{Path(command[0]).name} {' '.join(command[1:])} failed\n{said}")
    return result.stdout.strip("\n")


if __name__ == "__main__":
    main()
