"""The story of one guarded call. Each guardrail is a step, and this is the only place that knows
their order: context, then admission (rate limit, idempotency, budget), then the providers, then
settlement.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from . import policy
from .call import Call, worst_answer
from .caller import Caller
from .errors import (
    BadRequest,
    DeadlineExceeded,
    NotFound,
    ProviderError,
    ProvidersUnavailable,
    ServiceError,
)
from .guardrails.availability.deadline import Deadline
from .guardrails.availability.fallback import Fallback, OpenStream
from .guardrails.context.gate import ContextGate
from .guardrails.resources.admission import Admission, StoredReply
from .guardrails.resources.idempotency import claim_for
from .guardrails.resources.prices import Price
from .messages import ChatReply, ChatRequest, Chunk, ReplyBuilder, TokenUsage
from .providers.provider import Provider
from .reply_stream import ReplyStream
from .summarizer import Summarizer
from .tasks import Tasks

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply, the provider that gave it, and whether it was given before."""

    reply: ChatReply
    provider: str
    replayed: bool = False

    @property
    def text(self) -> str:
        return self.reply.text


@dataclass(frozen=True, slots=True)
class Timing:
    deadline_seconds: float
    stream_max_seconds: float


class GuardedChat:
    """The only way to a model. Every call through it is counted, limited, paid for and logged."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        prices: Mapping[str, Price],
        gate: ContextGate,
        admission: Admission,
        fallback: Fallback,
        summarizer: Summarizer,
        tasks: Tasks,
        timing: Timing,
        idempotency_from_body: Literal["retries", "always", "off"],
    ) -> None:
        self._providers = providers
        self._prices = prices
        self._gate = gate
        self._admission = admission
        self._fallback = fallback
        self._summarizer = summarizer
        self._tasks = tasks
        self._timing = timing
        self._idempotency_from_body = idempotency_from_body

    # What routes use

    async def complete(self, request: ChatRequest, caller: Caller) -> Completion:
        """One answer. Raises `ServiceError`.

        Runs to its end when the caller leaves: it is settled by its real usage and kept for a
        repeat of the request.
        """
        return await self._tasks.run(self._complete(request, caller))

    async def stream(self, request: ChatRequest, caller: Caller) -> ReplyStream:
        """An answer in pieces. Raises `ServiceError` until the first piece has come.

        After that, iterating raises it. When the caller leaves, the provider's stream is closed.
        """
        stream = ReplyStream()
        task = self._tasks.start(self._pump(request, caller, stream))
        stream.attach(task)
        caller.when_gone(stream.cancel)
        await stream.opened()
        return stream

    async def admit(self, caller: Caller) -> None:
        """Counts a request against the rate limit, for an endpoint that calls no model."""
        with caller.phase("admission"):
            await self._admission.admit_request(caller)

    def models(self) -> list[str]:
        """The ids that `model` may have."""
        bare = (provider.model for provider in self._providers.values())
        pinned = (f"{name}/{provider.model}" for name, provider in self._providers.items())
        return list(dict.fromkeys((AUTO, *bare, *pinned)))

    # One call, step by step

    async def _complete(self, request: ChatRequest, caller: Caller) -> Completion:
        call = await self._admitted(request, caller, self._timing.deadline_seconds)
        if isinstance(call, StoredReply):
            return Completion(call.reply, call.provider, replayed=True)
        try:
            call.summary = await self._summarizer.summary(call)
            reply, provider = await self._fallback.complete(
                call.chain, call.request_for, call.deadline, call
            )
        except BaseException:
            await self._settle(call)
            raise
        call.answered(provider, reply)
        await self._settle(call, reply, provider)
        return Completion(reply, provider.name)

    async def _pump(self, request: ChatRequest, caller: Caller, stream: ReplyStream) -> None:
        """Reads the provider's stream into `stream`, whoever may still be listening."""
        try:
            lease = self._timing.deadline_seconds + self._timing.stream_max_seconds
            call = await self._admitted(request, caller, lease)
            if isinstance(call, StoredReply):
                await stream.replay(call)
                return
            await self._pump_admitted(call, stream)
        except ServiceError as error:
            await stream.fail(error)
        except asyncio.CancelledError:
            stream.abandon()
            raise
        except Exception as error:
            await stream.fail(error)

    async def _pump_admitted(self, call: Call, stream: ReplyStream) -> None:
        builder = ReplyBuilder()
        opened: OpenStream | None = None
        try:
            call.summary = await self._summarizer.summary(call)
            opened = await self._fallback.open_stream(
                call.chain, call.request_for, call.deadline, call
            )
            call.began(opened.provider)
            async with asyncio.timeout(self._timing.stream_max_seconds), opened.stack:
                await stream.begin(opened.provider.name, _add(builder, opened.first))
                async for chunk in opened.rest:
                    await stream.put(_add(builder, chunk))
        except BaseException as error:
            try:
                if opened is not None:
                    await self._break_off(call, opened, builder, error)
            finally:
                await self._settle(call)
            if isinstance(error, TimeoutError | ProviderError):
                raise _broken_stream(error) from error
            raise
        reply = builder.reply()
        call.answered(opened.provider, reply)
        await self._settle(call, reply, opened.provider)
        await stream.end()

    async def _settle(
        self, call: Call, reply: ChatReply | None = None, provider: Provider | None = None
    ) -> None:
        with call.settling():
            await self._admission.settle(
                call.caller, call.operation, reply=reply, provider=provider.name if provider else ""
            )

    async def _admitted(
        self, request: ChatRequest, caller: Caller, lease_seconds: float
    ) -> Call | StoredReply:
        """Context and admission: after this the call may cost money."""
        deadline = Deadline.after(self._timing.deadline_seconds)
        able = self._chain(request)
        with caller.record.phase("context"):
            fit = await self._gate.fit(request, [provider.adapter for provider in able])
        chain = [provider for provider in able if provider.name in fit.by_provider]
        claim = claim_for(
            caller, self._idempotency_from_body, lease_seconds + policy.CLAIM_MARGIN_SECONDS
        )
        with caller.phase("admission"):
            worst_case = worst_answer(fit, self._prices)
            admitted = await self._admission.admit(caller, claim, worst_case)
        if isinstance(admitted, StoredReply):
            caller.record.replayed = True
            caller.record.provider = admitted.provider
            caller.record.model = admitted.reply.model
            caller.headers |= {"x-provider": admitted.provider, "idempotent-replayed": "true"}
            return admitted
        # As it stands when nobody answers; whoever does may have seen more or less.
        caller.record.trimmed_messages = len(fit.by_provider[chain[0].name].dropped)
        return Call(
            caller, admitted, chain, fit, deadline, self._prices, lambda: self._tasks.closed
        )

    def _chain(self, request: ChatRequest) -> list[Provider]:
        """Who is asked, in order: the provider that the model names first, unless it is pinned."""
        everyone = list(self._providers.values())
        if request.model == AUTO:
            chain = everyone
        elif pinned := [p for p in everyone if request.model == f"{p.name}/{p.model}"]:
            chain = pinned
        elif named := [p for p in everyone if request.model == p.model]:
            chain = named + [p for p in everyone if p not in named]
        else:
            raise NotFound(
                f"There is no such model; choose one of: {', '.join(self.models())}.",
                code="model_not_found",
                param="model",
            )
        lacks = {provider.name: provider.adapter.unsupported(request) for provider in chain}
        able = [provider for provider in chain if lacks[provider.name] is None]
        if not able:
            parameter = next(name for name in lacks.values() if name is not None)
            raise BadRequest(
                f"{parameter} cannot be honoured by {' or '.join(lacks)}; leave it out.",
                code="unsupported_parameter",
                param=parameter,
            )
        return able

    async def _break_off(
        self, call: Call, opened: OpenStream, builder: ReplyBuilder, error: BaseException
    ) -> None:
        """Books a broken stream; where that is cut off too, nobody knows what it is billed."""
        usage: TokenUsage | None = None
        try:
            usage = await self._usage_so_far(call, opened, builder)
        finally:
            call.broke(opened.provider, error, usage)

    async def _usage_so_far(
        self, call: Call, opened: OpenStream, builder: ReplyBuilder
    ) -> TokenUsage | None:
        """What a broken stream is billed: the usage seen, or the input and what was emitted.

        `None` (nobody knows) for a model that thinks out of sight.
        """
        adapter = opened.provider.adapter
        if adapter.thinks_out_of_sight:
            return None
        fitted = call.fitted(opened.provider)
        counted = await self._gate.counter.text_of_any_length(builder.emitted_text)
        emitted = counted * adapter.input_token_factor
        # An estimate, which must not charge more than was set aside for the most there can be.
        most = fitted.request.max_output_tokens or 0
        seen = builder.usage or TokenUsage(fitted.input_tokens, 0)
        return replace(seen, output_tokens=max(seen.output_tokens, min(int(emitted) + 1, most)))


def _add(builder: ReplyBuilder, chunk: Chunk) -> Chunk:
    builder.add(chunk)
    return chunk


def _broken_stream(error: TimeoutError | ProviderError) -> ServiceError:
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("The stream took longer than STREAM_MAX_SECONDS and was ended.")
    return ProvidersUnavailable("The provider's stream broke off; what came so far is incomplete.")
