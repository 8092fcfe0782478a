"""Where the sandbox puts a service's store."""

import os
from urllib.parse import urlsplit

import pytest

from sandbox.stores import place, servers
from tests.stores import stores_with_servers

SERVERS = {store.SERVER_VARIABLE: store.VARIABLE for store in stores_with_servers().values()}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)


def test_places_share_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the variables are set, each place is another one on the same server."""
    with servers() as variables:
        assert variables.keys() == SERVERS.keys() and not SERVERS.keys() & os.environ.keys()
        for name, url in variables.items():
            monkeypatch.setenv(name, url)
        with place() as one, place() as other:
            assert one["SQLITE_PATH"] != other["SQLITE_PATH"]
            for server, store in SERVERS.items():
                assert one[store] != other[store]
                netlocs = {urlsplit(url).netloc for url in (one[store], other[store])}
                assert netlocs == {urlsplit(variables[server]).netloc}


def test_a_server_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variables name already is taken as it is."""
    for name in SERVERS:
        monkeypatch.setenv(name, "some://where")
    with servers() as variables:
        assert variables == dict.fromkeys(SERVERS, "some://where")
