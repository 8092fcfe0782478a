"""What a rendered `wiring.py` offers, for checking the template where it lies. Never rendered."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from .api.asgi import Api
from .providers.base import ProviderAdapter
from .storage.base import Store as _Store

SERVICE: Final[str]
ADAPTERS: Final[Sequence[type[ProviderAdapter]]]
Store: type[_Store]
routes: Any
create_api: Callable[..., Api]
