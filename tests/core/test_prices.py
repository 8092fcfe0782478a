"""Prices are known before a model is served, and the worst case of a call is never exceeded."""

import importlib
import pkgutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import app.providers
from app.guardrails.resources.prices import Price, Rates, UnknownPrice, resolve
from app.messages import TokenUsage
from app.providers.anthropic import Anthropic, AnthropicSettings
from app.providers.base import ProviderAdapter
from app.providers.openai import OpenAI, OpenAISettings
from app.providers.usage import token_usage

PER_TOKEN = 1_000
"""Nano-dollars per token, at a dollar per million tokens."""


def _adapters() -> list[type[ProviderAdapter]]:
    modules = pkgutil.iter_modules(app.providers.__path__)
    found = [importlib.import_module(f"app.providers.{module.name}") for module in modules]
    return [module.Adapter for module in found if hasattr(module, "Adapter")]


ADAPTERS = [
    adapter
    for adapter in _adapters()
    if not adapter.settings_type.model_fields["model"].is_required()
]


def price_of(model: str) -> Price:
    return resolve(OpenAISettings(api_key=SecretStr("key"), model=model), OpenAI.price_list_id)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_every_default_model_has_a_price(adapter: type[ProviderAdapter]) -> None:
    """A vendor's default model is on the price list, and neither direction is free."""
    settings: Any = adapter.settings_type
    price = resolve(settings(api_key=SecretStr("key")), adapter.price_list_id)
    assert price.base.input > 0
    assert price.base.output > price.base.input
    assert price.cost_nano_usd(TokenUsage(1_000, 1_000)) > 0


@pytest.mark.promise("E4")
@pytest.mark.parametrize("model", ["no-such-model", "gpt", "sonnet-of-somebody-else"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    """A model that the list does not know is refused rather than free."""
    with pytest.raises(UnknownPrice):
        price_of(model)


@pytest.mark.parametrize(
    ("settings", "usage", "nano_usd"),
    [
        ((2.0, 8.0), TokenUsage(1_000, 100), 2_000 * PER_TOKEN + 800 * PER_TOKEN),
        ((0.05, 0.4), TokenUsage(1, 0), 50),
        ((0.0001, 0.0), TokenUsage(3, 1_000), 1),
        ((0.0, 0.0), TokenUsage(10**6, 10**6), 0),
        ((2.0, 8.0), TokenUsage(1_000, 0, cached_input_tokens=900), 2_000 * PER_TOKEN),
    ],
)
def test_a_declared_price_holds(
    settings: tuple[float, float], usage: TokenUsage, nano_usd: int
) -> None:
    """A price from the settings is charged as declared, rounded up, for any model at all."""
    declared = OpenAISettings(
        api_key=SecretStr("key"),
        model="no-such-model",
        input_usd_per_mtok=settings[0],
        output_usd_per_mtok=settings[1],
    )
    assert resolve(declared, OpenAI.price_list_id).cost_nano_usd(usage) == nano_usd


@pytest.mark.parametrize("known", ["input_usd_per_mtok", "output_usd_per_mtok"])
def test_half_a_price_is_none(known: str) -> None:
    """One direction declared, of a model that the list does not know, is not enough."""
    fields: dict[str, Any] = {known: 1.0, "api_key": SecretStr("key"), "model": "no-such-model"}
    with pytest.raises(UnknownPrice):
        resolve(OpenAISettings(**fields), OpenAI.price_list_id)


def test_parts_of_the_input_have_prices_of_their_own() -> None:
    """Input read from the vendor's cache is cheaper, input written to it dearer."""
    settings = AnthropicSettings(api_key=SecretStr("key"))
    price = resolve(settings, Anthropic.price_list_id)
    plain = price.cost_nano_usd(TokenUsage(10_000, 0))
    assert price.cost_nano_usd(TokenUsage(10_000, 0, cached_input_tokens=10_000)) < plain
    assert price.cost_nano_usd(TokenUsage(10_000, 0, cache_write_tokens=10_000)) > plain


def test_long_inputs_are_dearer_where_the_list_says_so() -> None:
    """Beyond a tier's threshold all tokens are charged at that tier's rates."""
    settings = AnthropicSettings(api_key=SecretStr("key"), model="claude-sonnet-4-5")
    price = resolve(settings, Anthropic.price_list_id)
    ((threshold, _),) = price.tiers
    at = price.cost_nano_usd(TokenUsage(threshold, 0))
    above = price.cost_nano_usd(TokenUsage(threshold + 1, 0))
    assert above > 1.5 * at


_rate = st.integers(0, 10**11)
rates = st.builds(Rates, _rate, _rate, _rate, _rate)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Any rates, with tiers that are dearer the longer the input, as vendors have them."""
    base = draw(rates)
    factors = sorted(draw(st.lists(st.integers(1, 5), max_size=2)))
    starts = sorted(
        draw(st.sets(st.integers(1, 3_000), min_size=len(factors), max_size=len(factors)))
    )
    return Price(
        base,
        tuple(
            (
                start,
                Rates(
                    *(
                        factor * rate
                        for rate in (base.input, base.cached_input, base.cache_write, base.output)
                    )
                ),
            )
            for start, factor in zip(starts, factors, strict=True)
        ),
    )


counts = st.integers(0, 5_000)


@given(prices(), counts, counts, counts, counts, st.integers(0, 500), st.integers(0, 500))
def test_no_usage_costs_more_than_the_worst_case(
    price: Price,
    input_tokens: int,
    output_tokens: int,
    cached: int,
    cache_write: int,
    more_input: int,
    more_output: int,
) -> None:
    """Whatever is billed within the limits, read from a cache or written to it, was reserved."""
    usage = token_usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached=cached,
        cache_write=cache_write,
        reasoning=0,
    )
    worst = price.worst_case_nano_usd(input_tokens + more_input, output_tokens + more_output)
    assert 0 <= price.cost_nano_usd(usage) <= worst
