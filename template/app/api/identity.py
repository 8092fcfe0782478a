"""Who is calling: the name of an API key, or the address of an anonymous caller.

`X-Forwarded-For` counts only behind a proxy that the settings trust.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import NotFound, Unauthenticated

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

CHALLENGE: Final = {"www-authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class Principal:
    name: str
    authenticated: bool


class Identity:
    """`keys` are pairs of a name and a key; a name may have several."""

    def __init__(
        self,
        keys: Sequence[tuple[str, str]],
        *,
        anonymous_allowed: bool,
        trusted_proxies: Sequence[IPNetwork],
        metrics_token: str | None,
        metrics_open: bool,
    ) -> None:
        # Equal-length digests compare in a time that tells nothing about the keys.
        self._keys = [(name, _digest(key)) for name, key in keys]
        self._anonymous_allowed = anonymous_allowed
        self._trusted_proxies = tuple(trusted_proxies)
        self._metrics_token = _digest(metrics_token) if metrics_token else None
        self._metrics_open = metrics_open

    def identify(self, headers: Mapping[str, str], peer: str | None) -> Principal:
        """Raises `Unauthenticated` for a wrong key, and for none where one is needed."""
        key = _bearer(headers)
        if key is not None:
            given = _digest(key)
            matches = [name for name, known in self._keys if hmac.compare_digest(given, known)]
            if matches:
                return Principal(matches[0], authenticated=True)
            if self._keys or not self._anonymous_allowed:
                raise Unauthenticated("The API key is not known here.", headers=CHALLENGE)
        if not self._anonymous_allowed:
            raise Unauthenticated(
                "An API key is needed: send `Authorization: Bearer <key>`.", headers=CHALLENGE
            )
        return Principal(_address_name(self._client_address(headers, peer)), authenticated=False)

    def check_metrics(self, headers: Mapping[str, str]) -> None:
        """Raises `Unauthenticated`, or `NotFound` in production without METRICS_TOKEN."""
        if self._metrics_token is None:
            if self._metrics_open:
                return
            raise NotFound("There is no such route.")
        given = _bearer(headers)
        if given is None or not hmac.compare_digest(_digest(given), self._metrics_token):
            raise Unauthenticated("/metrics needs its bearer token.", headers=CHALLENGE)

    def _client_address(self, headers: Mapping[str, str], peer: str | None) -> str:
        """From the right of `X-Forwarded-For`, the first address that is no trusted proxy."""
        address = peer or "unknown"
        forwarded = [part.strip() for part in headers.get("x-forwarded-for", "").split(",")]
        while self._is_trusted(address) and forwarded and _parse(forwarded[-1]) is not None:
            address = forwarded.pop()
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(
            parsed.version == network.version and parsed in network
            for network in self._trusted_proxies
        )


def _address_name(address: str) -> str:
    """One IPv6 host owns a whole /64, so that is what is counted."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        network = ipaddress.ip_network((parsed, 64), strict=False)
        return f"address:{network}"
    return f"address:{parsed or 'unknown'}"


def _parse(address: str) -> IPAddress | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
