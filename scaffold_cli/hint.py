"""One line about a newer version of a service's template, where a person would see it.

Nobody waits for it or is bothered by it: it asks one repository, once a day and for two seconds at
most, and whatever goes wrong it says nothing. `SCAFFOLD_NO_HINT=1` turns it off.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import git
from .errors import ScaffoldError
from .source import repository_of

OFF_VARIABLE = "SCAFFOLD_NO_HINT"
DAY_SECONDS = 86_400.0
MAX_SECONDS = 2.0


def tell_of_newer_version(dest: Path) -> None:
    """On stderr, if the service in `dest` could be updated by `scaffold update` alone."""
    if not sys.stderr.isatty() or os.environ.get(OFF_VARIABLE) or os.environ.get("CI"):
        return
    # The command is done by now: neither Ctrl-C nor a strange machine may make it a failure.
    with suppress(ScaffoldError, OSError, ValueError, RuntimeError, KeyboardInterrupt):
        # Imported here: who is not told has no use for what an update is made of.
        from packaging.version import Version
        from rich.console import Console

        from .update import read_record
        from .versions import cloneable, latest_release, released

        record = read_record(dest.resolve())
        recorded = released(record.version)
        if recorded is None or not _is_due(record.source):
            return
        repository = repository_of(record.source)
        latest = latest_release(git.remote_tags(cloneable(repository), MAX_SECONDS))
        if latest is not None and Version(latest) > Version(recorded):
            command = ["scaffold", "update", *([] if dest.resolve() == Path.cwd() else [str(dest)])]
            Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
                f"\na newer version of the template exists: {latest} (this service has"
                f" {record.version}): {shlex.join(command)}"
            )


def _is_due(source: str) -> bool:
    """Whether a day has gone since it was last due; always, where nothing can be noted down."""
    # Imported here: only a person at a terminal needs it.
    from platformdirs import user_cache_path

    name = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    mark = user_cache_path("scaffold", appauthor=False) / "hints" / name
    with suppress(OSError):
        if abs(time.time() - mark.stat().st_mtime) < DAY_SECONDS:
            return False
    # Before it is asked: a repository that is not reached is left alone for a day too.
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return True
