"""What a PromQL expression names: metrics, and labels with their values. No more of it is read.

Whether it is valid in all else, `promtool` says (`tests/system`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<range>\[[^\]]*\])
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<name>[a-zA-Z_:$][\w:$]*)
    | (?P<matcher>=~|!~|!=|==|>=|<=|=)
    | (?P<other>[-+*/%^(){},<>])
    """,
    re.VERBOSE,
)
OPERATORS = {"and", "or", "unless", "bool", "group_left", "group_right"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
FUNCTIONS = {
    *("sum", "max", "min", "count", "avg"),
    *("rate", "increase", "changes", "absent", "histogram_quantile", "time", "vector"),
}
"""Those that are known to be spelt right."""


@dataclass(slots=True)
class Selector:
    """A metric, and what its labels are compared with: name, operator and value of each."""

    metric: str
    matchers: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Expression:
    selectors: list[Selector]
    grouped_by: set[str]


class NotUnderstood(Exception):
    pass


def read(text: str) -> Expression:
    """Raises `NotUnderstood`."""
    tokens = list(_tokens(text))
    found = Expression([], set())
    at = 0
    while at < len(tokens):
        kind, token = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "name":
            continue
        if token in GROUPING and following == "(":
            end = next(i for i in range(at, len(tokens)) if tokens[i][1] == ")")
            found.grouped_by |= {name for kind, name in tokens[at:end] if kind == "name"}
            at = end + 1
        elif following in ("(", "by", "without"):
            if token not in FUNCTIONS:
                raise NotUnderstood(f"{token} is no function that is used here")
        elif token not in OPERATORS:
            selector = Selector(token)
            if following == "{":
                end = next(i for i in range(at, len(tokens)) if tokens[i][1] == "}")
                selector.matchers = list(_matchers(tokens[at + 1 : end]))
                at = end + 1
            found.selectors.append(selector)
    return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotUnderstood(f"{text[at : at + 20]!r} in {text!r}")
        at = match.end()
        assert match.lastgroup is not None
        if match.lastgroup != "blank":
            yield match.lastgroup, match[0]


def _matchers(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    rest = [token for _, token in tokens if token != ","]
    if len(rest) % 3:
        raise NotUnderstood(f"{rest} are no matchers")
    for name, operator, value in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        yield name, operator, value[1:-1]
