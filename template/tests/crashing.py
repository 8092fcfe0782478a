"""`python -m tests.crashing`: the service with two bugs in it, to see what becomes of a crash.

A question that holds `CRASH` fails before any provider is asked, an answer that holds it fails in
the middle of its stream. What they say is as bad as can be: the text at hand, and all keys.
"""

import os
import sys
from typing import Final
from unittest.mock import patch

from app.__main__ import main
from app.caller import Caller
from app.chat import Completion, GuardedChat
from app.messages import ChatRequest, Chunk, ReplyBuilder

CRASH: Final = "crash-now"


class Bug(Exception):
    def __init__(self, text: str) -> None:
        secrets = ("_API_KEY", "_WEBHOOK_URL", "_OTLP_HEADERS")
        keys = [value for name, value in os.environ.items() if name.endswith(secrets)]
        super().__init__(f"no idea what to do with {text!r} and {keys}")


_complete = GuardedChat.complete
_add = ReplyBuilder.add


async def _complete_or_crash(chat: GuardedChat, request: ChatRequest, caller: Caller) -> Completion:
    text = request.messages[-1].text
    if CRASH in text:
        raise Bug(text)
    return await _complete(chat, request, caller)


def _add_or_crash(builder: ReplyBuilder, chunk: Chunk) -> None:
    if CRASH in chunk.text:
        raise Bug(chunk.text)
    _add(builder, chunk)


if __name__ == "__main__":
    with (
        patch.object(GuardedChat, "complete", _complete_or_crash),
        patch.object(ReplyBuilder, "add", _add_or_crash),
    ):
        sys.exit(main())
