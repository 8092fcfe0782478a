"""What is told of an exception that nobody expected: where it was raised, and its message without
what the request had said. Values of variables are never read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Final

from .redaction import WITHHELD, Prompt

ROOT: Final = Path(__file__).resolve().parents[3]
MAX_CHAIN: Final = 10
MAX_FRAMES: Final = 100

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on the stack. `path` begins at the project, or at the library's package."""

    path: str
    module: str
    function: str
    line: int
    is_own: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception, and the request that it may quote; `prompt` is `None` where none is known.

    `place` is the operation that failed, such as `POST /v1/chat/completions`.
    """

    error: BaseException
    traceback: TracebackType | None
    prompt: Prompt | None
    place: str
    request_id: str | None = None

    @property
    def name(self) -> str:
        return type(self.error).__name__

    @property
    def site(self) -> str:
        """The line of the service's own code that it came through last: `app/routes.py:31`."""
        frames = frames_of(self.traceback)
        frame = next((frame for frame in reversed(frames) if frame.is_own), None)
        frame = frame or (frames[-1] if frames else None)
        return f"{frame.path}:{frame.line}" if frame else "unknown"

    def message_of(self, error: BaseException) -> str:
        """The message of one exception of the chain, without anything that the request said."""
        text = text_of(error)
        if self.prompt is None:
            return text and WITHHELD
        return self.prompt.remove_from(text)

    def chain(self) -> list[tuple[BaseException, list[Frame]]]:
        """What was raised last, what that came of, and so on, with the stack of each."""
        first, *others = _chain(self.error)
        return [
            (first, frames_of(self.traceback or first.__traceback__)),
            *((error, frames_of(error.__traceback__)) for error in others),
        ]

    def stack(self) -> str:
        """The chain as text, its cause first, without a line of source."""
        lines: list[str] = []
        for error, frames in reversed(self.chain()):
            lines += (f'  File "{f.path}", line {f.line}, in {f.function}' for f in frames)
            lines.append(f"{type(error).__name__}: {self.message_of(error)}")
        return "\n".join(lines)


def text_of(error: BaseException) -> str:
    """What it says, also where it cannot say it."""
    try:
        return str(error)
    except Exception:
        return "[its message cannot be read]"


def frames_of(traceback: TracebackType | None) -> list[Frame]:
    """Outermost first; of an endless recursion the innermost ones."""
    frames: list[Frame] = []
    for frame, line in list(walk_tb(traceback))[-MAX_FRAMES:]:
        path, is_own = _place_of(Path(frame.f_code.co_filename))
        module = str(frame.f_globals.get("__name__", ""))
        frames.append(Frame(path, module, frame.f_code.co_name, line, is_own))
    return frames


def _place_of(path: Path) -> tuple[str, bool]:
    """Where a file is, as every machine would name it, and whether it is the project's."""
    parts = path.parts
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] in _INSTALLED:
            return "/".join(parts[index + 1 :]), False
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix(), True
    return "/".join(parts[-2:]), False


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < MAX_CHAIN:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        if current.__cause__ is not None:
            waiting.append(current.__cause__)
        elif current.__context__ is not None and not current.__suppress_context__:
            waiting.append(current.__context__)
