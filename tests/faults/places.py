"""Addresses where no vendor is, each in another way."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import trustme

WAITING = 8
"""Connections that nobody accepts: more than a listener of no backlog keeps."""


@contextmanager
def closed() -> Iterator[str]:
    """A port that nobody listens on, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def unknown() -> Iterator[str]:
    """A name that does not resolve: too long to be asked for (RFC 1035, 2.3.4)."""
    yield f"http://{'.'.join(['nobody'] * 40)}"


@contextmanager
def full() -> Iterator[str]:
    """A port whose queue is full, so that a connection gets no answer at all."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(WAITING):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def plain() -> Iterator[str]:
    """A server that does not speak TLS, called as if it did."""

    def answer(visitor: socket.socket) -> None:
        visitor.recv(1)
        visitor.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with _server(answer) as port:
        yield f"https://127.0.0.1:{port}"


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts, and never shakes hands."""

    def answer(visitor: socket.socket) -> None:
        while visitor.recv(65_536):
            pass

    with _server(answer) as port:
        yield f"https://127.0.0.1:{port}"


@contextmanager
def foreign() -> Iterator[str]:
    """A server whose certificate is signed by somebody whom nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def answer(visitor: socket.socket) -> None:
        with context.wrap_socket(visitor, server_side=True) as secured:
            secured.recv(1)

    with _server(answer) as port:
        yield f"https://127.0.0.1:{port}"


@contextmanager
def _server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answers one visitor after the other in threads of their own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def visit(visitor: socket.socket) -> None:
            with visitor, suppress(OSError):
                answer(visitor)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    visitor, _ = listener.accept()
                    threading.Thread(target=visit, args=(visitor,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Wakes the thread, which closing alone does not.
            listener.shutdown(socket.SHUT_RDWR)
