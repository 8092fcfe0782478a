"""The errors that end a command with one line on stderr, and the exit status of each."""

from __future__ import annotations


class ScaffoldError(Exception):
    """The command cannot go on; the message names the problem and its remedy."""

    status = 1


class UsageError(ScaffoldError):
    """What was asked for cannot be done as asked: another value, folder or tool is needed."""

    status = 2


class Cancelled(ScaffoldError):
    """The person changed their mind; the status is a shell's for an interrupted command."""

    status = 130


def last_line(reason: object) -> str:
    """The end of what a program, or an exception, said: where it names the matter."""
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return (text.strip().splitlines() or ["unknown"])[-1]
