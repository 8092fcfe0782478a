"""What pytest loads from here alone: the plugins, a Ctrl-C that works, and no standstill."""

import gc
import signal

pytest_plugins = [
    "tests.benchmarks.report",
    "tests.faults.report",
    "tests.matrix.progress",
    "tests.promises",
    "tests.resources.report",
    "tests.service.report",
    "tests.soak.report",
    "tests.unplug.report",
    "tests.updates.report",
]


def pytest_configure() -> None:
    """Lets the programs under test hear SIGINT: a shell's background job would ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leaves what is collected alone: thousands of tests, which each full collection of the garbage
    would visit. For most of a second all threads stood still, providers' stand-ins too."""
    gc.collect()
    gc.freeze()
