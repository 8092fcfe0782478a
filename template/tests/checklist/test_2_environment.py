"""Step 2: is the environment validated, and are there no API keys in code?"""

import socket
from pathlib import Path

import httpx
import pytest

from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.key_scan import find_keys, project_files
from tests.running import ROOT, START_SECONDS, Service, eventually, kept_port, start


@pytest.mark.item("2. Env Vars", "Is there env var validation?")
def test_the_environment_is_validated(tmp_path: Path, evidence: Evidence) -> None:
    """Without its variables the service ends, names each of them, and opens no port."""
    from app.guardrails.environment.startup import variable_name
    from app.wiring import ADAPTERS

    needed = [
        variable_name(adapter.settings_type, name)
        for adapter in ADAPTERS
        for name, field in adapter.settings_type.model_fields.items()
        if field.is_required()
    ]
    needed.append("SERVICE_API_KEYS")
    status, output = _start_without_variables(tmp_path / "output")
    assert status is not None, "it started without them"
    assert "Traceback" not in output, f"it crashed: {output}"
    missing = [variable for variable in needed if variable not in output]
    assert not missing, f"it ended with status {status} and did not name {', '.join(missing)}"
    assert status != 0
    evidence(f"exit status {status}; named: {', '.join(needed)}")


@pytest.mark.item("2. Env Vars", "Are API keys NOT in code?")
def test_api_keys_are_not_in_code(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str, evidence: Evidence
) -> None:
    """No file holds a key; the one that reaches the provider comes from the environment alone."""
    files = project_files()
    assert ROOT / "app/wiring.py" in files
    found = [str(finding) for finding in find_keys(files)]
    assert not found, f"what looks like a key is in {', '.join(found)}"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored, ".gitignore does not list .env"
    assert ask(client).status_code == 200
    received = sandbox.requests(primary)[-1].headers
    assert "the sandbox's key" in received.values(), f"{primary} received another key"
    evidence(f"{len(files)} files searched, 0 keys; the provider received the environment's key")


def _start_without_variables(log: Path) -> tuple[int | None, str]:
    """The exit status and the output; the status of a service that opens its port is `None`."""
    with kept_port() as port:
        with log.open("wb") as stream:
            process = start({"PORT": str(port), "ENVIRONMENT": "production"}, stream)
        try:
            eventually(lambda: process.poll() is not None or _is_open(port), START_SECONDS)
            status = process.poll()
        finally:
            process.kill()
            process.wait()
    return status, log.read_text(encoding="utf-8")


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
