"""The Redis server that a sandbox starts is its own, and is gone with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from sandbox.stores.redis import CannotStart, run, serve

TEMPLATE = Path(__file__).resolve().parents[2] / "template"

OUTLIVED = """
import time
from sandbox.stores.redis import serve
with serve() as url:
    print(url, flush=True)
    time.sleep(60)
"""


def test_each_has_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sandboxes share nothing, and after them nobody answers."""
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    with run() as one, run() as other:
        with redis.Redis.from_url(one) as client, redis.Redis.from_url(other) as another:
            client.set("key", "value")
            assert another.get("key") is None
        assert urlsplit(one).hostname == "127.0.0.1"
    for url in (one, other):
        assert is_gone(url)


def test_it_answers_to_nobody_without_its_password() -> None:
    """Others on the machine cannot use it."""
    with (
        serve() as url,
        redis.Redis.from_url(f"redis://127.0.0.1:{urlsplit(url).port}", retry=None) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_it_does_not_outlive_a_starter_that_was_killed() -> None:
    """SIGKILL leaves nobody to stop the server, which ends all the same."""
    with subprocess.Popen(
        [sys.executable, "-c", OUTLIVED],
        env={**os.environ, "PYTHONPATH": str(TEMPLATE)},
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline().strip()
        assert not is_gone(url)
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not is_gone(url):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_is_given_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TEST_REDIS_URL each has a namespace on that server, of which nothing is left."""
    with serve() as given, redis.Redis.from_url(given) as client:
        monkeypatch.setenv("TEST_REDIS_URL", given)
        client.set("theirs", "value")
        with run() as one, run() as other:
            namespaces = [urlsplit(url).query.removeprefix("namespace=") for url in (one, other)]
            assert len(set(namespaces)) == 2
            for namespace in namespaces:
                client.set(f"{{{namespace}/service}}:rate:ada", "value")
        assert client.keys() == [b"theirs"]


def test_without_a_server_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where no redis-server can be found, the message names the two remedies."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(CannotStart, match=r"install Redis, or set TEST_REDIS_URL"), serve():
        pass


def is_gone(url: str) -> bool:
    with redis.Redis.from_url(url, retry=None) as client:
        try:
            client.ping()
        except redis.ConnectionError:
            return True
    return False
