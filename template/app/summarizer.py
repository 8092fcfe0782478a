"""Has what trimming drops summarised, where there is time and money for it; never in the way.

A summary is part of its request: its attempts are paid for by the same operation and end within the
same deadline. Whatever goes wrong with it, the request goes on with plain trimming.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import policy
from .call import Call
from .errors import ServiceError, StoreUnavailable
from .guardrails.availability.deadline import Deadline
from .guardrails.availability.fallback import Fallback
from .guardrails.context.gate import ContextGate
from .guardrails.context.summary import Summary, SummaryKey, summary_keys
from .guardrails.resources.prices import Price
from .messages import Message
from .providers.provider import Provider
from .storage.base import Store


@dataclass(frozen=True, slots=True)
class SummaryModel:
    """A model that is asked for summaries alone. `window_tokens` is what it takes and makes."""

    provider: Provider
    price: Price
    window_tokens: int | None


class Summarizer:
    """`model` makes the summaries; without one, whoever may answer the request."""

    def __init__(
        self,
        gate: ContextGate,
        fallback: Fallback,
        store: Store,
        model: SummaryModel | None = None,
    ) -> None:
        self._gate = gate
        self._fallback = fallback
        self._store = store
        self._model = model

    async def summary(self, call: Call) -> Summary | None:
        """The newest stored one, or one that goes on from it where it no longer covers enough;
        `None`: plain trimming."""
        wanted = call.fit.wanted
        if not wanted:
            return None
        try:
            with call.caller.record.phase("summary"):
                keys = await _keys(call.caller.name, call.fit.history[: wanted[-1]])
                stored = await self._newest(keys)
                if stored is not None and stored.covered in wanted:
                    return stored
                summary = await self._ask(call, stored)
        except ServiceError:
            return None
        if summary is not None:
            # It is only written to spare the next turns this call.
            with suppress(StoreUnavailable), call.caller.record.phase("summary"):
                await self._store.write_summary(
                    keys[0].key, summary.encode(), policy.SUMMARY_TTL_SECONDS
                )
        return summary

    async def _newest(self, keys: tuple[SummaryKey, ...]) -> Summary | None:
        found = await self._store.read_summary([key.key for key in keys])
        if found is None:
            return None
        place, text = found
        return Summary.decode(text, keys[place].covered)

    async def _ask(self, call: Call, previous: Summary | None) -> Summary | None:
        remaining_seconds = call.deadline.remaining_seconds
        if remaining_seconds < policy.SUMMARY_MIN_DEADLINE_SECONDS:
            return None
        chain, prices = self._asked(call)
        asked = await self._gate.summary_call(
            call.fit,
            [provider.adapter for provider in chain],
            previous,
            window_tokens=self._model.window_tokens if self._model is not None else None,
        )
        if asked is None:
            return None
        with call.summarizing(asked, prices):
            reply, provider = await self._fallback.complete(
                chain,
                lambda _: asked.request,
                Deadline.after(remaining_seconds / 2),
                call,
                is_optional=True,
            )
            call.answered(provider, reply)
        return self._gate.summary(reply.text, call.fit.wanted[-1], asked.messages)

    def _asked(self, call: Call) -> tuple[Sequence[Provider], Mapping[str, Price]]:
        if self._model is None:
            return call.chain, call.prices
        return [self._model.provider], {self._model.provider.name: self._model.price}


async def _keys(caller: str, history: tuple[Message, ...]) -> tuple[SummaryKey, ...]:
    if len(history) > policy.SUMMARY_INLINE_MESSAGES:
        return await asyncio.to_thread(summary_keys, caller, history)
    return summary_keys(caller, history)
