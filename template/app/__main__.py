"""`python -m app`: check the environment, then serve; `--check` stops after the check."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

import uvicorn

from . import policy
from .configuration import load_configuration
from .errors import StoreUnavailable
from .guardrails.environment.startup import Configuration, InvalidEnvironment
from .service import Service
from .wiring import SERVICE, Store

EXIT_NOT_FIT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 when the environment or the store is not fit."""
    arguments = _parse(argv)
    try:
        configuration = load_configuration()
        asyncio.run(_reach_store(configuration))
    except InvalidEnvironment as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_FIT
    except StoreUnavailable as error:
        print(f"The {Store.name} store cannot be reached: {error.detail}", file=sys.stderr)
        return EXIT_NOT_FIT
    if arguments.check:
        print("The environment is fit to serve.")
        return 0
    _serve(configuration)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app", description=f"Serves {SERVICE}.")
    parser.add_argument("--check", action="store_true", help="check the environment, then stop")
    return parser.parse_args(argv)


async def _reach_store(configuration: Configuration) -> None:
    store = Store(configuration.store)
    try:
        await store.open()
    finally:
        await store.close()


def _serve(configuration: Configuration) -> None:
    settings = configuration.service
    # Several workers each make an app of their own; a single one need not read everything again.
    several = settings.workers > 1
    uvicorn.run(
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
        timeout_graceful_shutdown=int(policy.GRACE_PERIOD_SECONDS),
    )


if __name__ == "__main__":
    sys.exit(main())
