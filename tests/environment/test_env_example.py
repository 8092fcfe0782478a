"""`.env.example` says what the settings say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import Field

from app.guardrails.environment.settings import Settings
from tools.env_example import COLUMNS, EXAMPLE, FIRST_OF_LIMITS, FIRST_OF_WAITS, HEADINGS, example

from ..matrix.combinations import Combination, all_combinations
from ..rendering import render, take_snapshot


@pytest.mark.promise("E5")
def test_the_file_is_what_the_settings_say() -> None:
    """What is committed is what `make env-example` writes."""
    assert EXAMPLE.read_text(encoding="utf-8") == example(), "run `make env-example`"


def test_each_place_is_that_of_a_setting() -> None:
    """The headings and the first part hang on settings that are there."""
    assert {*HEADINGS, FIRST_OF_LIMITS, FIRST_OF_WAITS} <= set(Settings.model_fields)


def test_a_new_setting_needs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more field stands below the one before it, with what it says of itself."""
    info = Field(default=None, description="Where figures go: `http://host:8125`.")
    fields: dict[str, object] = {}
    for name, field in Settings.model_fields.items():
        fields[name] = field
        if name == "log_format":
            fields["statistics_endpoint"] = info
    monkeypatch.setattr(Settings, "__pydantic_fields__", fields)
    entry = "# Where figures go: http://host:8125.\n# STATISTICS_ENDPOINT=\n"
    assert f"# LOG_FORMAT=\n\n{entry}\n# " in example()


@pytest.mark.parametrize("combination", [all_combinations()[0], all_combinations()[-1]], ids=str)
def test_it_reads_well(combination: Combination, tmp_path: Path) -> None:
    """Rendered, it has no line too long, each variable below what it is for, and code in one
    piece."""
    render(take_snapshot(tmp_path / "template"), tmp_path / "service", combination.answers)
    text = (tmp_path / "service" / ".env.example").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= COLUMNS
    blocks = text.rstrip().split("\n\n")
    entries = [block for block in blocks[1:] if not block.startswith("# --- ")]
    assert all(re.fullmatch(r"(# [^\n]+\n)+(# )?[A-Z_]+=[^\n]*", entry) for entry in entries)
    assert "python -c 'import secrets; print(secrets.token_urlsafe(32))'" in text
