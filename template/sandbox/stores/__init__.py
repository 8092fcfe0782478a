"""What the service's store needs to run, where nobody has given it a place."""

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def place(given: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """The variables that lead to a store of one's own, for as long as the block lasts.

    A variable that is `given` is left alone. A store that needs nothing has no module here, and
    no variable.
    """
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        for store in _stores():
            if not (given or {}).get(store.VARIABLE):
                variables[store.VARIABLE] = stack.enter_context(store.run())
        yield variables


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """One server of each store that has servers. Where the variables that this yields are set, each
    place is on that server, which is started once, not often."""
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        for store in _stores():
            name = getattr(store, "SERVER_VARIABLE", None)
            if name is not None:
                variables[name] = os.environ.get(name) or stack.enter_context(store.serve())
        yield variables


def _stores() -> Iterator[Any]:
    for module in pkgutil.iter_modules(__path__):
        yield importlib.import_module(f"{__name__}.{module.name}")
