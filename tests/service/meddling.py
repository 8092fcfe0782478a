"""Stands before a running service and changes what comes by: a service that is broken in one place.

All else is the real one's own.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MOST_READ_BYTES = 10_000_000


@dataclass(slots=True)
class Exchange:
    """A request, and the response to it once there is one. Names of headers are in lower case."""

    method: str
    path: str
    sent: dict[str, str]
    body: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""

    @property
    def key(self) -> str:
        return self.sent.get("authorization", "").removeprefix("Bearer ")

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.content)
        return document

    @document.setter
    def document(self, document: dict[str, Any]) -> None:
        self.content = json.dumps(document).encode()

    @property
    def asked(self) -> dict[str, Any]:
        """The chat that was asked for; nothing where none was."""
        try:
            return dict(json.loads(self.body))
        except ValueError:
            return {}


Meddle = Callable[[Exchange], object]


def leave(exchange: Exchange) -> None:
    """As it is."""


@contextmanager
def meddled(
    upstream: str,
    *,
    request: Meddle = leave,
    response: Meddle = leave,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """The URL under which the service at `upstream` is seen changed, until the block ends."""
    address = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exchange = Exchange(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self._body(),
            )
            request(exchange)
            self._forward(exchange)
            response(exchange)
            if exchange.status:
                self._answer(exchange)

        def do_POST(self) -> None:
            self.do_GET()

        def _body(self) -> bytes:
            length = int(self.headers.get("content-length", "0"))
            return self.rfile.read(length) if length < MOST_READ_BYTES else b""

        def _forward(self, exchange: Exchange) -> None:
            """Its length is that of the body; as declared, where that was left unread."""
            if int(exchange.sent.get("content-length", "0")) < MOST_READ_BYTES:
                exchange.sent["content-length"] = str(len(exchange.body))
            connection = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=30
            )
            try:
                connection.request(
                    exchange.method, exchange.path, exchange.body or None, exchange.sent
                )
                reply = connection.getresponse()
                exchange.status = reply.status
                exchange.headers = {name.lower(): value for name, value in reply.getheaders()}
                exchange.content = reply.read()
            finally:
                connection.close()

        def _answer(self, exchange: Exchange) -> None:
            self.send_response_only(exchange.status)
            dropped = ("connection", "transfer-encoding", "content-length")
            for name, value in exchange.headers.items():
                if name not in dropped:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(exchange.content)))
            self.end_headers()
            self.wfile.write(exchange.content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with serving(Handler, tls) as url:
        yield url


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The URL of a server of its own in a thread."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
