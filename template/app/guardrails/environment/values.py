"""Judges single values: placeholders that people leave in a copied example file, and URLs, which
are parsed, not searched. No message repeats a value.
"""

import re
from urllib.parse import SplitResult, unquote, urlsplit

from ...addresses import is_loopback

_PLACEHOLDER = re.compile(
    r"""
      sk-x{2,}.* | x{3,} | \*{3,} | \.{3,} | -+
    | change[-_ ]?(me|this).* | replace[-_ ]?(me|this).* | (to[-_ ]?do|tbd|fixme|dummy|none|null)
    | placeholder | example | (your|insert|enter|put|paste)[-_ ].* | .*[-_ ]here
    | <.*> | \$?\{.*\} | \[.*\] | \$\w+
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")


def is_placeholder(value: str) -> bool:
    """Whether `value` is empty or what stands in examples: `sk-xxx`, `changeme`, `<key>` ..."""
    bare = value.strip().strip("\"'")
    return not bare or _PLACEHOLDER.fullmatch(bare) is not None


def key_problem(key: str) -> str | None:
    """What keeps `key` from being a vendor's, or `None`."""
    if is_placeholder(key):
        return "is empty or a placeholder; set the real key"
    if not (key.isascii() and key.isprintable()) or " " in key:
        return "holds blanks, line breaks or letters beyond ASCII, as no key does; copy it again"
    return None


def check_http_url(url: str) -> None:
    """Raises ValueError, without the value, unless `url` is an http(s) URL with a host."""
    parts = _parse(url)
    if any(character.isspace() for character in url):
        raise ValueError("holds blanks or line breaks, as no URL does; copy it again")
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with https:// (or http://)")
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")


def check_sentry_dsn(dsn: str) -> None:
    """Raises ValueError, without the value, unless it looks like `https://key@host/project`."""
    check_http_url(dsn)
    parts = _parse(dsn)
    if is_placeholder(parts.username or "") or not parts.path.rpartition("/")[2].isdecimal():
        raise ValueError("is no DSN; copy it from the project's settings: https://key@host/number")


def production_problem(url: str, *, http_allowed: bool = False) -> str | None:
    """What is wrong with a well-formed URL in production, or `None`."""
    parts = _parse(url)
    if parts.scheme == "http" and not http_allowed:
        return "must begin with https:// in production"
    if not http_allowed and is_loopback(parts.hostname or ""):
        return "points at this machine; in production it must name the real host"
    return None


def parse_headers(text: str) -> dict[str, str]:
    """`name=value,name2=value2`, the values percent-encoded, as OpenTelemetry writes headers.

    Raises ValueError, without the value.
    """
    headers: dict[str, str] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, separator, encoded = entry.partition("=")
        name, value = unquote(name).strip().lower(), unquote(encoded).strip()
        if not (separator and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError("must look like name=value,name2=value2 (%20 for a blank)")
        if is_placeholder(value):
            raise ValueError("holds an empty value or a placeholder")
        headers[name] = value
    return headers


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts
