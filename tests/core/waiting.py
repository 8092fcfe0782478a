"""Waits for what is about to happen, and no longer."""

import asyncio
from collections.abc import Callable

STEP_SECONDS = 0.005


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Returns as soon as `condition()` holds; fails after `seconds`."""
    for _ in range(int(seconds / STEP_SECONDS)):
        if condition():
            return
        await asyncio.sleep(STEP_SECONDS)
    raise AssertionError("it did not happen in time")
