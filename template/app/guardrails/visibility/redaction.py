"""Keeps secrets and prompts out of whatever is written or sent about a request."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

MIN_SECRET_LENGTH: Final = 6
MIN_PROMPT_LENGTH: Final = 6
"""Shorter texts of a request are no prompt, and would blank out ordinary words."""
SHARED_RUN: Final = 12
"""So many characters in a row that a request and a message share are a quotation."""
MAX_COMPARED_BYTES: Final = 256 * 1024


class Redactor:
    """Replaces the service's own secrets, wherever they turn up, by `[secret]`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._pattern = _pattern({s for s in secrets if len(s) >= MIN_SECRET_LENGTH})

    def __call__(self, text: str) -> str:
        return self._pattern.sub("[secret]", text) if self._pattern else text


def without_prompt(text: str, body: bytes) -> str:
    """`text` without anything that the request's `body` says, whole or in part, however quoted."""
    if len(body) > MAX_COMPARED_BYTES:
        return "[withheld: the request is too long to compare with]"
    said = set(_texts(body))
    # Of a whole prompt a pattern takes long to compile, and `re` would keep hundreds of them.
    pattern = _pattern({form for form in said if form in text})
    return _without_shared_runs(pattern.sub("[prompt]", text) if pattern else text, said)


def _without_shared_runs(text: str, said: set[str]) -> str:
    """`text` without the runs of `SHARED_RUN` characters or more that it shares with `said`."""
    grams = {text[at : at + SHARED_RUN] for at in range(len(text) - SHARED_RUN + 1)}
    shared = {
        gram
        for line in said
        for at in range(len(line) - SHARED_RUN + 1)
        if (gram := line[at : at + SHARED_RUN]) in grams
    }
    pieces: list[str] = []
    at = 0
    while at < len(text):
        end = at
        while text[end : end + SHARED_RUN] in shared:
            end += 1
        if end > at:
            pieces.append("[prompt]")
            at = end + SHARED_RUN - 1
        else:
            pieces.append(text[at])
            at += 1
    return "".join(pieces)


def _texts(body: bytes) -> Iterator[str]:
    try:
        value = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        value = body.decode("utf-8", "replace")
    for leaf in _leaves(value):
        for line in leaf.splitlines():
            as_json = (orjson.dumps(line).decode(), json.dumps(line))
            as_code = (repr(line), ascii(line), repr(line.encode())[1:])
            for form in {line, *(quoted[1:-1] for quoted in (*as_code, *as_json))}:
                if len(form) >= MIN_PROMPT_LENGTH:
                    yield form


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _leaves(item)
        case dict():
            for item in value.values():
                yield from _leaves(item)


def _pattern(texts: set[str]) -> re.Pattern[str] | None:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if texts else None
