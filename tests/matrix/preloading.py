"""A process that has loaded what many runs load, and becomes each of them in turn by a fork.

Started by its path in an environment of its own, it knows nothing of this repository. Its arguments
are a folder of its own, where it listens, and what to load. Each order that it receives by
`asking.py` is a run. What a run starts with `python -m` is a run as well: there `sys.executable` is
a program that asks for it, and stands for it until it ends.
"""

import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ASKING = Path(__file__).with_name("asking.py")
READY = "ready"
STREAMS = 3


def main() -> None:
    # The folder of this file is no place to import from.
    del sys.path[0]
    folder, *names = sys.argv[1:]
    load(folder, names)
    sys.executable = asking_program(Path(folder))
    # Else each fork's collector would touch, and so copy, all that they share.
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        print(READY, flush=True)
        order = serve(listener)
    if order is not None:
        become(**order)


def load(folder: str, names: Sequence[str]) -> None:
    """A library that wants to be configured first has done half of its work when it says so: then
    this begins anew, without it."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # a name in a module, or something that is not installed here
        except Exception:
            library = name.partition(".")[0]
            others = [other for other in names if other.partition(".")[0] != library]
            os.execv(sys.executable, [sys.executable, __file__, folder, *others])


def asking_program(folder: Path) -> str:
    """Asks for what is started by `-m`, and is Python itself for all else."""
    ask = shlex.join([sys.executable, "-I", "-S", str(ASKING), str(folder / "socket")])
    program = folder / "python"
    program.write_text(
        f'#!/bin/sh\ntest "$1" = -m && exec {ask} "$@"\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Forks for each order, where it returns the order, and tells whoever gave it how it has ended.

    Returns `None` when whoever has started this process is gone.
    """
    waker, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    askers: dict[int, socket.socket] = {}
    while True:
        watched: list[int | socket.socket] = [0, listener, waker, *askers.values()]
        readable, _, _ = select.select(watched, [], [])
        if 0 in readable:
            return None
        if waker in readable:
            waker.recv(4096)
            tell_of_ended(askers)
        for pid, asker in list(askers.items()):
            if asker in readable and not pass_on(asker, pid):
                del askers[pid]
        if listener in readable:
            asker, _ = listener.accept()
            order = receive(asker)
            if order is None:
                asker.close()
                continue
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for opened in (waker, woken, asker, *askers.values()):
                    opened.close()
                return order
            askers[pid] = asker
            for stream in order["streams"]:
                os.close(stream)


def receive(asker: socket.socket) -> dict[str, Any] | None:
    """A line of JSON, with the streams that the run is to have; `None` from who was ended before
    its order was whole."""
    text, streams, _, _ = socket.recv_fds(asker, 1 << 16, STREAMS)
    while not text.endswith(b"\n"):
        more = asker.recv(1 << 16)
        if not more:
            for stream in streams:
                os.close(stream)
            return None
        text += more
    return {**json.loads(text), "streams": streams}


def tell_of_ended(askers: dict[int, socket.socket]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if asker := askers.pop(pid, None):
            with asker:
                asker.send(b"%d\n" % os.waitstatus_to_exitcode(status))


def pass_on(asker: socket.socket, pid: int) -> bool:
    """Signals that were sent to who asked. False if that one is gone: nobody waits for the run."""
    numbers = asker.recv(64)
    for number in numbers or (signal.SIGKILL,):
        os.kill(pid, number)
    if not numbers:
        asker.close()
    return bool(numbers)


def become(
    arguments: list[str], folder: str, variables: dict[str, str], streams: list[int]
) -> None:
    """`python -m` with these arguments. Raises what the module raises."""
    for number, opened in enumerate(streams):
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    elsewhere = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = [folder, *elsewhere]
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
