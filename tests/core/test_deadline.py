"""One point in time bounds everything done for a request."""

import pytest

from app.guardrails.availability.deadline import Deadline


def test_a_deadline_runs_down() -> None:
    """What remains shrinks with the clock, and turns negative once the deadline is past."""
    now = [100.0]
    deadline = Deadline.after(10, clock=lambda: now[0])
    assert deadline.remaining_seconds == 10
    now[0] = 107.5
    assert deadline.remaining_seconds == 2.5
    now[0] = 111.0
    assert deadline.remaining_seconds == -1


@pytest.mark.promise("A2")
def test_a_wait_must_end_before_the_deadline() -> None:
    """A wait that would end with the deadline, or after it, is not allowed."""
    deadline = Deadline(110.0, clock=lambda: 100.0)
    assert deadline.allows(9.99)
    assert not deadline.allows(10.0)
    assert not deadline.allows(11.0)
