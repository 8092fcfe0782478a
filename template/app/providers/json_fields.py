"""Writes JSON for vendors, and reads the fields of theirs without trusting its shape.

What is absent or null takes its neutral value; what is of another type raises `Unreadable`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

Fields = Mapping[str, Any]

_IDENTIFIER: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PATH: Final = re.compile(r"[A-Za-z0-9_.\[\]]{1,200}")


class Unreadable(Exception):
    """Not the documented form. It never quotes what was read."""


def without_none(body: Fields) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def dump(body: Fields) -> bytes:
    """`body` as JSON."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:  # a caller's schema may hold integers beyond 64 bits
        return json.dumps(body).encode()


def parse(raw: bytes | str) -> Fields:
    """The JSON object that `raw` is."""
    return as_fields(load(raw))


def load(raw: bytes | str) -> object:
    """The JSON value that `raw` is."""
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        # Its `doc` is the whole text, so it is not kept as the cause.
        raise Unreadable("no JSON") from None
    return value


def as_fields(value: object) -> Fields:
    if not isinstance(value, dict):
        raise Unreadable("no JSON object")
    return value


def fields(source: Fields, key: str) -> Fields:
    """The object under `key`; empty when absent."""
    value = source.get(key)
    return {} if value is None else as_fields(value)


def items(source: Fields, key: str) -> list[Any]:
    """The array under `key`; empty when absent."""
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unreadable(f"{key} is no array")
    return value


def text(source: Fields, key: str) -> str:
    """The string under `key`; empty when absent."""
    value = source.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{key} is no string")
    return value


def count(source: Fields, key: str) -> int:
    """The number of something under `key`; 0 when absent."""
    value = source.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(f"{key} is no count")
    return value


def require(source: Fields, *keys: str) -> None:
    """Raises `Unreadable` unless there is something under each of `keys`."""
    for key in keys:
        if source.get(key) is None:
            raise Unreadable(f"{key} is missing")


def identifier(value: object) -> str | None:
    """A machine's word such as `rate_limit_exceeded`; anything that could be prose is `None`."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def path(value: object) -> str | None:
    """A place in a request such as `messages[0].content`."""
    return value if isinstance(value, str) and _PATH.fullmatch(value) else None
