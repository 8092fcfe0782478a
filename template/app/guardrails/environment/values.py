"""Judges single values: placeholders that people leave in a copied example file, and URLs, which
are parsed, not searched. No message repeats a value.
"""

import re
from urllib.parse import SplitResult, urlsplit

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


def is_placeholder(value: str) -> bool:
    """Whether `value` is empty or what stands in examples: `sk-xxx`, `changeme`, `<key>` ..."""
    bare = value.strip().strip("\"'")
    return not bare or _PLACEHOLDER.fullmatch(bare) is not None


def check_http_url(url: str) -> None:
    """Raises ValueError, without the value, unless `url` is an http(s) URL with a host."""
    parts = _parse(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with https:// (or http://)")
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")


def production_problem(url: str, *, http_allowed: bool = False) -> str | None:
    """What is wrong with a well-formed URL in production, or `None`."""
    parts = _parse(url)
    if parts.scheme == "http" and not http_allowed:
        return "must begin with https:// in production"
    if not http_allowed and is_loopback(parts.hostname or ""):
        return "points at this machine; in production it must name the real host"
    return None


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts
