"""The budget's day is the time zone's, also when its clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.guardrails.resources.budget import BudgetCalendar

pytestmark = pytest.mark.promise("R8")

HOUR = 3_600
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # changes at midnight
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Pacific/Kiritimati",
    "Australia/Lord_Howe",  # changes by half an hour
)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-28", 24),
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_days_have_the_zones_length(zone: str, day: str, hours: int) -> None:
    """A day has 23 or 25 hours when the clocks change, and begins and ends at midnight."""
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone))
    _, today, _ = BudgetCalendar(ZoneInfo(zone)).around(noon.timestamp())
    assert today.name == day
    assert today.ends_at - today.starts_at == hours * HOUR
    for moment, date in ((today.starts_at, noon), (today.ends_at, noon + timedelta(days=1))):
        local = datetime.fromtimestamp(moment, noon.tzinfo)
        assert (local.date(), local.hour, local.minute) == (date.date(), 0, 0)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_every_hour_of_a_changing_day_is_in_it(zone: str) -> None:
    """From its first second to its last, the long and the short day hold all of their hours."""
    calendar = BudgetCalendar(ZoneInfo(zone))
    for month in (3, 10, 11):
        for date in (datetime(2026, month, day, 12, tzinfo=UTC) for day in range(1, 31)):
            _, today, _ = calendar.around(date.timestamp())
            moment = today.starts_at
            while moment < today.ends_at:
                assert calendar.around(moment)[1] == today
                moment += HOUR
            assert calendar.around(today.ends_at - 0.001)[1] == today
            assert calendar.around(today.ends_at)[0] == today


def test_a_clock_that_is_set_back_finds_its_day() -> None:
    """The calendar goes by the moment asked about, not by the last one."""
    calendar = BudgetCalendar(ZoneInfo("Europe/Berlin"))
    _, today, _ = calendar.around(1_790_000_000)
    yesterday = calendar.around(today.starts_at - 0.001)[1]
    assert (yesterday.name, yesterday.ends_at) != (today.name, today.ends_at)
    assert yesterday.ends_at == today.starts_at


@given(st.floats(1_500_000_000, 2_500_000_000), st.sampled_from(ZONES))
def test_days_follow_one_another(now: float, zone: str) -> None:
    """Yesterday, today and tomorrow leave no gap, and today holds the moment asked about."""
    days = BudgetCalendar(ZoneInfo(zone)).around(now)
    assert days[1].starts_at <= now < days[1].ends_at
    assert days[1].name == datetime.fromtimestamp(now, ZoneInfo(zone)).date().isoformat()
    assert all(one.ends_at == other.starts_at for one, other in pairwise(days))
    assert [day.name for day in days] == sorted({day.name for day in days})
