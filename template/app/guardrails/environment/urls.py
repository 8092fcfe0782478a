"""URLs are parsed, not searched; and none of what they hold is repeated in an error."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


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


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts
