"""Asks a running service over HTTP as a stranger or with a key, within limits.

Redirects are not followed, no more than `MAX_BODY_BYTES` of a body is read, and each exchange has
one limit of time, whatever the server does in it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from .errors import UsageError

EXCHANGE_SECONDS = 10.0
MAX_BODY_BYTES = 1_048_576
USER_AGENT = "scaffold-check"


class NoAnswer(Exception):
    """What was asked got no HTTP response; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `headers` by names in any case, `began_seconds` until its body began."""

    request: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    began_seconds: float = 0.0

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def document(self) -> Mapping[str, Any]:
        """The JSON object that the body is; empty for anything else."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def code(self) -> str:
        """The name that the service gives its refusals, where the body has one."""
        error = self.document.get("error")
        return str(error.get("code") or "") if isinstance(error, dict) else ""

    def __str__(self) -> str:
        said = self.code or self.headers.get("content-type", "").partition(";")[0]
        return f"{self.request}: {self.status} {said}".rstrip()


@dataclass(frozen=True, slots=True)
class Address:
    """A service's base URL, without a slash at its end."""

    url: str
    host: str
    port: int
    is_encrypted: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """A URL as an SDK's `base_url` has it, with or without `/v1`. Raises `UsageError`."""
        try:
            if not text.isprintable() or " " in text:
                raise ValueError(text)
            # httpx knows what it will take; the standard library splits it without re-writing it.
            parts, _ = urlsplit(text), httpx.URL(text)
            port = parts.port or {"https": 443}.get(parts.scheme, 80)
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError("--url is no URL: give the service's, such as https://host") from error
        if "@" in parts.netloc:
            raise UsageError(
                "--url has credentials in it, which anyone on this machine can read: take them out;"
                " a key goes into a variable that --api-key-env names"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("--url takes http:// or https:// and a host, such as https://host")
        if parts.query or parts.fragment:
            raise UsageError("--url has a query or a fragment: give the service's base URL alone")
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(
            f"{parts.scheme}://{parts.netloc}{path}",
            parts.hostname,
            port,
            parts.scheme == "https",
        )

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


@asynccontextmanager
async def visiting(address: Address) -> AsyncIterator[Visitor]:
    """Proxies are the environment's, save for this machine's own addresses."""
    tls = httpx.create_ssl_context() if address.is_encrypted else None
    async with httpx.AsyncClient(
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        verify=tls if tls is not None else False,
        timeout=None,  # each exchange has one of its own, over all that it does
        trust_env=not address.is_loopback,
    ) as client:
        yield Visitor(address, client, tls)


class Visitor:
    def __init__(
        self, address: Address, client: httpx.AsyncClient, tls: ssl.SSLContext | None
    ) -> None:
        self._address = address
        self._client = client
        self._tls = tls

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = EXCHANGE_SECONDS,
    ) -> Answer:
        """Raises `NoAnswer`, also when the body has not ended after `seconds`."""
        started = monotonic()
        sent = {**_headers(key, body is not None), **(headers or {})}
        url = f"{self._address.url}{path}"
        with _failures_told(seconds):
            async with (
                asyncio.timeout(seconds),
                self._client.stream(method, url, headers=sent, content=body) as response,
            ):
                received, began = b"", 0.0
                async for piece in response.aiter_raw():
                    began = began or monotonic() - started
                    received += piece
                    if len(received) > MAX_BODY_BYTES:
                        break
        return Answer(f"{method} {path}", response.status_code, response.headers, received, began)

    async def announce(
        self, path: str, body_bytes: int, *, key: str, seconds: float = EXCHANGE_SECONDS
    ) -> Answer:
        """What is said to a body of so many bytes before any of it is sent; its status alone.

        On a connection of its own: a client would send the body first, and read afterwards.
        """
        url = httpx.URL(f"{self._address.url}{path}")
        lines = [f"POST {url.raw_path.decode()} HTTP/1.1", f"host: {url.netloc.decode()}"]
        fields = {**_headers(key, True), "user-agent": USER_AGENT, "content-length": body_bytes}
        lines += [f"{name}: {value}" for name, value in fields.items()]
        with _failures_told(seconds):
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(
                    self._address.host, self._address.port, ssl=self._tls
                )
                try:
                    writer.write("\r\n".join([*lines, "", ""]).encode())
                    words = (await reader.readline()).split()
                finally:
                    writer.transport.abort()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise NoAnswer("it closed the connection without an answer in HTTP")
        return Answer(f"POST {path}", int(words[1]), {})


def _headers(key: str | None, has_body: bool) -> dict[str, str]:
    authorization = {"authorization": f"Bearer {key}"} if key is not None else {}
    return {**authorization, **({"content-type": "application/json"} if has_body else {})}


@contextmanager
def _failures_told(seconds: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {seconds:g} s") from error
    except (httpx.ConnectError, OSError) as error:
        raise NoAnswer(f"it cannot be reached: {_reason(error)}") from error
    except (httpx.RemoteProtocolError, ValueError) as error:
        if "disconnected" in str(error):
            raise NoAnswer("it closed the connection without an answer in HTTP") from error
        raise NoAnswer("what answers there is not HTTP") from error
    except httpx.TransportError as error:
        raise NoAnswer(f"the connection broke: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The system's own words, from below those of the libraries in between."""
    reason = str(error) or type(error).__name__
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({below.verify_message})"
        if isinstance(below, ssl.SSLError):
            reason = f"it does not speak TLS as we do ({below.reason})"
        elif isinstance(below, socket.gaierror):
            reason = str(below.strerror)
        elif isinstance(below, OSError) and below.errno:
            reason = os.strerror(below.errno)
        below = below.__cause__ or below.__context__
    return reason
