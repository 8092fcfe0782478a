"""The settings of every choice that the template offers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from app.guardrails.environment.settings import Settings
from app.guardrails.environment.startup import variable_name
from app.providers.base import ProviderSettings
from app.storage.base import StoreSettings
from app.variables import Variables

from ..matrix.combinations import read_axes

_CHOICES = {axis.name: axis.values for axis in read_axes()}

PROVIDERS: Mapping[str, type[ProviderSettings]] = {
    name: importlib.import_module(f"app.providers.{name}").Adapter.settings_type
    for name in _CHOICES["providers"]
}
STORES: Mapping[str, type[StoreSettings]] = {
    name: importlib.import_module(f"app.storage.{name}").Store.settings_type
    for name in _CHOICES["storage"]
}
KINDS: tuple[type[Variables], ...] = (Settings, *PROVIDERS.values(), *STORES.values())
VARIABLES = tuple(variable_name(kind, field) for kind in KINDS for field in kind.model_fields)
