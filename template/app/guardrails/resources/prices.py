"""What a model's tokens cost, resolved once at start to integers.

Prices come from genai-prices, a dated list inside its package, or from the settings
`<PROVIDER>_INPUT_USD_PER_MTOK` and `<PROVIDER>_OUTPUT_USD_PER_MTOK`. A price of one dollar per
million tokens is a thousand nano-dollars per token.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from ...messages import TokenUsage
from ...providers.base import ProviderSettings
from .budget import NANO_PER_USD

TOKENS_PER_MTOK = 10**6


class UnknownPrice(Exception):
    """The list does not know the model and the settings declare no price."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars per million tokens."""

    input: int
    cached_input: int
    cache_write: int
    output: int


@dataclass(frozen=True, slots=True)
class Price:
    """A model's rates by size of input: `tiers` holds (input tokens above which, rates)."""

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    def cost_nano_usd(self, usage: TokenUsage) -> int:
        """What `usage` costs, rounded up."""
        rates = self._rates(usage.input_tokens)
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        return _per_token(
            max(0, fresh) * rates.input
            + usage.cached_input_tokens * rates.cached_input
            + usage.cache_write_tokens * rates.cache_write
            + usage.output_tokens * rates.output
        )

    def worst_case_nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """The most that one attempt with so many tokens at most can cost."""
        rates = self._rates(input_tokens)
        dearest_input = max(rates.input, rates.cached_input, rates.cache_write)
        return _per_token(input_tokens * dearest_input + output_tokens * rates.output)

    def _rates(self, input_tokens: int) -> Rates:
        reached = (rates for start, rates in self.tiers if input_tokens > start)
        return max(reached, key=lambda rates: rates.input, default=self.base)


def resolve(settings: ProviderSettings, price_list_id: str) -> Price:
    """The price of the configured model as of now. Raises `UnknownPrice`."""
    declared = (settings.input_usd_per_mtok, settings.output_usd_per_mtok)
    if None not in declared:
        per_input, per_output = (_nano(Decimal(str(price))) for price in declared)
        return Price(Rates(per_input, per_input, per_input, per_output))
    model = _listed(settings, price_list_id)
    if model is None:
        raise UnknownPrice(settings.model)
    listed = model.get_prices(datetime.now(UTC))
    starts = {
        tier.start
        for value in (listed.input_mtok, listed.output_mtok)
        if isinstance(value, TieredPrices)
        for tier in value.tiers
    }
    base = _rates(listed, 0)
    if listed.input_mtok is None or listed.output_mtok is None:
        raise UnknownPrice(settings.model)
    return Price(base, tuple((start, _rates(listed, start + 1)) for start in sorted(starts)))


def context_window(settings: ProviderSettings, price_list_id: str) -> int | None:
    """The tokens that the configured model takes and makes together, where the list has it."""
    model = _listed(settings, price_list_id)
    return None if model is None else model.context_window


def _listed(settings: ProviderSettings, price_list_id: str) -> ModelInfo | None:
    try:
        return get_snapshot().find_provider_model(settings.model, None, price_list_id, None)[1]
    except LookupError:
        return None


def _rates(listed: ModelPrice, input_tokens: int) -> Rates:
    def at(name: str, otherwise: int) -> int:
        value: Decimal | TieredPrices | None = getattr(listed, name)
        if value is None:
            return otherwise
        if isinstance(value, TieredPrices):
            reached = [tier.price for tier in value.tiers if input_tokens > tier.start]
            return _nano(reached[-1] if reached else value.base)
        return _nano(value)

    per_input = at("input_mtok", 0)
    return Rates(
        input=per_input,
        cached_input=at("cache_read_mtok", per_input),
        cache_write=at("cache_write_mtok", per_input),
        output=at("output_mtok", 0),
    )


def _nano(usd: Decimal) -> int:
    return int((usd * NANO_PER_USD).to_integral_value(ROUND_CEILING))


def _per_token(total: int) -> int:
    return -(-total // TOKENS_PER_MTOK)
