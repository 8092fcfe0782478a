"""What pytest loads from here alone: the plugins, and a Ctrl-C that works."""

import signal

pytest_plugins = [
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
