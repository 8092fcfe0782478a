"""What a request tells of its steps while it runs, to whoever follows it.

Nobody does unless tracing is on; then it is `guardrails/visibility/tracing.py`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Final, Protocol

from .messages import ChatReply, ChatRequest, TokenUsage


class AttemptTrace(Protocol):
    """One request to a provider. Ends with `answered` or `failed`; what comes later is ignored."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By which the provider may go on with the trace."""

    def began(self, seconds: float) -> None:
        """The first chunk of a stream has come."""

    def answered(self, reply: ChatReply) -> None: ...

    def failed(
        self,
        error_type: str,
        message: str = "",
        *,
        status: int | None = None,
        usage: TokenUsage | None = None,
    ) -> None:
        """`message` holds no prompt. `status` is the vendor's, `usage` what a stream had used."""


class Trace(Protocol):
    """A request, or a step of it; what is begun here stands under it."""

    @property
    def id(self) -> str | None:
        """What the log line names it by."""

    def step(self, name: str) -> AbstractContextManager["Trace"]:
        """A step, as long as the block takes. An exception that leaves the block is noted."""

    def attempt(
        self, provider: str, model: str, request: ChatRequest, *, stream: bool
    ) -> AttemptTrace: ...


class Untraced:
    """Request, step and attempt of which nobody wants to hear."""

    id: ClassVar[None] = None
    headers: ClassVar[Mapping[str, str]] = {}

    def step(self, name: str) -> AbstractContextManager["Untraced"]:
        return _UNTRACED_STEP

    def attempt(
        self, provider: str, model: str, request: ChatRequest, *, stream: bool
    ) -> "Untraced":
        return self

    def began(self, seconds: float) -> None: ...

    def answered(self, reply: ChatReply) -> None: ...

    def failed(
        self,
        error_type: str,
        message: str = "",
        *,
        status: int | None = None,
        usage: TokenUsage | None = None,
    ) -> None: ...


UNTRACED: Final = Untraced()
_UNTRACED_STEP: Final = nullcontext(UNTRACED)
