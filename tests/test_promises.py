"""No promise is without a test, on any store."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.promises import EXEMPT, STORES, TITLES
from tests.rendering import ROOT


def test_each_promise_has_its_test_on_each_store() -> None:
    """Whatever is promised is shown on every store that the template offers."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "--list-promises"]
    listed = subprocess.run(
        [*command, "tests/core", "tests/resources"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in listed.stdout.splitlines() if line.startswith("[["))
    shown = {tuple(pair) for pair in json.loads(line)}
    promised = {(line, store) for line in TITLES for store in STORES}
    assert promised - shown == set(EXEMPT)
