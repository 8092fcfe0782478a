"""The variables that every service has. What a provider or the store needs stands beside it.

Nothing is read at import: `startup.load` reads the environment when a service is created.
"""

import ipaddress
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .values import check_http_url, is_placeholder

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


class Settings(BaseSettings):
    """Limits, timeouts and addresses. Each field is the variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        extra="ignore", hide_input_in_errors=True, frozen=True, env_ignore_empty=False
    )

    environment: Literal["production", "development"] = Field(
        default="production",
        description="`production`, or `development`: readable logs, and this file is read.",
    )
    service_api_keys: Annotated[tuple[SecretStr, ...], NoDecode, CommaSeparated] = Field(
        default=(),
        description="Who may call: `name:key,name2:key2`. A name may have two keys (rotation).",
    )
    daily_budget_usd: Dollars = Field(
        default=Decimal(50), description="What all callers together may spend in a day."
    )
    daily_budget_per_caller_usd: Dollars = Field(
        default=Decimal(10), description="What one caller may spend in a day."
    )
    rate_limit_requests: int = Field(
        default=100, ge=1, le=100_000, description="Requests that one caller may make in a window."
    )
    rate_limit_window_seconds: float = Field(
        default=60, gt=0, le=86_400, allow_inf_nan=False, description="Length of that window."
    )
    max_input_tokens: int = Field(
        default=4000, ge=16, description="Longest input, after trimming; a longer one is refused."
    )
    max_output_tokens: int = Field(
        default=1000, ge=1, description="Longest answer; a larger `max_tokens` is clamped to it."
    )
    max_history_messages: int = Field(
        default=10, ge=1, description="Messages kept of a conversation, system messages apart."
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None,
        description="Where alerts go (Slack's JSON format). A webhook's address is a secret.",
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severity that is logged."
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None, description="`json` or `text`; default: json in production, else text."
    )
    docs: bool = Field(
        default=False, description="Serve /docs and /openapi.json in production as well."
    )
    metrics_token: Secret | None = Field(
        default=None,
        description="Bearer token of /metrics; without it there is none in production.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Serve callers without a key, told apart by address (default in development).",
    )
    trusted_proxy_cidrs: Annotated[tuple[IPNetwork, ...], NoDecode, CommaSeparated] = Field(
        default=(), description="Proxies whose `X-Forwarded-For` is believed."
    )
    providers: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=(), description="Order of fallback; default: all, the primary one first."
    )
    connect_timeout_seconds: Seconds = Field(
        default=5, description="Longest wait for a connection to a provider."
    )
    first_byte_timeout_seconds: Seconds = Field(
        default=30,
        description="Longest wait for the first byte of an answer; raise for slow models.",
    )
    idle_timeout_seconds: Seconds = Field(
        default=15, description="Longest silence within an answer."
    )
    deadline_seconds: Seconds = Field(
        default=90, description="Bound on a call with all retries, waits and fallbacks."
    )
    stream_max_seconds: Seconds = Field(
        default=600, description="Longest stream, once it has begun."
    )
    max_attempts: int = Field(default=3, ge=1, le=10, description="Attempts at each provider.")
    shutdown_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="How long /readyz fails at shutdown while requests are still taken;"
        " default: 5 in production, else 0.",
    )
    grace_period_seconds: Seconds = Field(
        default=30, description="How long requests under way may then take until they are cut off."
    )
    idempotency_ttl_seconds: Seconds = Field(
        default=300, description="How long a reply is kept for a repeat of its request."
    )
    idempotency_from_body: Literal["retries", "always", "off"] = Field(
        default="retries",
        description="When an equal body counts as a repeat without `Idempotency-Key`:"
        " `retries` (an SDK says so), `always`, `off`.",
    )
    budget_timezone: str = Field(
        default="UTC", description="Time zone whose midnight ends the day."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1_024, description="Longest request body; a longer one is refused."
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

    @field_validator("alert_webhook_url", mode="after")
    @classmethod
    def _check_webhook(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_http_url(url.get_secret_value())
        return url

    @field_validator(
        "alert_webhook_url",
        "metrics_token",
        "log_format",
        "shutdown_delay_seconds",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("budget_timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone; use a name such as UTC or Europe/Berlin") from None
        return name

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
    def daily_budget_nano_usd(self) -> int:
        return int(self.daily_budget_usd * 10**9)

    @property
    def daily_budget_per_caller_nano_usd(self) -> int:
        return int(self.daily_budget_per_caller_usd * 10**9)


SECRETS_FOLDER = Path("/run/secrets")
