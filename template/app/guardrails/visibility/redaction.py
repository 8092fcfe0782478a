"""Keeps secrets and prompts out of whatever is written or sent about a request.

A secret is known beforehand, a prompt only with its request. Both are found as they are, and as
Python, JSON and URLs quote them, however often one has quoted another.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

import orjson

from ...caller import Caller

MIN_SECRET_LENGTH: Final = 6
MIN_SECRET_PATH_LENGTH: Final = 20
"""A shorter path of a secret URL is an ordinary word, such as `/alerts`."""
MIN_PROMPT_LENGTH: Final = 6
"""Shorter texts of a request are no prompt, and would blank out ordinary words."""
SHARED_RUN: Final = 12
"""So many characters in a row that a request and a message share are a quotation."""
MAX_COMPARED_BYTES: Final = 256 * 1024
MAX_QUOTATIONS: Final = 4
"""Of one another, beyond the backslashes before a character, of which there may be any number."""

WITHHELD: Final = "[withheld: it may quote a request, and nobody knows which]"

_ESCAPE: Final = re.compile(
    r"\\+(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|([bfnrt])|(.)|\Z)", re.DOTALL
)
_PERCENT: Final = re.compile(r"%([0-9a-fA-F]{2})")
_PARTS: Final = re.compile(
    "[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
    "|[\ud800-\udbff][\udc00-\udfff]"
)
_CONTROLS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

_ANCHOR: Final = 6
_STRIDE: Final = SHARED_RUN - _ANCHOR + 1
"""Every run of `SHARED_RUN` holds a whole anchor that begins at a multiple of this."""


class Redactor:
    """Replaces the service's own secrets, wherever they turn up, by `[secret]`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        long_enough = (secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH)
        longest_first = sorted(set(long_enough), key=len, reverse=True)
        patterns = "|".join(map(_however_quoted, longest_first))
        self._pattern = re.compile(patterns) if patterns else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("[secret]", text) if self._pattern else text


def url_secrets(url: str) -> Iterator[str]:
    """What of a well-formed URL that is a secret itself must not be written, also where it stands
    alone: a webhook's path is its key."""
    yield url
    yield from credentials(url)
    path = urlsplit(url).path
    if len(path) >= MIN_SECRET_PATH_LENGTH:
        yield path


def credentials(url: str) -> Iterator[str]:
    """The user's name and password in a well-formed URL."""
    parts = urlsplit(url)
    for part in filter(None, (parts.username, parts.password)):
        yield from (part, unquote(part))


class Prompt:
    """What the caller has said in one request: in its body, and where else its own words stand."""

    def __init__(self, body: bytes, query: str = "", path: str = "", route: str = "") -> None:
        """Of `path`, only what its `route` (the template) leaves open is the caller's."""
        self._body = body
        self._query = query
        self._path = path
        self._route = route
        self._is_forgotten = False

    @cached_property
    def _said(self) -> set[str]:
        said_in_path = set(self._path.split("/")) - set(self._route.split("/"))
        texts = [*_texts(self._body), *_query_texts(self._query), *said_in_path]
        return {line for text in texts for line in _lines(text)}

    @classmethod
    def of(cls, caller: Caller, route: str) -> "Prompt":
        return cls(caller.body, caller.query, caller.route.partition(" ")[2], route)

    def forget(self) -> None:
        """The request is over, though tasks of its may live on: what they quote is withheld."""
        self._is_forgotten = True
        self._body, self._query, self._path = b"", "", ""
        self.__dict__.pop("_said", None)

    def remove_from(self, text: str) -> str:
        """`text` without anything that the request says, whole or in part, however quoted."""
        if self._is_forgotten:
            return text and WITHHELD
        if len(self._body) > MAX_COMPARED_BYTES:
            return "[withheld: the request is too long to compare with]"
        plain, starts = _unquoted(text)
        marks = _marks(plain, self._said)
        if 1 not in marks:
            return text
        pieces: list[str] = []
        at = 0
        while at < len(plain):
            end = marks.find(1 - marks[at], at)
            end = len(plain) if end < 0 else end
            pieces.append("[prompt]" if marks[at] else text[starts[at] : starts[end]])
            at = end
        return "".join(pieces)


CURRENT: Final[ContextVar[Prompt | None]] = ContextVar("prompt", default=None)
"""What the request has said that the running code works for, if it works for one."""


def _marks(text: str, said: set[str]) -> bytearray:
    """1 for each character of `text` that stands in one of the lines, or in a run shared with one.

    No pattern is made of the lines: it would take long, and `re` would keep it.
    """
    marks = bytearray(len(text))
    for quotation in (*said, *_shared_runs(text, said)):
        at = text.find(quotation)
        while at >= 0:
            marks[at : at + len(quotation)] = b"\x01" * len(quotation)
            at = text.find(quotation, at + 1)
    return marks


def _shared_runs(text: str, said: set[str]) -> set[str]:
    runs = {text[at : at + SHARED_RUN] for at in range(len(text) - SHARED_RUN + 1)}
    if not runs:
        return set()
    anchors = {text[at : at + _ANCHOR] for at in range(len(text) - _ANCHOR + 1)}
    return {
        run
        for line in said
        for at in range(0, len(line) - _ANCHOR + 1, _STRIDE)
        if line[at : at + _ANCHOR] in anchors
        for begin in range(max(0, at - _STRIDE + 1), at + 1)
        if (run := line[begin : begin + SHARED_RUN]) in runs
    }


def _texts(body: bytes) -> Iterator[str]:
    try:
        value = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace")
        # A form's, for one.
        value = [text, unquote_plus(text)]
    yield from _leaves(value)


def _query_texts(query: str) -> Iterator[str]:
    if query:
        yield query
        yield unquote_plus(query)
        for pair in parse_qsl(query):
            yield from pair


def _leaves(value: Any) -> Iterator[str]:
    # Not by recursion: a body may be nested deeper than Python calls.
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
                waiting.append(_inner_json(text))
            case list() as items:
                waiting += items
            case dict() as members:
                # A name that no parameter could have is something that somebody says.
                yield from (name for name in members if not _may_be_parameter(name))
                waiting += members.values()


def _may_be_parameter(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _inner_json(text: str) -> Any:
    """What a text holds as JSON, such as the arguments of a tool call."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _lines(text: str) -> Iterator[str]:
    """Its lines, as `_unquoted` finds them in a message."""
    for line in _unquoted(text)[0].splitlines():
        if len(line) >= MIN_PROMPT_LENGTH:
            yield line
            yield line.replace(" ", "+")


def _unquoted(text: str) -> tuple[str, list[int]]:
    """`text` with each escape sequence as the character that it stands for, whatever number of
    backslashes it has, also where it was escaped as bytes of UTF-8 or halves of UTF-16; and where
    in `text` each of the characters begins, and the last one ends."""
    starts = list(range(len(text) + 1))
    for pattern, translate in ((_PERCENT, _octet), (_ESCAPE, _escaped), (_PARTS, _whole)):
        for _ in range(MAX_QUOTATIONS):
            if not pattern.search(text):
                break
            text, starts = _translated(text, starts, pattern, translate)
    return text, starts


def _translated(
    text: str,
    starts: list[int],
    pattern: re.Pattern[str],
    translate: Callable[[re.Match[str]], str],
) -> tuple[str, list[int]]:
    """`text` with one character, or none, in place of each match; `starts` goes along."""
    pieces: list[str] = []
    kept: list[int] = []
    at = 0
    for match in pattern.finditer(text):
        character = translate(match)
        pieces += (text[at : match.start()], character)
        kept += starts[at : match.start() + len(character)]
        at = match.end()
    return ("".join((*pieces, text[at:])), kept + starts[at:]) if pieces else (text, starts)


def _octet(percent: re.Match[str]) -> str:
    return chr(int(percent[1], 16))


def _escaped(escape: re.Match[str]) -> str:
    *codes, control, other = escape.groups()
    code = next(filter(None, codes), None)
    if code:
        return chr(min(int(code, 16), 0x10FFFF))
    return _CONTROLS.get(control, other or "")


def _whole(parts: re.Match[str]) -> str:
    """The pattern lets pass only what is well formed, but for a few numbers."""
    if parts[0] < "\u0100":
        return parts[0].encode("latin-1").decode("utf-8", "replace")[:1]
    return parts[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _however_quoted(secret: str) -> str:
    """A pattern for it, as it is and in quotations of quotations."""
    return "".join(map(_pattern_of, secret))


def _pattern_of(character: str) -> str:
    if character.isascii() and (character.isalnum() or character in "-._~"):
        return re.escape(character)
    code = ord(character)
    octets = character.encode(errors="surrogateescape")
    # Of two that begin alike the longer one first.
    escaped = [
        r"\\+".join(f"x{octet:02x}" for octet in octets),
        r"\\+".join(f"u{unit:04x}" for unit in _units(character)),
        f"U{code:08x}",
        f"x{code:02x}",
        *(letter for letter, control in _CONTROLS.items() if control == character),
    ]
    plain = ["".join(f"%{octet:02x}" for octet in octets), re.escape(character)]
    if character == " ":
        plain.append(r"\+")
    return rf"(?:\\+(?i:{'|'.join(escaped)})|\\*(?i:{'|'.join(plain)}))"


def _units(text: str) -> list[int]:
    """The numbers of UTF-16."""
    octets = text.encode("utf-16-be", "surrogatepass")
    return [high << 8 | low for high, low in zip(octets[::2], octets[1::2], strict=True)]
