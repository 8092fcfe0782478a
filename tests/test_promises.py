"""No promise is without a test; one that a store has a part in, on none of them."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.promises import EXEMPT, RESOURCES, STORELESS, STORES
from tests.rendering import ROOT

FOLDERS = (
    "canary",
    "core",
    "environment",
    "faults",
    "frameworks",
    "providers",
    "resources",
    "service",
)


def test_each_promise_has_its_test() -> None:
    """Whatever is promised is shown, and where a store has a part in it, on every store that the
    template offers."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "--list-promises"]
    listed = subprocess.run(
        [*command, *(f"tests/{folder}" for folder in FOLDERS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in listed.stdout.splitlines() if line.startswith("[["))
    shown = {tuple(pair) for pair in json.loads(line)}
    promised = {(line, store) for line in RESOURCES for store in STORES}
    assert promised - shown == set(EXEMPT)
    assert STORELESS.keys() <= {line for line, _ in shown}
