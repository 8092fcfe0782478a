"""The figures of long conversations at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from ..told import ToldTable

PROPERTY = "conversation"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a conversation came to; money in nano-dollars."""

    turns: int
    requests: int
    said_tokens: int
    """By callers, who send the whole conversation each time."""
    sent_tokens: int
    longest: int
    limit: int
    dropped: int
    summaries: int
    summarised_tokens: int
    cost_nano_usd: int
    summaries_nano_usd: int


Tell = Callable[[str, Figures], None]


class Table(ToldTable):
    told_as = PROPERTY
    title = "long conversations"

    def write(self, terminal: pytest.TerminalReporter) -> None:
        for row in self.rows:
            for line in _written(row):
                terminal.write_line(line)


def _written(row: Mapping[str, Any]) -> list[str]:
    name = row["name"]
    share = row["summaries_nano_usd"] / row["cost_nano_usd"]
    return [
        f"{name}: {row['turns']} turns in {row['requests']} requests, which held"
        f" {row['said_tokens']:,} tokens; {row['sent_tokens']:,} were sent on,"
        f" at most {row['longest']:,} of {row['limit']:,} at a time",
        f"{'':<{len(name)}}  {row['dropped']} messages were dropped and summarised once each, in"
        f" {row['summaries']} calls with {row['summarised_tokens']:,} tokens",
        f"{'':<{len(name)}}  ${row['cost_nano_usd'] / 1e9:.6f} in the ledger and on the bill,"
        f" {share:.0%} of it for summaries",
    ]


@pytest.fixture
def tell_conversation(record_property: Callable[[str, object], None]) -> Tell:
    """Puts a conversation's figures into the table."""

    def record(name: str, figures: Figures) -> None:
        record_property(PROPERTY, {"name": name, **asdict(figures)})

    return record


def pytest_configure(config: pytest.Config) -> None:
    Table.register(config)
