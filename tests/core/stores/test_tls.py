"""Stores behind TLS: the URL says so, and whose certificate is believed."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from app.errors import StoreUnavailable
from app.storage.base import Store
from app.storage.postgres import PostgresSettings
from app.storage.postgres import Store as PostgresStore
from app.storage.redis import RedisSettings
from app.storage.redis import Store as RedisStore
from sandbox.stores import postgres, redis

from .asking import admitted, request, reservation

pytestmark = pytest.mark.anyio

SSL_REQUEST_LENGTH = 8


class Front:
    """A port that speaks TLS to whoever comes, and plainly to the server behind it.

    With `asks_first` the client asks in the clear whether there is TLS, as PostgreSQL's do.
    """

    def __init__(self, server: str, context: ssl.SSLContext, *, asks_first: bool) -> None:
        parts = urlsplit(server)
        self._behind = (parts.hostname, parts.port)
        self._context = context
        self._asks_first = asks_first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._asks_first:
                client.recv(SSL_REQUEST_LENGTH)
                client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(self._behind) as server,
            ):
                back = threading.Thread(target=_pump, args=(server, secure), daemon=True)
                back.start()
                _pump(secure, server)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


MakeStore = Callable[[str], Store]
"""Makes a store on a server behind TLS, which believes the authority in that file."""


@contextmanager
def _behind_tls(server: str, authority: trustme.CA, *, asks_first: bool) -> Iterator[str]:
    """The server's address with the front's port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    front = Front(server, context, asks_first=asks_first)
    parts = urlsplit(server)
    yield parts._replace(
        netloc=f"{parts.username or ''}:{parts.password}@localhost:{front.port}"
    ).geturl()
    front.close()


@pytest.fixture(params=["redis", "postgres"])
def make_store(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[MakeStore]:
    with ExitStack() as stack:
        if request.param == "redis":
            server = stack.enter_context(redis.serve())
            url = stack.enter_context(_behind_tls(server, authority, asks_first=False))
            secure = url.replace("redis://", "rediss://", 1)
            yield lambda ca: RedisStore(
                RedisSettings(redis_url=f"{secure}?ssl_ca_certs={ca}"),  # type: ignore[arg-type]
                "service",
            )
        else:
            server = stack.enter_context(postgres.temporary_server()).url
            url = stack.enter_context(_behind_tls(server, authority, asks_first=True))
            yield lambda ca: PostgresStore(
                PostgresSettings(
                    database_url=f"{url}?sslmode=verify-full&sslrootcert={ca}"  # type: ignore[arg-type]
                ),
                "service",
            )


async def test_a_store_is_reached_over_tls(
    make_store: MakeStore, authority: trustme.CA, tmp_path: Path
) -> None:
    """With the authority that the URL names, steps are taken as over a plain connection."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    store = make_store(str(tmp_path / "ca.pem"))
    await store.open()
    assert (await admitted(store, request(reserve=reservation(5)))).budget is not None
    await store.close()


async def test_a_certificate_of_somebody_else_is_not_believed(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Nothing is sent to a server whose certificate another authority has signed; the reason says
    so, and holds no password."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    store = make_store(str(tmp_path / "other.pem"))
    with pytest.raises(StoreUnavailable) as failure:
        await store.open()
    assert "certificate" in failure.value.reason.lower()
    assert not failure.value.outcome_unknown
    await store.close()
