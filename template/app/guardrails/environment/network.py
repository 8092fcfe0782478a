"""Judges what the network libraries read by themselves: proxies, and whom they may believe.

A mistake there would show only in calls that fail, and nothing would name the variable.
"""

import os
import re
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from ...providers.transport import proxy_for
from .values import check_http_url

_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")
"""What OpenSSL looks for in a folder; other names it passes over in silence."""


def proxy_problem(base_url: str) -> tuple[str, str] | None:
    """Variable and remedy, where a proxy that cannot be one stands before `base_url`."""
    proxy = proxy_for(base_url)
    if proxy is None:
        return None
    try:
        check_http_url(proxy)
    except ValueError as error:
        return _variable(f"{urlsplit(base_url).scheme}_proxy"), str(error)
    return None


def certificate_problems() -> Iterator[tuple[str, str]]:
    """Variables and remedies. A folder counts only where it is all there is to believe."""
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file is not None and not _holds_certificates(file):
        yield "SSL_CERT_FILE", "names no file with certificates (PEM) that can be read"
    if folders is not None and file is None and not _hold_certificates(folders):
        yield (
            "SSL_CERT_DIR",
            "names no folder with certificates under hashed names; run `openssl rehash` on it",
        )


def _variable(name: str) -> str:
    """The spelling that counts: programs read the lower case first."""
    return name if os.environ.get(name) else name.upper()


def _holds_certificates(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except (OSError, ValueError):
        return False
    return True


def _hold_certificates(folders: str) -> bool:
    names = (name for folder in folders.split(os.pathsep) for name in _names_in(folder))
    return any(_HASHED_NAME.fullmatch(name) for name in names)


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
