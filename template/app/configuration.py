"""The environment as this service needs it: its settings, its providers', its store's."""

import os
from collections.abc import Iterator, Mapping

from .guardrails.environment.settings import Settings
from .guardrails.environment.startup import Configuration, Problem, load, variable_name
from .guardrails.resources.prices import UnknownPrice, resolve
from .providers.base import ProviderSettings
from .wiring import ADAPTERS, Store


def load_configuration() -> Configuration:
    """Raises `InvalidEnvironment`, listing everything that is wrong."""
    return load(
        {adapter.name: adapter.settings_type for adapter in ADAPTERS},
        Store.settings_type,
        checks=(_unpriced_models, _workers_without_shared_store),
    )


def _unpriced_models(_: Settings, providers: Mapping[str, ProviderSettings]) -> Iterator[Problem]:
    """A model whose price is not known would be free, and the budget would not hold."""
    list_ids = {adapter.name: adapter.price_list_id for adapter in ADAPTERS}
    for name, settings in providers.items():
        try:
            resolve(settings, list_ids[name])
        except UnknownPrice:
            prices = " and ".join(
                variable_name(type(settings), f"{direction}_usd_per_mtok")
                for direction in ("input", "output")
            )
            yield Problem(
                variable_name(type(settings), "model"),
                f"has no known price; check its name, or set {prices} (0 means free)",
            )


def _workers_without_shared_store(
    settings: Settings, _: Mapping[str, ProviderSettings]
) -> Iterator[Problem]:
    if Store.shared_between_processes:
        return
    wanted = {
        "WORKERS": str(settings.workers),
        "WEB_CONCURRENCY": os.environ.get("WEB_CONCURRENCY"),
    }
    for variable, value in wanted.items():
        if value not in (None, "", "1"):
            yield Problem(
                variable, f"is {value}, but {Store.name} storage is for one process; set 1"
            )
