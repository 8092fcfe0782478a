"""What the process that services are forked from has loaded: all that a start would, and what its
server and its clients load as late as then."""

import asyncio

import httpx
import uvicorn
from genai_prices.data_snapshot import get_snapshot

import app.__main__ as app
from app.guardrails.context.token_count import TokenCounter
from tests import crashing

__all__ = ["app", "crashing"]


async def _open_a_client() -> None:
    async with httpx.AsyncClient(verify=False):
        pass


TokenCounter()
get_snapshot()
config = uvicorn.Config(_open_a_client)
config.load()
config.get_loop_factory()
asyncio.run(_open_a_client())
