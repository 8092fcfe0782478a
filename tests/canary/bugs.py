"""The owner's bugs, as bad as can be: what they say holds all that is at hand, and every variable.

The same for each framework, whose routes only call them; copied into the service beside these.
"""

import asyncio
import gc
import logging
import os
import threading
from collections.abc import AsyncIterator

KEPT: list[asyncio.Task[None]] = []


class Bug(Exception):
    pass


def raise_bug(text: str) -> None:
    """With a cause that says the same."""
    try:
        int(text)
    except ValueError as error:
        said = f"{text!r}, {text}, {text.encode()!r}, {error!r}"
        raise Bug(f"no idea what to do with {said}{secrets()}") from error


def secrets() -> str:
    variables = dict(os.environ)
    return f" under {variables}, {variables['METRICS_TOKEN']}"


async def fail_behind(text: str) -> None:
    """A task, a thread and a destructor fail with nobody there to see it."""

    async def task() -> None:
        raise_bug(text)

    failing = asyncio.create_task(task())
    await asyncio.sleep(0.01)
    del failing
    thread = threading.Thread(target=raise_bug, args=(text,))
    thread.start()
    thread.join()

    class Destructor:
        def __del__(self) -> None:
            raise_bug(text)

    Destructor()
    asyncio.get_running_loop().call_soon(raise_bug, text)
    gc.collect()


def log_bug(text: str) -> None:
    """The owner's own logger, in every way it has."""
    logger = logging.getLogger("owner")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "working on %s%s", text, secrets())
    try:
        raise_bug(text)
    except Bug:
        logger.exception("failed at %r", text)
        logging.getLogger("owner.other").warning(text, exc_info=True, stack_info=True)


async def half(text: str) -> AsyncIterator[str]:
    yield "one half\n"
    raise_bug(text)


async def fail(kind: str, text: str) -> None:
    """What the routes call."""
    match kind:
        case "behind":
            await fail_behind(text)
        case "logged":
            log_bug(text)
        case "later":
            # Lives on after its request, whose words it still has.
            KEPT.append(asyncio.create_task(_fail_later(text)))
        case _:
            raise_bug(text)


async def _fail_later(text: str) -> None:
    await asyncio.sleep(0.2)
    log_bug(text)
    raise_bug(text)
