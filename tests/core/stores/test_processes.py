"""Processes that share a store share its limits exactly, and do not get in each other's way."""

import pytest

from ..backends import Backend
from .conftest import PROCESSES, Processes
from .hammering import Wish, ask_at_once, run_in_turn

pytestmark = pytest.mark.promise("R7")

several_callers = pytest.mark.parametrize("callers", [1, 40], ids=["one caller", "many callers"])
"""A store may let each caller wait for itself alone; the cap for everyone is all callers'."""


def test_a_new_store_is_opened_by_all_at_once(
    shared_backend: Backend, processes: Processes
) -> None:
    """Processes that start together on a store that is not there yet all come up."""
    assert processes.open(shared_backend.connect) == ["open"] * PROCESSES


def test_eight_writers_do_not_lock_each_other_out(
    shared_backend: Backend, processes: Processes
) -> None:
    """Under eight writers every admission and settlement goes through, and the books balance."""
    wish = Wish(requests=50, amount_nano_usd=10)
    decisions = processes.count(run_in_turn, shared_backend.connect, wish)
    assert decisions == {"admitted": 400}
    books = shared_backend.books()
    assert books.balanced
    assert (books.open_operations, books.charged_nano_usd) == (0, 400 * 5)


def test_simultaneous_duplicates_run_once(shared_backend: Backend, processes: Processes) -> None:
    """Of 64 requests with one key at the same moment one is admitted, the others are in flight."""
    wish = Wish(requests=8, amount_nano_usd=10, key="payment-1")
    decisions = processes.count(ask_at_once, shared_backend.connect, wish)
    assert decisions == {"admitted": 1, "in_flight": 63}
    assert shared_backend.books().running_claims == 1


@several_callers
def test_a_cap_holds_across_processes(
    shared_backend: Backend, processes: Processes, callers: int
) -> None:
    """However many hammer on one cap, just as many requests are admitted as it covers."""
    wish = Wish(requests=40, callers=callers, amount_nano_usd=10, cap_nano_usd=1_005)
    decisions = processes.count(ask_at_once, shared_backend.connect, wish)
    assert decisions == {"admitted": 100, "budget": 220}
    books = shared_backend.books()
    assert books.balanced
    assert books.open_operations == 100


@several_callers
def test_refunds_never_lead_beyond_a_cap(
    shared_backend: Backend, processes: Processes, callers: int
) -> None:
    """While others settle below their reservations, what is charged and set aside never exceeds the
    cap, which is reached again and again."""
    cap, at_once = 8_005, 4
    wish = Wish(
        requests=300, at_once=at_once, callers=callers, amount_nano_usd=10, cap_nano_usd=cap
    )
    decisions = processes.count(run_in_turn, shared_backend.connect, wish)
    assert set(decisions) == {"admitted", "budget"}
    books = shared_backend.books()
    assert books.balanced
    assert books.charged_nano_usd == decisions["admitted"] * 5
    # Refused is only who would not have fitted beside those that were running.
    assert cap - 10 * PROCESSES * at_once < books.charged_nano_usd <= cap


def test_a_rate_limit_holds_across_processes(shared_backend: Backend, processes: Processes) -> None:
    """A limit of 100 admits exactly 100, whichever process each request comes to."""
    wish = Wish(requests=25, rate_limit=100)
    decisions = processes.count(ask_at_once, shared_backend.connect, wish)
    assert decisions == {"admitted": 100, "rate": 100}
