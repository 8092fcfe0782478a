"""The environment as this service needs it: its settings, its providers', its store's, and the
owner's prompts."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from .guardrails.context.limits import ModelLimits
from .guardrails.context.token_count import Size, TokenCounter, Tokenizer
from .guardrails.environment.prompts import SUMMARY, SYSTEM, Prompts, read_prompts
from .guardrails.environment.settings import LEAST_INPUT_TOKENS, Settings
from .guardrails.environment.startup import (
    Configuration,
    Problem,
    load,
    summary_model,
    variable_name,
)
from .guardrails.resources.budget import usd
from .guardrails.resources.prices import UnknownPrice, context_window, resolve
from .providers.base import ProviderSettings
from .wiring import ADAPTERS, Store

PRICE_LIST_IDS: Final = {adapter.name: adapter.price_list_id for adapter in ADAPTERS}
PROMPT_SHARE: Final = 0.75
"""The most of `MAX_INPUT_TOKENS` that a prompt of the owner's may take."""


def load_configuration() -> Configuration:
    """Raises `InvalidEnvironment`, listing everything that is wrong."""
    prompts = read_prompts()
    configuration = load(
        {adapter.name: adapter.settings_type for adapter in ADAPTERS},
        Store.settings_type,
        checks=(
            _unpriced_models,
            _unfit_summary_model,
            _limits_beyond_windows,
            _budgets_below_one_answer,
            _workers_without_shared_store,
            partial(_unusable_prompts, prompts),
            partial(_prompts_beyond_limit, prompts),
        ),
    )
    return replace(configuration, prompts=prompts)


def _unpriced_models(_: Settings, providers: Mapping[str, ProviderSettings]) -> Iterator[Problem]:
    """A model whose price is not known would be free, and the budget would not hold."""
    for name, settings in providers.items():
        try:
            resolve(settings, PRICE_LIST_IDS[name])
        except UnknownPrice:
            prices = " and ".join(
                variable_name(type(settings), f"{direction}_usd_per_mtok")
                for direction in ("input", "output")
            )
            yield Problem(
                variable_name(type(settings), "model"),
                f"has no known price; check its name, or set {prices} (0 means free)",
            )


def _unfit_summary_model(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Iterator[Problem]:
    try:
        chosen = summary_model(settings, providers)
        if chosen is not None:
            resolve(chosen[1], PRICE_LIST_IDS[chosen[0]])
    except KeyError:
        known = " or ".join(f"{name}/..." for name in providers)
        yield Problem("SUMMARY_MODEL", f"names no provider that is asked; write {known}")
    except UnknownPrice:
        yield Problem(
            "SUMMARY_MODEL",
            "has no known price; check its name, or set SUMMARY_INPUT_USD_PER_MTOK and"
            " SUMMARY_OUTPUT_USD_PER_MTOK (0 means free)",
        )


def _limits_beyond_windows(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Iterator[Problem]:
    """A model whose window has no place for an input beside the longest answer would hardly ever
    be asked. One that takes shorter inputs than the others is only worth a warning: the gate keeps
    to its limit."""
    for name, provider in providers.items():
        limits = _model_limits(name, provider)
        room = limits.room_beside(limits.clamp_output(settings.max_output_tokens))
        if room is None:
            continue
        model = variable_name(type(provider), "model")
        size = f"{limits.window_tokens:,}, the context window of {model}"
        if room < LEAST_INPUT_TOKENS:
            remedy = f"leaves no room for an input in {size}; lower it, or choose another model"
            yield Problem("MAX_OUTPUT_TOKENS", remedy)
        elif settings.max_input_tokens > room:
            yield Problem(
                "MAX_INPUT_TOKENS",
                f"is above {room:,}, what MAX_OUTPUT_TOKENS leaves of {size}: there that is the"
                " limit",
                is_warning=True,
            )


def _budgets_below_one_answer(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Iterator[Problem]:
    """Each call sets aside its worst case, so that such a budget refuses the first one already."""
    budgets = {
        "DAILY_BUDGET_USD": settings.daily_budget_nano_usd,
        "DAILY_BUDGET_PER_CALLER_USD": settings.daily_budget_per_caller_nano_usd,
    }
    for name, provider in providers.items():
        try:
            price = resolve(provider, PRICE_LIST_IDS[name])
        except UnknownPrice:
            continue
        most = _model_limits(name, provider).clamp_output(settings.max_output_tokens)
        worst_case = price.worst_case_nano_usd(0, most)
        model = variable_name(type(provider), "model")
        for variable, budget in budgets.items():
            if budget < worst_case:
                yield Problem(
                    variable,
                    f"is below ${usd(worst_case)}, the price of MAX_OUTPUT_TOKENS at {model}:"
                    " requests that do not ask for less are refused",
                    is_warning=True,
                )


def _model_limits(name: str, settings: ProviderSettings) -> ModelLimits:
    return ModelLimits.of(settings, context_window(settings, PRICE_LIST_IDS[name]))


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


def _unusable_prompts(
    prompts: Prompts, _: Settings, __: Mapping[str, ProviderSettings]
) -> Iterator[Problem]:
    return (Problem(error.variable, error.remedy) for error in prompts.unusable)


def _prompts_beyond_limit(
    prompts: Prompts, settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Iterator[Problem]:
    """Beside a system message that is too long no conversation has room, and all are refused.
    Where an instruction leaves none, nothing is summarised: only a warning."""
    adapters = [kind(providers[kind.name]) for kind in ADAPTERS if kind.name in providers]
    if not adapters:
        return
    tokenizer = Tokenizer.of(adapters)
    most = int(settings.max_input_tokens * PROMPT_SHARE)
    for name, text, excluded in (
        (SYSTEM, prompts.system, "a conversation"),
        (SUMMARY, prompts.summary, "what it summarises"),
    ):
        # No token is shorter than a byte, and to load the encoding takes time.
        if len(text.encode()) * tokenizer.factor < most:
            continue
        count = tokenizer.tokens(Size(TokenCounter().text(text), 0))
        if count > most:
            yield Problem(
                name,
                f"has {count:,} tokens where they count most, above {most:,}, three quarters of"
                f" MAX_INPUT_TOKENS, and leaves {excluded} no room; shorten it, or raise the limit",
                is_warning=name == SUMMARY,
            )
