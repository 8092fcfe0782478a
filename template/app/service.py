"""Puts the parts together: from a checked environment to something that can serve."""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from . import policy
from .api.asgi import Gateway, Visibility
from .api.endpoints import Endpoints
from .api.identity import Identity
from .chat import GuardedChat, Timing
from .guardrails.availability.circuit_breaker import CircuitBreaker, State
from .guardrails.availability.fallback import Fallback, GuardedProvider
from .guardrails.availability.retry import Retry, RetryBudget
from .guardrails.context.gate import ContextGate
from .guardrails.context.limits import ModelLimits
from .guardrails.context.token_count import TokenCounter
from .guardrails.environment.settings import Settings
from .guardrails.environment.startup import Configuration, summary_model
from .guardrails.resources.admission import Admission, Limits, SettlementBacklog
from .guardrails.resources.budget import BudgetCalendar
from .guardrails.resources.prices import Price, context_window, resolve
from .guardrails.visibility.alerts import Alerts, Channel, Webhook
from .guardrails.visibility.metrics import Metrics
from .guardrails.visibility.redaction import Redactor, credentials, url_secrets
from .guardrails.visibility.request_log import Logger, RequestLog, configure_logging
from .guardrails.visibility.uncaught import Uncaught
from .providers.provider import Provider
from .providers.transport import Timeouts, Transport, proxy_for
from .shutdown import Shutdown
from .storage.base import BudgetState, RateLimit
from .summarizer import Summarizer, SummaryModel
from .tasks import Tasks
from .wiring import ADAPTERS, SERVICE, Store, create_api, routes

if TYPE_CHECKING:
    from .guardrails.visibility.tracing import Tracing

BREAKER_VALUES: Mapping[State, float] = {
    State.CLOSED: 0.0,
    State.HALF_OPEN: 0.5,
    State.OPEN: 1.0,
}

WHO_SPENDS = (
    "The log says who spends, as cost_usd by caller; DAILY_BUDGET_USD raises the budget after a"
    " restart."
)


class Service:
    """Everything that lives as long as the process, and the order in which it begins and ends."""

    def __init__(self, configuration: Configuration) -> None:
        settings = configuration.service
        self._settings = settings
        self._daily_nano_usd = settings.daily_budget_nano_usd
        self._warnings = configuration.warnings
        self.logger, redact = start_logging(configuration)
        self._calendar = BudgetCalendar(ZoneInfo(settings.budget_timezone))
        self.metrics = Metrics(environment=settings.environment, today=self._today)
        self._sampling: asyncio.Task[None] | None = None
        self.alerts = Alerts(self.logger, redact, list(self._channels(redact)))
        self._uncaught = Uncaught(self.logger, self.alerts)
        self.tasks = Tasks()
        self.shutdown = Shutdown(
            delay_seconds=settings.delay_before_shutdown_seconds,
            grace_seconds=settings.grace_period_seconds,
            on_begun=lambda: self.logger.info("stopping"),
            cut_off=self.tasks.cut_off,
        )
        self.store = Store(configuration.store, SERVICE)
        self._backlog = SettlementBacklog(
            self.store,
            on_gone=self._on_store_gone,
            on_back=self._on_store_back,
            on_change=self.metrics.settlements,
        )
        self._providers = self._create_providers(configuration)
        self._summary_model = self._create_summary_model(configuration)
        self._tracing = self._create_tracing(configuration, redact)
        self.chat = self._create_chat(configuration)
        self.endpoints = Endpoints(self.chat, self.store, self.shutdown, self.metrics)

    # What Gateway calls

    async def start(self) -> None:
        """Reaches the store and begins. Raises when the store cannot be reached."""
        await self.store.open()
        self.metrics.store_reachable(True)
        if self.metrics.folder is not None:
            self._sampling = asyncio.create_task(self._sample_for_others())
        self.alerts.start()
        self._uncaught.listen()
        self.shutdown.listen()
        for warning in self._warnings:
            self.logger.warning(
                "settings_warning", variable=warning.variable, remedy=warning.remedy
            )
        self.logger.info("started", providers=list(self._providers), storage=Store.name)

    async def stop(self) -> None:
        """Lets calls finish, writes what is unsettled, then closes what they used."""
        await self.tasks.drain(self.shutdown.grace_left_seconds)
        if self._sampling is not None:
            self._sampling.cancel()
        lost = await self._backlog.close(policy.STORE_TIMEOUT_SECONDS)
        if lost:
            self.logger.error("settlements_lost", count=lost)
        await self.alerts.close()
        if self._tracing is not None:
            await self._tracing.close()
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))
        await self.store.close()
        self.logger.info("stopped")

    def app(self) -> Gateway:
        """The ASGI application."""
        settings = self._settings
        docs = settings.docs or not settings.is_production
        token = settings.metrics_token
        return Gateway(
            create_api(self.endpoints, routes, title=SERVICE, docs=docs),
            lifespan=self,
            shutdown=self.shutdown,
            identity=Identity(
                settings.named_keys,
                anonymous_allowed=settings.anonymous_allowed,
                trusted_proxies=settings.trusted_proxy_cidrs,
                metrics_token=token.get_secret_value() if token else None,
                metrics_open=not settings.is_production,
            ),
            visibility=Visibility(
                RequestLog(self.logger), self.metrics, self.alerts, self._tracing
            ),
            max_body_bytes=settings.max_body_bytes,
        )

    # The parts

    def _channels(self, redact: Redactor) -> Iterator[Channel]:
        settings = self._settings
        if settings.alert_webhook_url is not None:
            yield Webhook(
                settings.alert_webhook_url.get_secret_value(),
                SERVICE,
                self.logger,
                on_not_sent=self.metrics.alert_not_sent,
            )
        if settings.sentry_dsn is not None:
            # An extra, which others do without.
            from .guardrails.visibility.sentry import Sentry

            dsn = settings.sentry_dsn.get_secret_value()
            yield Sentry(dsn, SERVICE, settings.environment, redact)

    def _create_providers(self, configuration: Configuration) -> dict[str, Provider]:
        settings = configuration.service
        timeouts = Timeouts(
            settings.connect_timeout_seconds,
            settings.first_byte_timeout_seconds,
            settings.idle_timeout_seconds,
        )
        adapters = {adapter.name: adapter for adapter in ADAPTERS}
        return {
            name: Provider(
                adapters[name](provider),
                Transport(
                    provider.base_url,
                    timeouts,
                    max_reply_bytes=policy.MAX_REPLY_BYTES,
                    max_connections=policy.MAX_CONCURRENT_CALLS,
                    keep_alive_seconds=policy.KEEP_ALIVE_SECONDS,
                ),
            )
            for name, provider in configuration.providers.items()
        }

    def _create_summary_model(self, configuration: Configuration) -> SummaryModel | None:
        chosen = summary_model(configuration.service, configuration.providers)
        if chosen is None:
            return None
        name, settings = chosen
        adapter = next(adapter for adapter in ADAPTERS if adapter.name == name)
        return SummaryModel(
            self._providers[name].of_other_model(adapter(settings)),
            resolve(settings, adapter.price_list_id),
            ModelLimits.of(settings, context_window(settings, adapter.price_list_id)).window_tokens,
        )

    def _create_chat(self, configuration: Configuration) -> GuardedChat:
        settings = configuration.service
        gate = ContextGate(
            TokenCounter(),
            max_input_tokens=settings.max_input_tokens,
            max_output_tokens=settings.max_output_tokens,
            max_history_messages=settings.max_history_messages,
            summary_instruction=configuration.prompts.summary,
            default_system_message=configuration.prompts.system,
            models=resolve_limits(configuration),
        )
        fallback = self._create_fallback(settings)
        return GuardedChat(
            providers=self._providers,
            prices=resolve_prices(configuration),
            gate=gate,
            admission=Admission(
                self.store,
                Limits(
                    RateLimit(settings.rate_limit_requests, settings.rate_limit_window_seconds),
                    settings.daily_budget_nano_usd,
                    settings.daily_budget_per_caller_nano_usd,
                    settings.idempotency_ttl_seconds,
                ),
                self._calendar,
                self._backlog,
                on_budget=self._on_budget,
                on_exhausted=self._on_exhausted,
            ),
            fallback=fallback,
            summarizer=Summarizer(gate, fallback, self.store, self._summary_model),
            tasks=self.tasks,
            timing=Timing(settings.deadline_seconds, settings.stream_max_seconds),
            idempotency_from_body=settings.idempotency_from_body,
        )

    def _create_fallback(self, settings: Settings) -> Fallback:
        return Fallback(
            {name: self._guard(provider) for name, provider in self._providers.items()},
            Retry(
                settings.max_attempts,
                RetryBudget(policy.RETRY_BUDGET_RATIO, policy.RETRY_BUDGET_RESERVE),
                asyncio.sleep,
                random.Random(),
            ),
            self.alerts.fire,
        )

    def _create_tracing(self, configuration: Configuration, redact: Redactor) -> "Tracing | None":
        settings = configuration.service
        if settings.otel_exporter_otlp_endpoint is None:
            return None
        # Its libraries are an extra, and take time to load.
        from .guardrails.visibility.tracing import Collector, Tracing, Upstream

        asked = [*self._providers.values()]
        if self._summary_model is not None:
            asked.append(self._summary_model.provider)
        return Tracing(
            Collector(
                settings.otel_exporter_otlp_endpoint.get_secret_value(), settings.trace_headers
            ),
            {"service.name": SERVICE, "deployment.environment.name": settings.environment},
            {
                (provider.name, provider.model): Upstream(
                    provider.adapter.telemetry_name,
                    provider.model,
                    configuration.providers[provider.name].base_url,
                )
                for provider in asked
            },
            self.logger,
            redact,
        )

    def _guard(self, provider: Provider) -> GuardedProvider:
        breaker = CircuitBreaker(
            failures=policy.BREAKER_FAILURES,
            cool_down_seconds=policy.BREAKER_COOL_DOWN_SECONDS,
            on_open=lambda: self.alerts.fire(
                f"breaker_open:{provider.name}",
                f"{provider.name} failed {policy.BREAKER_FAILURES} times in a row and is not asked"
                f" for {policy.BREAKER_COOL_DOWN_SECONDS:g} s; then one call finds out whether it"
                " is back. Until then the next of PROVIDERS answers, if there is one. Look at its"
                " status page, and at its attempts in the log.",
            ),
        )
        self.metrics.watch_breaker(provider.name, lambda: BREAKER_VALUES[breaker.state])
        return GuardedProvider(provider, breaker, asyncio.Semaphore(policy.MAX_CONCURRENT_CALLS))

    # What the parts report

    def _today(self) -> str:
        _, today, _ = self._calendar.around(time.time())
        return today.name

    async def _sample_for_others(self) -> None:
        while True:
            await asyncio.sleep(policy.SAMPLE_SECONDS)
            self.metrics.sample()

    def _on_budget(self, state: BudgetState) -> None:
        limit = self._daily_nano_usd
        self.metrics.budget_used(state.committed_nano_usd / limit, state.day)
        # Told each time: of several workers another may have seen the store go.
        self.metrics.store_reachable(True)
        if state.settled_nano_usd >= policy.BUDGET_WARNING_RATIO * limit:
            self.alerts.fire(
                "budget_80",
                f"{state.settled_nano_usd / limit:.0%} of the daily budget of"
                f" ${self._settings.daily_budget_usd} is spent; what would cross it is refused"
                f" {self._until_midnight}. {WHO_SPENDS}",
                cool_down_seconds=policy.DAY_SECONDS,
                period=state.day,
            )

    def _on_exhausted(self, day: str) -> None:
        self.alerts.fire(
            "budget_100",
            f"The daily budget of ${self._settings.daily_budget_usd} is used up; requests are"
            f" refused {self._until_midnight}. {WHO_SPENDS}",
            cool_down_seconds=policy.DAY_SECONDS,
            period=day,
        )

    @property
    def _until_midnight(self) -> str:
        return f"until midnight ({self._settings.budget_timezone})"

    def _on_store_gone(self, reason: str, waiting: int) -> None:
        self.metrics.store_reachable(False)
        self.logger.error("store_unreachable", reason=reason, settlements_waiting=waiting)

    def _on_store_back(self, settlements_lost: int) -> None:
        self.metrics.store_reachable(True)
        self.logger.info("store_reachable", settlements_lost=settlements_lost)


def start_logging(configuration: Configuration) -> tuple[Logger, Redactor]:
    """From now on all that this process logs is written in one form, and without the secrets."""
    settings = configuration.service
    redact = Redactor(_secrets(configuration))
    logger = configure_logging(level=settings.log_level, json=settings.logs_json, redact=redact)
    return logger, redact


def resolve_prices(configuration: Configuration) -> dict[str, Price]:
    list_ids = {adapter.name: adapter.price_list_id for adapter in ADAPTERS}
    return {
        name: resolve(settings, list_ids[name])
        for name, settings in configuration.providers.items()
    }


def resolve_limits(configuration: Configuration) -> dict[str, ModelLimits]:
    list_ids = {adapter.name: adapter.price_list_id for adapter in ADAPTERS}
    return {
        name: ModelLimits.of(settings, context_window(settings, list_ids[name]))
        for name, settings in configuration.providers.items()
    }


def _secrets(configuration: Configuration) -> Iterator[str]:
    """Every value that must not be written anywhere."""
    settings = configuration.service
    yield from (key for _, key in settings.named_keys)
    yield from configuration.store.secrets()
    optional = [provider.api_key for provider in configuration.providers.values()]
    optional += [settings.metrics_token]
    yield from (secret.get_secret_value() for secret in optional if secret is not None)
    for url in (
        settings.alert_webhook_url,
        settings.sentry_dsn,
        settings.otel_exporter_otlp_endpoint,
    ):
        if url is not None:
            yield from url_secrets(url.get_secret_value())
    for provider in configuration.providers.values():
        yield from credentials(provider.base_url)
        yield from credentials(proxy_for(provider.base_url) or "")
    for value in settings.trace_headers.values():
        yield from (value, value.split()[-1])  # also without its "Bearer"
