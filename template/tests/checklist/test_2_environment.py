"""Step 2: is the environment validated, and are there no API keys in code?"""

import re
import subprocess
from pathlib import Path

import httpx

from sandbox.server import Sandbox
from tests.asking import ask
from tests.checklist.conftest import Evidence
from tests.running import ROOT, Service, free_port, start

KEY_IN_CODE = re.compile(
    r"""(?x)
      sk-(ant-|proj-)?[A-Za-z0-9_-]{20,} | AIza[A-Za-z0-9_-]{30,}
    | (?i:api_?key|secret|token|password)["']?\s*[:=]\s*["'][A-Za-z0-9+/_-]{24,}["']
    """
)
CODE = {".py", ".toml", ".yaml", ".yml", ".md", ".json", ".sql", ".lua", ".cfg", ".ini", ".example"}
NOT_OURS = {".venv", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def test_the_environment_is_validated(evidence: Evidence) -> None:
    """Without its variables the service ends, names each of them, and opens no port."""
    port = free_port()
    process = start({"PORT": str(port), "ENVIRONMENT": "production"}, subprocess.PIPE)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode not in (0, None)
    from app.wiring import ADAPTERS

    needed = [f"{adapter.name.upper()}_API_KEY" for adapter in ADAPTERS]
    assert all(variable in output for variable in (*needed, "SERVICE_API_KEYS"))
    assert "Traceback" not in output
    evidence(f"exit status {process.returncode}; named: {', '.join((*needed, 'SERVICE_API_KEYS'))}")


def test_api_keys_are_not_in_code(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str, evidence: Evidence
) -> None:
    """No file holds a key; the one that reaches the provider comes from the environment alone."""
    files = [path for path in ROOT.rglob("*") if _is_code(path)]
    found = [path for path in files if KEY_IN_CODE.search(path.read_text(encoding="utf-8"))]
    assert found == []
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ask(client).status_code == 200
    received = sandbox.requests(primary)[-1].headers
    assert "the sandbox's key" in received.values()
    evidence(f"{len(files)} files searched, 0 keys; the provider received the environment's key")


def _is_code(path: Path) -> bool:
    return path.is_file() and path.suffix in CODE and not NOT_OURS & set(path.parts)
