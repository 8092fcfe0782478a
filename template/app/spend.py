"""`python -m app spend`: who spent what on which model, one day of the store's ledger."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from .guardrails.environment.startup import Configuration
from .guardrails.resources.budget import usd
from .storage.base import DayBook
from .wiring import SERVICE, Store

COLUMNS = ("caller", "provider", "model", "calls", "input tokens", "output tokens", "USD")


async def spend_report(configuration: Configuration, day: date | None, *, json: bool) -> str:
    """The day's book as text, or as JSON; today in `BUDGET_TIMEZONE` unless a day is given.

    Raises `StoreUnavailable`.
    """
    zone = configuration.service.budget_timezone
    name = (day or datetime.now(ZoneInfo(zone)).date()).isoformat()
    store = Store(configuration.store, SERVICE)
    try:
        await store.open()
        book = await store.day_book(name)
    finally:
        await store.close()
    limit = configuration.service.daily_budget_nano_usd
    return _as_json(book, zone, limit) if json else _as_text(book, zone, limit)


def _as_json(book: DayBook, zone: str, limit_nano_usd: int) -> str:
    document: dict[str, Any] = {
        "day": book.day,
        "timezone": zone,
        "spent": [{"caller": spent.caller, **asdict(spent.charge)} for spent in book.spent],
        "reserved": [
            {"caller": caller, "reserved_nano_usd": amount} for caller, amount in book.reserved
        ],
        "settled_nano_usd": book.settled_nano_usd,
        "reserved_nano_usd": book.reserved_nano_usd,
        "daily_budget_nano_usd": limit_nano_usd,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _as_text(book: DayBook, zone: str, limit_nano_usd: int) -> str:
    committed = book.settled_nano_usd + book.reserved_nano_usd
    lines = [f"{book.day} ({zone})", ""]
    if book.spent:
        lines += [*_table(_rows(book)), ""]
    else:
        lines += ["Nothing was spent.", ""]
    for caller, amount in book.reserved:
        lines.append(
            f"${usd(amount)} is set aside for {caller}: calls that are running, or were when their"
            " worker was killed"
        )
    share = committed / limit_nano_usd
    lines.append(f"${usd(committed)} of the daily budget of ${usd(limit_nano_usd)}, {share:.1%}")
    return "\n".join(lines)


def _rows(book: DayBook) -> list[tuple[str, ...]]:
    rows = [
        (
            spent.caller,
            spent.charge.provider,
            spent.charge.model,
            f"{spent.charge.calls:,}",
            f"{spent.charge.input_tokens:,}",
            f"{spent.charge.output_tokens:,}",
            usd(spent.charge.cost_nano_usd),
        )
        for spent in book.spent
    ]
    return [COLUMNS, *rows, ("total", "", "", "", "", "", usd(book.settled_nano_usd))]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 3 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
