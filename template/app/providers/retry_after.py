"""Reads when a vendor wants to be asked again."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

Clock = Callable[[], float]
"""Seconds since the epoch, like `time.time`."""

_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")


def retry_after_seconds(headers: Mapping[str, str], now: Clock) -> float | None:
    """The wait that `retry-after-ms` or `retry-after` asks for; `None` when neither is readable.

    `retry-after` is a number of seconds or a date (RFC 9110, section 10.2.3). Vendors send
    fractions too, which the RFC does not know. A date in the past is not readable.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    return seconds if seconds is not None else _seconds_until(value, now)


def _number(value: str) -> float | None:
    # Not of `value` itself: `float` takes fewer characters for blanks than `strip` does.
    found = _NUMBER.fullmatch(value.strip())
    return float(found[0]) if found else None


def _seconds_until(date: str, now: Clock) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:  # "-0000": UTC without a word about the local zone
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
