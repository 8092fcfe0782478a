"""Stops asking a provider that keeps failing, and lets one call find out whether it is back.

Counts what says that the provider is ill: timeouts, broken connections, 5xx. Not the caller's
faults, not cancellations, not 429.
"""

import time
from collections.abc import Callable
from enum import Enum

from ...errors import ProviderError, ProviderRejectsRequest, ProviderTimeout, ProviderUnavailable


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Pass:
    """Leave for one call to go in; given back when the call has ended."""


class CircuitBreaker:
    """Closed, until `failures` in a row open it; after `cool_down_seconds` one probe decides."""

    def __init__(
        self,
        *,
        failures: int,
        cool_down_seconds: float,
        on_open: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = failures
        self._cool_down_seconds = cool_down_seconds
        self._on_open = on_open
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probe: Pass | None = None

    @property
    def state(self) -> State:
        if self._opened_at is None:
            return State.CLOSED
        cooled_down = self._clock() - self._opened_at >= self._cool_down_seconds
        return State.HALF_OPEN if cooled_down else State.OPEN

    def enter(self) -> Pass | None:
        """A pass when a call may be made. Each is given back by one call to `leave`."""
        match self.state:
            case State.CLOSED:
                return Pass()
            case State.HALF_OPEN if self._probe is None:
                self._probe = Pass()
                return self._probe
            case _:
                return None

    def leave(self, entry: Pass, error: BaseException | None) -> None:
        """Judges the call that has ended; for a stream, at its end."""
        if self._opened_at is None:
            self._judge(error)
        elif entry is self._probe:
            self._probe = None
            self._judge(error)
        # Else a call from before the breaker opened, which says nothing of now.

    def _judge(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, ProviderRejectsRequest):
            self._failures = 0
            self._opened_at = None
        elif _is_illness(error):
            self._failures += 1
            if self._opened_at is not None:
                self._opened_at = self._clock()
            elif self._failures >= self._threshold:
                self._opened_at = self._clock()
                self._on_open()


def _is_illness(error: BaseException) -> bool:
    if not isinstance(error, ProviderError):
        return False
    if isinstance(error, ProviderTimeout):
        return True
    return isinstance(error, ProviderUnavailable) and (error.status is None or error.status >= 500)
