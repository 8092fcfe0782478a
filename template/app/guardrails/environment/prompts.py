"""The owner's texts for the model, in `app/prompts`. They are read once, when the service starts.

An HTML comment at the beginning of a file is for the owner's eyes and is left out.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .sources import Unusable

FOLDER: Final = Path(__file__).parents[2] / "prompts"
SYSTEM: Final = "app/prompts/system.md"
SUMMARY: Final = "app/prompts/summary.md"
MAX_BYTES: Final = 256 * 1024

_COMMENTS: Final = re.compile(r"(?:\s*<!--.*?-->)*\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompts:
    """`system` is the default system message, empty for none; `summary` is the summariser's
    instruction. `unusable` is what is wrong with the files of those that could not be read."""

    system: str = field(default="", repr=False)
    summary: str = field(default="", repr=False)
    unusable: tuple[Unusable, ...] = ()


NO_PROMPTS: Final = Prompts()


def read_prompts(folder: Path = FOLDER) -> Prompts:
    """Of a file that cannot be used the text is empty."""
    texts: dict[str, str] = {}
    unusable: list[Unusable] = []
    for name in (SYSTEM, SUMMARY):
        try:
            texts[name] = _read(name, folder / Path(name).name)
        except Unusable as error:
            unusable.append(error)
    if texts.get(SUMMARY) == "":
        remedy = "holds no text: say how a conversation is to be summarised"
        unusable.append(Unusable(SUMMARY, remedy))
    return Prompts(texts.get(SYSTEM, ""), texts.get(SUMMARY, ""), tuple(unusable))


def _read(name: str, path: Path) -> str:
    """Raises `Unusable`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise Unusable(name, "is missing; put it back, empty or not") from None
    except OSError as error:
        remedy = f"cannot be read ({error.strerror}); make it a file that the service may read"
        raise Unusable(name, remedy) from None
    if len(content) > MAX_BYTES:
        raise Unusable(name, f"is larger than {MAX_BYTES // 1024} KiB; shorten it")
    try:
        # Some editors begin with a byte order mark.
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise Unusable(name, "is not UTF-8; save it as such") from None
    comments = _COMMENTS.match(text)
    text = text[comments.end() if comments else 0 :].rstrip()
    if text.startswith("<!--"):
        raise Unusable(name, "opens a comment that does not end; close it with -->")
    return text
