"""What the service's store needs to run, where nobody has given it a place."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager


@contextmanager
def place(given: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """The variables that lead to a store of one's own, for as long as the block lasts.

    A variable that is `given` is left alone. A store that needs nothing has no module here, and
    no variable.
    """
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        for module in pkgutil.iter_modules(__path__):
            store = importlib.import_module(f"{__name__}.{module.name}")
            if not (given or {}).get(store.VARIABLE):
                variables[store.VARIABLE] = stack.enter_context(store.run())
        yield variables
