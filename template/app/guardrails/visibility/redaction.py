"""Keeps secrets and prompts out of whatever is written or sent about a request."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

MIN_SECRET_LENGTH: Final = 6
MIN_PROMPT_LENGTH: Final = 6
"""Shorter texts of a request are no prompt, and would blank out ordinary words."""


class Redactor:
    """Replaces the service's own secrets, wherever they turn up, by `[secret]`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._pattern = _pattern({s for s in secrets if len(s) >= MIN_SECRET_LENGTH})

    def __call__(self, text: str) -> str:
        return self._pattern.sub("[secret]", text) if self._pattern else text


def without_prompt(text: str, body: bytes) -> str:
    """`text` without anything that the request's `body` says, however it is quoted."""
    pattern = _pattern(set(_texts(body)))
    return pattern.sub("[prompt]", text) if pattern else text


def _texts(body: bytes) -> Iterator[str]:
    try:
        value = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        value = body.decode("utf-8", "replace")
    for leaf in _leaves(value):
        for line in leaf.splitlines():
            as_json = (orjson.dumps(line).decode(), json.dumps(line))
            for form in {line, *(quoted[1:-1] for quoted in (repr(line), *as_json))}:
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
