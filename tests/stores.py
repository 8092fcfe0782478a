"""The stores of `copier.yml`, as their code and the sandbox have them; none is named here."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import sandbox.stores
from app.storage.base import Store

from .matrix.combinations import read_axes

STORES = next(axis.values for axis in read_axes() if axis.name == "storage")


def store_type(name: str) -> type[Store]:
    kind: type[Store] = import_module(f"app.storage.{name}").Store
    return kind


SHARED_STORES = tuple(name for name in STORES if store_type(name).shared_between_processes)
"""Those that several processes may use at once."""


def stores_with_servers() -> dict[str, Any]:
    """Those that hosts can share, each with the sandbox's module, which starts its server."""
    names = {module.name for module in iter_modules(sandbox.stores.__path__)} & set(STORES)
    modules = {name: import_module(f"sandbox.stores.{name}") for name in sorted(names)}
    return {name: module for name, module in modules.items() if hasattr(module, "SERVER_VARIABLE")}
