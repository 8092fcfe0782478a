"""The gateways of others: when they are installed, and that a run goes on without them."""

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from benchmarks.guardrails import load, peers
from benchmarks.guardrails.__main__ import at_hand
from benchmarks.guardrails.peers import PEERS
from benchmarks.guardrails.rows import PEER_ROWS, Row

from .run import LITELLM, PORTKEY, UNGUARDED

URL = "http://127.0.0.1:4000"
PACKAGE = "@portkey-ai/gateway"


def found(rows: list[Row], folder: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The versions of those that can be measured, and the lines that are printed."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    versions = at_hand(console, rows, folder)
    assert isinstance(console.file, io.StringIO)
    return versions, console.file.getvalue().splitlines()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH; empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("UV", raising=False)
    return folder


def write(program: Path, *lines: str) -> None:
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    program.chmod(0o755)


def test_each_row_has_its_peer() -> None:
    assert [row.peer for row in PEER_ROWS] == list(PEERS)
    for row in PEER_ROWS:
        assert (row.framework, row.processes, row.keyed) == ("", 1, True)


@pytest.mark.usefixtures("programs")
def test_without_the_tool_a_peer_is_left_out_in_one_line(tmp_path: Path) -> None:
    versions, lines = found([UNGUARDED, LITELLM, PORTKEY], tmp_path / "peers")

    assert versions == {}
    left_out = [line for line in lines if "left out" in line]
    assert [line.partition(": ")[0] for line in left_out] == [
        "LiteLLM is left out",
        "Portkey is left out",
    ]
    assert "uv is not on the PATH" in left_out[0]
    assert "npm is not on the PATH" in left_out[1]
    assert len(lines) == 4  # and that each was to be installed


def test_a_registry_that_is_not_there_is_told_in_one_line(programs: Path, tmp_path: Path) -> None:
    said = ("npm notice a line", "npm error code ENOTFOUND", "npm error If you are behind a proxy")
    write(programs / "npm", *(f"echo {line}" for line in said), "exit 1")
    write(programs / "node", "echo v20.1.0")
    versions, lines = found([PORTKEY], tmp_path / "peers")

    assert versions == {}
    reason = "it cannot be installed: npm error code ENOTFOUND"
    assert lines == ["Installing, once: Portkey", f"Portkey is left out: {reason}"]
    assert not peers.is_installed("portkey", tmp_path / "peers")


def test_what_is_installed_is_not_installed_again_until_its_version_changes(
    programs: Path, tmp_path: Path
) -> None:
    write(programs / "npm", f"echo called >> {tmp_path}/calls")
    write(programs / "node", "echo v20.1.0")
    folder = tmp_path / "peers"
    for _ in range(2):
        versions, lines = found([PORTKEY], folder)
        assert versions == {"Portkey": {**peers.PORTKEY, "node": "20.1.0"}}
        assert lines[-1].startswith(f"Portkey: @portkey-ai/gateway {peers.PORTKEY[PACKAGE]}, ")
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "called\n"

    old = peers.place("portkey", folder) / peers.INSTALLED
    old.write_text(f"{PACKAGE} 0.9\n", encoding="utf-8")
    found([PORTKEY], folder)
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "called\ncalled\n"


@pytest.mark.usefixtures("programs")
def test_what_is_installed_is_left_out_once_its_program_is_gone(tmp_path: Path) -> None:
    place = peers.place("portkey", tmp_path)
    place.mkdir()
    note = "".join(f"{name} {version}\n" for name, version in peers.PORTKEY.items())
    (place / peers.INSTALLED).write_text(note, encoding="utf-8")
    versions, lines = found([PORTKEY], tmp_path)

    assert versions == {}
    assert lines == ["Portkey is left out: node is not on the PATH (https://nodejs.org)"]


def test_litellm_is_asked_for_the_model_that_it_has(tmp_path: Path) -> None:
    """Its file names model, provider and key; the provider's address comes from the run."""
    command = PEERS["litellm"].command(tmp_path)
    config = Path(command[command.index("--config") + 1])
    (model,) = yaml.safe_load(config.read_text(encoding="utf-8"))["model_list"]

    assert model["model_name"] == load.BODY["model"]
    assert model["litellm_params"]["api_base"] == "os.environ/OPENAI_BASE_URL"
    variables = PEERS["litellm"].variables(tmp_path)
    assert PEERS["litellm"].callers(URL).keys == (variables["LITELLM_MASTER_KEY"],)


def test_portkey_is_told_with_each_request_whom_to_ask() -> None:
    callers = PEERS["portkey"].callers(URL)

    assert callers.first()["x-portkey-custom-host"] == URL
    assert f"x-portkey-custom-host: {URL}" in callers.arguments("")
