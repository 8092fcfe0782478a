"""Makes what a Dockerfile says without Docker: its COPY and RUN lines are carried out in folders.

Each stage has the same place on the disk, as in an image, and gives way to the next. What Docker
itself would do (base images, users, mounts) is left out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from scaffold_cli.environment import find_uv
from tests.rendering import run

FLAG = re.compile(r"^--([\w-]+)=(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Instruction:
    """`RUN --mount=type=cache,target=/x uv sync` has the flag `mount` and the rest as its text."""

    name: str
    flags: Mapping[str, str]
    text: str


@dataclass(slots=True)
class Image:
    """What is left once all has been carried out. `root` stands for `/`."""

    root: Path
    folder: Path = Path("/")
    variables: dict[str, str] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    """The text of each instruction that only the last one of its name counts for."""

    @property
    def workdir(self) -> Path:
        return self.on_disk(self.folder)

    def on_disk(self, path: str | Path) -> Path:
        return self.root / str(self.folder / path).lstrip("/")

    def command(self, instruction: str) -> list[str]:
        """The exec form of `CMD` or `HEALTHCHECK`; a shell's form raises `ValueError`."""
        text = self.last[instruction].removeprefix("CMD ")
        command: list[str] = json.loads(text)
        return command

    def environment(self) -> dict[str, str]:
        """What a container's process sees, with this image's paths as they are on the disk."""
        paths = {
            name: value.replace("/srv", str(self.workdir)) for name, value in self.variables.items()
        }
        return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **paths}


def instructions(dockerfile: Path) -> Iterator[Instruction]:
    """Each in turn, with its continued lines joined and its comments gone."""
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    said = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for line in said.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            flags: dict[str, str] = {}
            text = text.strip()
            while flag := FLAG.match(text):
                flags[flag[1]] = flag[2]
                text = text[flag.end() :]
            yield Instruction(name, flags, text)


def context(project: Path) -> set[str]:
    """The files that Docker would be sent, by `.dockerignore`'s rules: the last that fits decides.

    Of Go's patterns those are known that are in use: names, `*`, and `**` for folders.
    """
    rules = [
        line
        for line in (project / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    files = (path.relative_to(project) for path in project.rglob("*") if path.is_file())
    return {file.as_posix() for file in files if not _is_ignored(PurePosixPath(file), rules)}


def _is_ignored(file: PurePosixPath, rules: list[str]) -> bool:
    ignored = False
    for rule in rules:
        pattern = re.compile(
            "/".join(_part(part) for part in rule.removeprefix("!").split("/")).replace(
                "**/", "(?:.*/)?"
            )
        )
        # A rule for a folder is one for all that is in it.
        if any(pattern.fullmatch(str(path)) for path in (file, *file.parents)):
            ignored = not rule.startswith("!")
    return ignored


def _part(part: str) -> str:
    return part if part == "**" else re.escape(part).replace(r"\*", "[^/]*")


def build(project: Path, root: Path, arguments: Mapping[str, str]) -> Image:
    """Carries the Dockerfile out. Raises `CommandFailed` with what a RUN line said, and
    `FileNotFoundError` for a COPY line that finds nothing."""
    sent = root / "context"
    for name in context(project):
        (sent / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / name, sent / name)
    stages: dict[str, Path] = {"": sent}
    image, stage = Image(root / "stage"), ""
    for step in instructions(project / "Dockerfile"):
        match step.name:
            case "FROM":
                if image.root.exists():
                    image.root.rename(root / stage)
                    stages[stage] = root / stage
                stage = step.text.partition(" AS ")[2] or "final"
                image = Image(image.root)
                image.root.mkdir()
            case "WORKDIR":
                image.folder = Path(step.text)
                image.workdir.mkdir(parents=True, exist_ok=True)
            case "ARG":
                name, _, default = step.text.partition("=")
                image.variables[name] = arguments.get(name, "".join(shlex.split(default)))
            case "ENV":
                for assignment in shlex.split(step.text):
                    name, _, value = assignment.partition("=")
                    image.variables[name] = value.replace("$PATH", os.environ["PATH"])
            case "COPY" if step.flags.get("from") == "uv":
                pass  # uv is on the PATH
            case "COPY":
                _move(image, stages[step.flags.get("from", "")], step.text.split())
            case "RUN":
                _run(image, step.text)
            case _:
                image.last[step.name] = step.text
    return image


def _move(image: Image, source: Path, names: list[str]) -> None:
    """Nothing is wanted twice, so COPY need not take the time to copy."""
    *patterns, target = names
    for pattern in patterns:
        found = list(source.glob(pattern.lstrip("/")))
        if not found and "*" not in pattern:
            raise FileNotFoundError(f"COPY {' '.join(names)}: there is no {pattern}")
        for path in found:
            place = image.on_disk(target)
            path.rename(place / path.name if target.endswith("/") else place)


def _run(image: Image, command: str) -> None:
    python = str(Path(sys.executable).parent)
    uv = str(Path(find_uv()).parent)
    inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    variables = {
        **inherited,
        **image.variables,
        "PATH": os.pathsep.join([python, uv, os.environ["PATH"]]),
        "UV_PYTHON": sys.executable,
        "UV_LINK_MODE": "hardlink",  # for speed; a container's cache is on another file system
    }
    run(["sh", "-c", command], image.workdir, variables)
