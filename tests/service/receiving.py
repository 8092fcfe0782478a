"""A server as those that alerts go to: it keeps what it receives, and fails as it is told to."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SENTRY_KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """`statuses` are answered in turn, then 200 to everything. While not `awake` it is silent."""

    address: str
    received: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    awake: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """A webhook's."""
        return f"http://{self.address}/services/T0/B0/the-key-of-the-webhook"

    @property
    def dsn(self) -> str:
        """Sentry's."""
        return f"http://{SENTRY_KEY}@{self.address}/1"

    @property
    def messages(self) -> list[str]:
        """What a webhook was told."""
        return [json.loads(item.body)["text"] for item in self.received]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What Sentry was told: of each envelope its one event."""
        return [event_of(item) for item in self.received]

    def of_kind(self, kind: str) -> list[str]:
        """The messages of one kind of alert."""
        return [text for text in self.messages if f"] {kind}: " in text]

    @classmethod
    @contextmanager
    def in_thread(cls, port: int = 0) -> Iterator[Receiver]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, names, body))
                receiver.awake.wait()
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            server.daemon_threads = True
            receiver = cls(f"127.0.0.1:{server.server_port}")
            receiver.awake.set()
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield receiver
            finally:
                receiver.awake.set()
                server.shutdown()
                thread.join()


def event_of(item: Received) -> dict[str, Any]:
    body = gzip.decompress(item.body) if "content-encoding" in item.headers else item.body
    _, kind, event, *rest = [json.loads(line) for line in body.splitlines() if line]
    assert kind["type"] == "event" and not rest
    assert isinstance(event, dict)
    return event
