"""A store that one process has for itself does not serve several."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from ..stores import SHARED_STORES, STORES
from .conftest import Contender


@pytest.mark.promise("R7")
@pytest.mark.parametrize("storage", [name for name in STORES if name not in SHARED_STORES])
@pytest.mark.parametrize("variable", ["WORKERS", "WEB_CONCURRENCY"])
def test_more_workers_than_the_store_serves_are_refused(
    contenders: Callable[[str], Contender], storage: str, variable: str
) -> None:
    """Its limits would hold for each worker instead of all: the service does not start, and says
    what to set."""
    project = contenders(storage).project
    refused = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=project.root,
        env={**project.variables, variable: "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    said = f"{variable} +is 2, but {storage} storage is for one process; set 1"
    assert re.search(said, refused.stderr)
