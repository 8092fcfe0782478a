"""Serves with uvicorn, in one process or in as many as `WORKERS` says.

Once it was told to end and has done so in order (`shutdown.py`), the exit status is 0, whichever
signal it was told by; 143 or 130 after a second SIGTERM or SIGINT, which ends it at once.
"""

import math
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
from types import FrameType

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from . import policy
from .guardrails.environment.startup import Configuration
from .guardrails.visibility.metrics import FOLDER_VARIABLE
from .service import Service, start_logging
from .shutdown import SIGNALS, end_at_once


def serve(configuration: Configuration) -> None:
    """Returns when it was told to end. Raises `SystemExit` when it cannot begin."""
    settings = configuration.service
    # Several workers each make an app of their own; a single one need not read everything again.
    several = settings.workers > 1
    config = uvicorn.Config(
        "app.main:create_app" if several else Service(configuration).app(),
        factory=several,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Later than the service itself cuts off, so that there is time to say so.
        timeout_graceful_shutdown=math.ceil(settings.grace_period_seconds + policy.CUT_OFF_SECONDS),
    )
    if several:
        start_logging(configuration)
        sockets = [config.bind_socket()]
        Workers(config, sockets, _folder_for_metrics()).run()
    else:
        Server(config).run()


def _folder_for_metrics() -> str:
    try:
        return tempfile.mkdtemp(prefix="metrics-")
    except OSError as error:
        raise SystemExit(
            f"Several WORKERS need a folder for their metrics, and have none ({error.strerror}):"
            " set TMPDIR to one that can be written to, or WORKERS to 1."
        ) from None


class Server(uvicorn.Server):
    """One that does not die of the signal that it has obeyed."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


class Workers(Multiprocess):
    """The parent of several workers, which a second signal ends at once, and them with it.

    They keep their metrics in `folder`, which goes with it; when one dies, what it had under way
    is dropped from them.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], folder: str) -> None:
        super().__init__(config, sockets)
        self._told = False
        self._known: set[int | None] = set()
        self._folder = folder
        os.environ[FOLDER_VARIABLE] = folder
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._remove_metrics()

    def keep_subprocess_alive(self) -> None:
        self._known |= self._numbers()
        super().keep_subprocess_alive()
        for pid in self._known - self._numbers():
            mark_process_dead(pid, self._folder)
        self._known = self._numbers()

    def _numbers(self) -> set[int | None]:
        return {process.pid for process in self.processes}

    def _remove_metrics(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def terminate_all(self) -> None:
        super().terminate_all()
        # Else the port would go on taking connections that no worker accepts any more.
        for listener in self.sockets:
            listener.close()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._told:
            for worker in multiprocessing.active_children():
                worker.kill()
            self._remove_metrics()
            end_at_once(number)
        self._told = True
        self.signal_queue.append(number)
