"""`python -m app --check`: everything that keeps the service from starting, or every setting."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

import orjson

from .configuration import load_configuration
from .errors import StoreUnavailable
from .guardrails.environment.startup import (
    DEFAULT,
    Configuration,
    InvalidEnvironment,
    Problem,
    problem_table,
    variable_name,
)
from .guardrails.environment.tables import Colour, Page
from .wiring import SERVICE, Store


def fit_configuration() -> Configuration:
    """Raises `InvalidEnvironment`, the store's outage included.

    The store is reached only where all else is well: to open it brings its schema up to date, and
    a service that does not start leaves everything as it was.
    """
    configuration = load_configuration()
    try:
        asyncio.run(_reach_store(configuration))
    except StoreUnavailable as error:
        raise InvalidEnvironment([_outage(error), *configuration.warnings]) from None
    return configuration


def print_fit(configuration: Configuration, stream: TextIO) -> None:
    """Every setting in effect, and what is worth a look."""
    page = Page.of(stream)
    print(page.paint("The environment is fit to serve.", Colour.GOOD), file=stream)
    if configuration.warnings:
        print(f"\n{problem_table(configuration.warnings, page)}", file=stream)
    rows, colours = [], []
    for setting in configuration.settings():
        value = setting.value
        if value is None:
            value = "set" if setting.is_set else "unset"
        rows.append((setting.variable, setting.source, value))
        colours.append(Colour.FAINT if setting.source == DEFAULT else Colour.PLAIN)
    print(f"\n{page.table(('variable', 'from', 'value'), rows, colours)}", file=stream)


def print_unfit(error: InvalidEnvironment, stream: TextIO) -> None:
    print(error.written(Page.of(stream)), file=stream)


def as_json(outcome: Configuration | InvalidEnvironment) -> str:
    """The same for machines. Later versions may add members, and rename none.

    - `fit`: whether the service would start
    - `problems`, `warnings`: each with `variable` and `remedy`
    - `settings`: each with `variable`, `value` (as the variable takes it; null when it is not set
      or a secret), `source` (`environment`, `.env`, `<NAME>_FILE`, `/run/secrets` or `default`),
      `is_set` and `is_secret`; none unless `fit`
    """
    document: dict[str, Any] = {
        "fit": True,
        "problems": [],
        "warnings": _plain(outcome.warnings),
        "settings": [],
    }
    if isinstance(outcome, InvalidEnvironment):
        document |= {"fit": False, "problems": _plain(outcome.problems)}
    else:
        document["settings"] = [asdict(setting) for setting in outcome.settings()]
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _plain(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"variable": problem.variable, "remedy": problem.remedy} for problem in problems]


def _outage(error: StoreUnavailable) -> Problem:
    kind = Store.settings_type
    variables = " and ".join(variable_name(kind, field) for field in kind.model_fields)
    return Problem(variables, f"leads to no {Store.name} store that can be used: {error.reason}")


async def _reach_store(configuration: Configuration) -> None:
    store = Store(configuration.store, SERVICE)
    try:
        await store.open()
    finally:
        await store.close()
