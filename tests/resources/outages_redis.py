"""What can happen to a Redis server under a service that is running."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psutil
import redis

from sandbox.stores.redis import serve

from ..processes import standing_still
from ..service.serving import Service, eventually


@contextmanager
def _client(service: Service) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(service.environment["REDIS_URL"], retry=None) as client:
        yield client


def _process_of(client: redis.Redis) -> psutil.Process:
    return psutil.Process(client.info("server")["process_id"])


@contextmanager
def dead(service: Service, stack: ExitStack) -> Iterator[None]:
    """The server is killed; another one begins in its place, with nothing of its data."""
    with _client(service) as client:
        _process_of(client).kill()
    yield
    url = urlsplit(service.environment["REDIS_URL"])
    stack.enter_context(serve(port=url.port, password=url.password))


@contextmanager
def hung(service: Service, _: ExitStack) -> Iterator[None]:
    """The server is stopped: it accepts connections and says nothing."""
    with _client(service) as client:
        process = _process_of(client)
    with standing_still([process]):
        yield


@contextmanager
def slow(service: Service, _: ExitStack) -> Iterator[None]:
    """The server answers later than anybody waits, and carries out in the end what it was asked."""
    with _client(service) as client:
        client.client_pause(60_000, all=False)
        try:
            yield
        finally:
            client.client_unpause()


@contextmanager
def out_of_connections(service: Service, _: ExitStack) -> Iterator[None]:
    """All connections are lost, and others have taken their places."""
    with _client(service) as client:
        before = str(client.config_get("maxclients")["maxclients"])
        client.config_set("maxclients", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            client.config_set("maxclients", before)


@contextmanager
def out_of_memory(service: Service, _: ExitStack) -> Iterator[None]:
    """The server has no room for one more key, and evicts none."""
    with _client(service) as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@contextmanager
def demoted(service: Service, stack: ExitStack) -> Iterator[None]:
    """A replica has taken over, and the server follows it, until it is the master again."""
    own, other = service.environment["REDIS_URL"], stack.enter_context(serve())
    with _client(service) as client, redis.Redis.from_url(other) as replica:
        _follow(replica, own)
        replica.slaveof()
        _follow(client, other)
        try:
            yield
        finally:
            client.slaveof()


def _follow(client: redis.Redis, url: str) -> None:
    """Makes this server a replica of that one, and waits until it has its data."""
    master = urlsplit(url)
    assert master.hostname and master.port and master.password
    client.config_set("masterauth", master.password)
    client.slaveof(master.hostname, master.port)
    eventually(lambda: client.info("replication")["master_link_status"] == "up")


OUTAGES = {
    "dead": dead,
    "hung": hung,
    "slow": slow,
    "out of connections": out_of_connections,
    "out of memory": out_of_memory,
    "demoted": demoted,
}
LOSES_DATA = (dead,)
"""Nothing is kept on disk here."""


def lose_all(service: Service) -> None:
    """As when a server without persistence was restarted."""
    with _client(service) as client:
        client.flushall()


def lose_scripts(service: Service) -> None:
    """As when a replica that has never run them takes over."""
    with _client(service) as client:
        client.script_flush()


LOSSES = {"data": lose_all, "scripts": lose_scripts}
