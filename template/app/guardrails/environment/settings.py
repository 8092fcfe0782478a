"""The variables that every service has. What a provider or the store needs stands beside it.

Nothing is read at import: `startup.load` reads the environment when a service is created.
"""

import ipaddress
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator

from ...variables import Variables
from .values import check_http_url, check_sentry_dsn, is_placeholder, parse_headers

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def _split(value: object) -> object:
    """Comma-separated text becomes a tuple; blanks around and between are ignored."""
    if isinstance(value, str):
        return tuple(part for item in value.split(",") if (part := item.strip()))
    return value


def _not_a_placeholder(value: SecretStr) -> SecretStr:
    if is_placeholder(value.get_secret_value()):
        raise ValueError("is empty or a placeholder; set a real value or remove the line")
    return value


CommaSeparated = BeforeValidator(_split)
Secret = Annotated[SecretStr, AfterValidator(_not_a_placeholder)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dollars = Annotated[Decimal, Field(gt=0, le=Decimal(1_000_000), allow_inf_nan=False)]


LEAST_INPUT_TOKENS: Final = 16
_WITHIN: Final = {
    "daily_budget_per_caller_usd": "daily_budget_usd",
    "connect_timeout_seconds": "first_byte_timeout_seconds",
    "idle_timeout_seconds": "stream_max_seconds",
}
"""Limits that are reached only within others."""


class Settings(Variables):
    """Limits, timeouts and addresses. Each field is the variable of the same name in capitals."""

    environment: Literal["production", "development"] = Field(
        default="production",
        description="`production` or `development`. In development logs are readable, `.env` is"
        " read, and callers need no key while none is set.",
    )
    service_api_keys: Annotated[tuple[SecretStr, ...], CommaSeparated] = Field(
        default=(),
        description="Who may call: `name:key,name2:key2`. A name may have two keys, for"
        " rotation. Make a key with `python -c 'import secrets;"
        " print(secrets.token_urlsafe(32))'`. Without any, production needs `ALLOW_ANONYMOUS`.",
    )
    daily_budget_usd: Dollars = Field(
        default=Decimal(50),
        description="What all callers together may spend in a day, in dollars. Each call first"
        " sets its worst case aside, so that the budget is never crossed.",
    )
    daily_budget_per_caller_usd: Dollars = Field(
        default=Decimal(10), description="What one caller may spend in a day."
    )
    rate_limit_requests: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Requests that one caller may make in a window; no span of its length ever"
        " has more.",
    )
    rate_limit_window_seconds: float = Field(
        default=60, gt=0, le=86_400, allow_inf_nan=False, description="Length of that window."
    )
    max_input_tokens: int = Field(
        default=4000,
        ge=LEAST_INPUT_TOKENS,
        description="Longest input in tokens, for every model. History is trimmed to fit; what is"
        " still longer is refused.",
    )
    max_output_tokens: int = Field(
        default=1000,
        ge=1,
        description="Longest answer in tokens; a request that asks for more gets this much.",
    )
    max_history_messages: int = Field(
        default=10,
        ge=1,
        description="Messages kept of a conversation, system messages apart; older ones are"
        " summarised.",
    )
    summary_model: str | None = Field(
        default=None,
        description="Who summarises what is dropped of a conversation: `provider/model`, a cheaper"
        " one of a provider that has a key, asked with that provider's other settings. Default: who"
        " answers.",
    )
    summary_input_usd_per_mtok: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of a million of its input tokens in dollars, instead of the price"
        " list's; 0 is free.",
    )
    summary_output_usd_per_mtok: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of a million of its output tokens in dollars, instead of the price"
        " list's; 0 is free.",
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None,
        description="Where alerts go, in Slack's JSON format. The address is a secret.",
    )

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; `0.0.0.0` in a container."
    )
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Processes that serve.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="Least severity that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`.",
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None,
        description="`json` or `text`. Default: json in production, text in development.",
    )
    docs: bool = Field(
        default=False, description="Serve /docs and /openapi.json in production as well."
    )
    metrics_token: Secret | None = Field(
        default=None,
        description="Bearer token that opens /metrics. Without it production has no /metrics.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Serve callers without a key as well, told apart by address. Development"
        " does so by itself while no key is set.",
    )
    sentry_dsn: SecretStr | None = Field(
        default=None,
        description="Where Sentry takes alerts and unhandled errors (`uv sync --extra sentry`).",
    )
    trusted_proxy_cidrs: Annotated[tuple[IPNetwork, ...], CommaSeparated] = Field(
        default=(),
        description="Proxies whose `X-Forwarded-For` is believed, such as"
        " `10.0.0.0/8,192.168.1.7`.",
    )
    providers: Annotated[tuple[str, ...], CommaSeparated] = Field(
        default=(),
        description="Order of fallback. A provider that is left out is not asked and needs no key.",
    )
    connect_timeout_seconds: Seconds = Field(
        default=5,
        description="Longest way to a connection: name, TCP, proxy and TLS. It is part of the"
        " next one.",
    )
    first_byte_timeout_seconds: Seconds = Field(
        default=30,
        description="Longest wait for the first byte of an answer; raise it for slow models.",
    )
    idle_timeout_seconds: Seconds = Field(
        default=15, description="Longest silence within an answer."
    )
    deadline_seconds: Seconds = Field(
        default=90,
        description="Bound on a call with all its retries, waits and fallbacks; on a stream up"
        " to its first chunk.",
    )
    stream_max_seconds: Seconds = Field(
        default=600, description="Longest stream, once it has begun."
    )
    max_attempts: int = Field(
        default=3, ge=1, le=10, description="Attempts at each provider, the first one included."
    )
    shutdown_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="How long /readyz fails at shutdown while requests are still taken: longer"
        " than your load balancer needs to notice. Default: 5 in production, 0 in"
        " development.",
    )
    grace_period_seconds: Seconds = Field(
        default=30, description="How long requests under way may then take until they are cut off."
    )
    idempotency_ttl_seconds: Seconds = Field(
        default=300, description="How long a reply is kept for a repeat of its request."
    )
    idempotency_from_body: Literal["retries", "always", "off"] = Field(
        default="retries",
        description="When an equal body counts as a repeat although it has no"
        " `Idempotency-Key`: `retries` (an SDK says that it tries again), `always` or `off`.",
    )
    budget_timezone: str = Field(
        default="UTC",
        description="Time zone whose midnight ends the budget's day, such as `Europe/Berlin`.",
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=1_024,
        description="Longest request body in bytes.",
    )
    otel_exporter_otlp_endpoint: SecretStr | None = Field(
        default=None,
        description="Where traces go: the base URL of a collector that takes OTLP over HTTP."
        " Needs `uv sync --extra otel`.",
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        default=None,
        description="What the collector wants to see: `name=value,name2=value2`, percent-encoded.",
    )

    @field_validator("service_api_keys")
    @classmethod
    def _check_keys(cls, entries: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        keys: set[str] = set()
        for entry in entries:
            name, separator, key = entry.get_secret_value().partition(":")
            if not separator or not name or name != name.strip() or len(name) > 64:
                raise ValueError("must look like name:key,name2:key2")
            if is_placeholder(key):
                raise ValueError(
                    "holds an empty key or a placeholder; make one with"
                    " `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
                )
            if key in keys:
                raise ValueError("holds the same key twice; each key must name one caller")
            keys.add(key)
        return entries

    @field_validator("alert_webhook_url", "otel_exporter_otlp_endpoint", mode="after")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_http_url(url.get_secret_value())
        return url

    @field_validator("sentry_dsn", mode="after")
    @classmethod
    def _check_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None:
            check_sentry_dsn(dsn.get_secret_value())
        return dsn

    @field_validator("otel_exporter_otlp_headers", mode="after")
    @classmethod
    def _check_headers(cls, headers: SecretStr | None) -> SecretStr | None:
        if headers is not None:
            parse_headers(headers.get_secret_value())
        return headers

    @field_validator("summary_model")
    @classmethod
    def _check_summary_model(cls, name: str | None) -> str | None:
        if name is not None and not all(name.partition("/")):
            raise ValueError("must look like provider/model")
        return name

    @field_validator("budget_timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone; use a name such as UTC or Europe/Berlin") from None
        return name

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Variables and remedies. A limit that another makes idle is only wrong where somebody has
        set it: a default that no longer matters does no harm."""
        if self.deadline_seconds < self.first_byte_timeout_seconds:
            yield (
                "DEADLINE_SECONDS",
                "is below FIRST_BYTE_TIMEOUT_SECONDS; the first attempt could never use its time",
            )
        for field, limit in _WITHIN.items():
            if field in self.model_fields_set and getattr(self, field) > getattr(self, limit):
                remedy = f"is above {limit.upper()}, and would never count; lower it, or raise that"
                yield field.upper(), remedy

    def in_effect(self) -> dict[str, object]:
        """By field, what holds where the default depends on something else."""
        return {
            "log_format": "json" if self.logs_json else "text",
            "allow_anonymous": self.anonymous_allowed,
            "shutdown_delay_seconds": self.delay_before_shutdown_seconds,
        }

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def logs_json(self) -> bool:
        return self.log_format == "json" if self.log_format else self.is_production

    @property
    def delay_before_shutdown_seconds(self) -> float:
        """Nobody balances a developer's load, and who presses Ctrl-C does not want to wait."""
        if self.shutdown_delay_seconds is None:
            return 5.0 if self.is_production else 0.0
        return self.shutdown_delay_seconds

    @property
    def anonymous_allowed(self) -> bool:
        """Development without keys serves everyone; production only when told to."""
        return self.allow_anonymous or not (self.is_production or self.service_api_keys)

    @property
    def named_keys(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a caller's name and one of its keys."""
        pairs = (entry.get_secret_value().partition(":") for entry in self.service_api_keys)
        return tuple((name, key) for name, _, key in pairs)

    @property
    def trace_headers(self) -> dict[str, str]:
        """What is sent to the collector with each batch of traces."""
        headers = self.otel_exporter_otlp_headers
        return parse_headers(headers.get_secret_value()) if headers else {}

    @property
    def daily_budget_nano_usd(self) -> int:
        return int(self.daily_budget_usd * 10**9)

    @property
    def daily_budget_per_caller_nano_usd(self) -> int:
        return int(self.daily_budget_per_caller_usd * 10**9)


SECRETS_FOLDER = Path("/run/secrets")
