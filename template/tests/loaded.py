"""What the process that services are forked from has loaded: all that a start would."""

import app.__main__ as app
from app.guardrails.context.token_count import TokenCounter
from tests import crashing

__all__ = ["app", "crashing"]

TokenCounter()
