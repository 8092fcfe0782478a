"""Services as forks of one process that has loaded what a start loads: each costs a tenth of one.

`tests.loaded` is what that process imports. It serves nothing itself.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


class Fork:
    """A service that was forked, as `subprocess` would know it."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    def terminate(self) -> None:
        self._process.terminate()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> None:
        """Raises `TimeoutError`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the service has not ended in {timeout:g} s")


def fork(environment: Mapping[str, str], folder: Path, log: Path, module: str) -> Fork:
    """`python -m module` in `folder` with just these variables; its output goes to `log`."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.loaded"])
    process = context.Process(target=_become, args=(dict(environment), folder, log, module))
    process.start()
    return Fork(process)


def _become(environment: Mapping[str, str], folder: Path, log: Path, module: str) -> None:
    with log.open("wb") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
