"""Gateways that others offer, each with one process and as its documentation says to run it in
production.

What one needs is installed on first use, in a folder of its own below `build/`; nothing of it comes
into this project's environment. Whoever cannot be had here is left out, and told.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scaffold_cli.environment import find_uv
from scaffold_cli.errors import UsageError
from tests.rendering import ROOT, CommandFailed, Environment, run

from .load import Callers

FOLDER = ROOT / "build" / "benchmarks" / "peers"
TRIED = "2026-12-01"
"""When these versions were the newest that could be installed and served."""
LITELLM = {"litellm": "1.108.7"}
PORTKEY = {
    "@portkey-ai/gateway": "1.15.2",
    # That of its repository's lock file. It allows newer ones, with which each stream fails:
    # github.com/Portkey-AI/gateway/issues/1389.
    "@hono/node-server": "1.13.5",
}
INSTALLED = "installed"
"""The file that says what a folder holds; it is written last."""


class PeerMissing(Exception):
    """A peer cannot be had on this machine; the text, of one line, says why."""


class Peer(Protocol):
    """`folder` is where it is installed."""

    @property
    def packages(self) -> Mapping[str, str]:
        """Names and versions."""

    @property
    def ready(self) -> str:
        """A path that answers 200 once it serves."""

    @property
    def times_as_long(self) -> int:
        """How many times as long as others it is put under load: of a slow one too few requests
        would be done, and those under way in the end have cost CPU and do not count."""

    @property
    def warm_up_seconds(self) -> int:
        """Of each load, before it is measured."""

    def install(self, folder: Path) -> None:
        """Raises `PeerMissing` without the tool to, `CommandFailed` if that fails."""

    def command(self, folder: Path) -> list[str]:
        """Serves on `PORT`."""

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Beside `OPENAI_BASE_URL` and `OPENAI_API_KEY`."""

    def callers(self, upstream: str) -> Callers:
        """Who may ask it, and how it is told to ask the provider at `upstream`."""

    def versions(self, folder: Path) -> dict[str, str]:
        """Of what is compared."""


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """The proxy without a database, so that its master key is its only one.

    docs.litellm.ai/docs/proxy/prod: one uvicorn worker, the level of its log, no `.env`; what else
    of it concerns a proxy without database and Redis is in `litellm.yaml`.
    """

    packages: Mapping[str, str]
    ready: str = "/health/liveliness"
    times_as_long: int = 3
    warm_up_seconds: int = 3
    key: str = "sk-benchmark-master-5d0c8a41"

    def install(self, folder: Path) -> None:
        uv = _find_uv()
        python = Environment(folder).python
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        requirements = [f"{name}[proxy]=={version}" for name, version in self.packages.items()]
        # Compiled once: what the first start would compile would count as its memory.
        options = ["--quiet", "--compile-bytecode", "--python", python]
        _run([uv, "pip", "install", *options, *requirements])

    def command(self, folder: Path) -> list[str]:
        config = str(Path(__file__).with_name("litellm.yaml"))
        options = ["--config", config, "--host", "127.0.0.1", "--num_workers", "1"]
        return [Environment(folder).program("litellm"), *options]

    def variables(self, folder: Path) -> Mapping[str, str]:
        return {
            **Environment(folder).variables(),
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            # The prices that it came with: it would ask for newer ones at each start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }

    def callers(self, upstream: str) -> Callers:
        return Callers(keys=(self.key,))

    def versions(self, folder: Path) -> dict[str, str]:
        return dict(self.packages)


@dataclass(frozen=True, slots=True)
class Portkey:
    """The gateway, which keeps no keys: each request says whom to ask, with which key.

    Its docs/installation-deployments.md: `node build/start-server.js`. It listens on all addresses.
    """

    packages: Mapping[str, str]
    ready: str = "/"
    times_as_long: int = 1
    warm_up_seconds: int = 8  # until V8 has compiled what is called often

    def install(self, folder: Path) -> None:
        npm = _find("npm")
        (name, version), *others = self.packages.items()
        folder.mkdir()
        project = {"private": True, "dependencies": {name: version}, "overrides": dict(others)}
        (folder / "package.json").write_text(json.dumps(project), encoding="utf-8")
        # Its only script looks for patches, of which it ships none.
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
        _run([npm, "install", "--prefix", str(folder), *options])

    def command(self, folder: Path) -> list[str]:
        script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        # It takes a port as an option only.
        served = 'exec node "$0" --headless --port="$PORT"'
        return ["sh", "-c", served, str(script)]

    def variables(self, folder: Path) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "NODE_ENV": "production"}

    def callers(self, upstream: str) -> Callers:
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream}
        return Callers(headers=headers)

    def versions(self, folder: Path) -> dict[str, str]:
        told = _run([_find("node"), "--version"]).strip()
        return {**self.packages, "node": told.removeprefix("v")}


PEERS: Mapping[str, Peer] = {"litellm": LiteLLM(LITELLM), "portkey": Portkey(PORTKEY)}
"""By what rows call them."""


def place(name: str, folder: Path = FOLDER) -> Path:
    """Where a peer of `PEERS` is installed."""
    return folder / name


def is_installed(name: str, folder: Path = FOLDER) -> bool:
    """With these very versions."""
    note = place(name, folder) / INSTALLED
    return note.is_file() and note.read_text(encoding="utf-8") == _note(PEERS[name])


def install(name: str, folder: Path = FOLDER) -> None:
    """Anew, whatever is there. Raises `PeerMissing`."""
    peer, own = PEERS[name], place(name, folder)
    shutil.rmtree(own, ignore_errors=True)
    own.parent.mkdir(parents=True, exist_ok=True)
    try:
        peer.install(own)
    except CommandFailed as error:
        raise PeerMissing(f"it cannot be installed: {_reason(error)}") from error
    (own / INSTALLED).write_text(_note(peer), encoding="utf-8")


def _note(peer: Peer) -> str:
    return "".join(f"{name} {version}\n" for name, version in peer.packages.items())


def _reason(error: CommandFailed) -> str:
    """Of all that the tool said, the first line that tells an error, or how it ended."""
    _, *lines = str(error).splitlines()
    return next((line for line in lines if "error" in line), lines[-1]).strip()


def _find_uv() -> str:
    try:
        return find_uv("")
    except UsageError as error:
        raise PeerMissing(str(error)) from None


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise PeerMissing(f"{program} is not on the PATH (https://nodejs.org)")
    return found


def _run(command: Sequence[str]) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    # Not here: uv would read this project's overrides.
    return run(list(command), Path(tempfile.gettempdir()), variables)
