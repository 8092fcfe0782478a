"""What is to happen when a caller leaves happens once, and whenever it leaves."""

from app.caller import Caller


def caller() -> Caller:
    return Caller("ada", authenticated=True, request_id="request-1", route="GET /")


def test_leaving_is_told_once() -> None:
    """Each callback runs when the caller leaves, and not again at the end of the request."""
    told: list[str] = []
    leaving = caller()
    leaving.when_gone(lambda: told.append("one"))
    leaving.when_gone(lambda: told.append("other"))
    assert told == []
    leaving.gone()
    leaving.gone()
    assert sorted(told) == ["one", "other"]


def test_a_caller_that_has_left_is_told_of_at_once() -> None:
    """A stream that is opened for a caller who has left already hears of it."""
    told: list[str] = []
    left = caller()
    left.gone()
    left.when_gone(lambda: told.append("late"))
    assert told == ["late"]
