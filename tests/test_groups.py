"""Tests of one group run in one process, and so share what is dear to begin."""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

pytestmark = pytest.mark.xdist_group("together")

@pytest.mark.parametrize("number", range(6))
def test_something(number):
    pass
"""


def test_a_group_stays_together(tmp_path: Path) -> None:
    """As `make suite` runs them. With some versions of its two libraries each process got a share
    of every group, in silence."""
    (tmp_path / "test_it.py").write_text(TESTS)
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "--verbose", "-n2", "--dist", "loadgroup"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    processes = re.findall(r"^\[(gw\d)\] .*PASSED", told, re.MULTILINE)
    assert len(processes) == 6
    assert len(set(processes)) == 1
