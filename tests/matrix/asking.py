"""Asks a process of `preloading.py` for a run, and stands for it: its arguments are where that
listens, `-m`, and what follows it."""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence


def ask(
    asker: socket.socket,
    arguments: Sequence[str],
    folder: str,
    variables: Mapping[str, str],
    streams: Sequence[int],
) -> None:
    """Begins `python -m` with these arguments. The answer is a line with its status; to close the
    connection before ends it."""
    order = {"arguments": list(arguments), "folder": folder, "variables": dict(variables)}
    text = json.dumps(order).encode() + b"\n"
    sent = socket.send_fds(asker, [text], list(streams))
    asker.sendall(text[sent:])


def main() -> int:
    place, _, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(place)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: asker.sendall(bytes([number])))
        ask(asker, arguments, os.getcwd(), os.environ, [0, 1, 2])
        status = int(asker.makefile().readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
