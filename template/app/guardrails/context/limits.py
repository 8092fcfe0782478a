"""How much one model takes and makes. Whoever knows it says so: the owner, else the price list."""

from dataclasses import dataclass
from typing import Self

from ...providers.base import ProviderSettings


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`None` where nobody has said. `window_tokens` bounds input and answer together."""

    window_tokens: int | None = None
    max_output_tokens: int | None = None

    @classmethod
    def of(cls, settings: ProviderSettings, listed_window_tokens: int | None) -> Self:
        """Those of the configured model, of which the price list may know the window."""
        window = settings.context_window_tokens
        return cls(listed_window_tokens if window is None else window, settings.max_output_tokens)

    def clamp_output(self, wanted: int) -> int:
        """As many tokens of answer as the model can write of those that are wanted."""
        return wanted if self.max_output_tokens is None else min(wanted, self.max_output_tokens)

    def room_beside(self, output_tokens: int) -> int | None:
        """What the window leaves for the input beside such an answer; `None`: any input."""
        return None if self.window_tokens is None else max(0, self.window_tokens - output_tokens)
