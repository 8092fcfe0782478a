"""Where the sandbox puts a service's store."""

import os
from urllib.parse import urlsplit

import pytest

from sandbox.stores import one_server, place

SERVERS = {"TEST_DATABASE_URL": "DATABASE_URL", "TEST_REDIS_URL": "REDIS_URL"}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)


def test_places_share_one_server() -> None:
    """Each place is another one on the same server, and afterwards nothing points to it."""
    with one_server() as variables, place() as one, place() as other:
        assert variables == {name: os.environ[name] for name in SERVERS}
        for server, store in SERVERS.items():
            assert one[store] != other[store]
            assert one["SQLITE_PATH"] != other["SQLITE_PATH"]
            netlocs = {urlsplit(url).netloc for url in (one[store], other[store])}
            assert netlocs == {urlsplit(variables[server]).netloc}
    assert not SERVERS.keys() & os.environ.keys()


def test_a_server_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variables name already is left as it is."""
    for name in SERVERS:
        monkeypatch.setenv(name, "some://where")
    with one_server() as variables:
        assert variables == dict.fromkeys(SERVERS, "some://where")
    assert {name: os.environ[name] for name in SERVERS} == variables
