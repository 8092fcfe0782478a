"""Reads the whole environment at once and lists everything that is wrong with it, by name.

No message repeats a value: a rejected key or URL may be the real one with a typing error.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from ...providers.base import ProviderSettings
from ...storage.base import StoreSettings
from .network import certificate_problems, proxy_problem
from .settings import SECRETS_FOLDER, Settings
from .values import check_http_url, is_placeholder, production_problem

S = TypeVar("S", bound=BaseSettings)

DOTENV = Path(".env")


@dataclass(frozen=True, slots=True)
class Problem:
    """One variable and what to do about it."""

    variable: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable} {self.remedy}"


class InvalidEnvironment(Exception):
    """The service must not start. Its text names every variable and no value."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(
            f"The environment has {count} problem{'s' if count != 1 else ''};"
            f" the service does not start.\n{lines}"
        )


@dataclass(frozen=True, slots=True)
class Configuration:
    """A checked environment. `providers` is in the order of fallback."""

    service: Settings
    providers: Mapping[str, ProviderSettings]
    store: StoreSettings


Check = Callable[[Settings, Mapping[str, ProviderSettings]], Iterable[Problem]]


def load(
    provider_types: Mapping[str, type[ProviderSettings]],
    store_type: type[StoreSettings],
    checks: Iterable[Check] = (),
) -> Configuration:
    """Reads the process's environment and, in development, `.env` and `/run/secrets`.

    `provider_types` is in the default order of fallback. Each of `checks` sees the settings that
    are well formed, and stand-ins for the others. Raises `InvalidEnvironment` with every problem
    found.
    """
    problems: list[Problem] = []
    sources = _sources()
    service = _read(Settings, sources, problems)
    if service is not None and any(problem.variable == "ENVIRONMENT" for problem in problems):
        # Nobody knows which is meant; what only production asks for would be noise.
        service = service.model_copy(update={"environment": "development"})
    chain = _chain(service, provider_types, problems)
    providers = {
        name: settings
        for name in chain
        if (settings := _read(provider_types[name], sources, problems)) is not None
    }
    store = _read(store_type, sources, problems)
    malformed = {problem.variable for problem in problems}
    judged: list[Problem] = []
    for settings in providers.values():
        judged += _provider_problems(settings, service)
    judged += [Problem(*item) for item in certificate_problems()]
    if service is not None:
        judged += _service_problems(service)
        if service.is_production and store is not None:
            judged += [Problem(*item) for item in store.production_problems().items()]
        for check in checks:
            judged += check(service, providers)
    problems += [problem for problem in judged if problem.variable not in malformed]
    if problems or service is None or store is None:
        if DOTENV.is_file() and sources["_env_file"] is None:
            problems.append(Problem(".env", "is not read, since ENVIRONMENT is not development"))
        raise InvalidEnvironment(problems)
    return Configuration(service, providers, store)


def variable_name(settings_type: type[BaseSettings], field: str) -> str:
    """The environment variable behind a field."""
    return f"{settings_type.model_config.get('env_prefix', '')}{field}".upper()


def _sources() -> dict[str, Any]:
    """`.env` counts only where the process, or else the file itself, says development."""
    dotenv = dotenv_values(DOTENV) if DOTENV.is_file() else {}
    declared = os.environ.get("ENVIRONMENT") or dotenv.get("ENVIRONMENT")
    return {
        "_env_file": DOTENV if dotenv and declared == "development" else None,
        "_secrets_dir": SECRETS_FOLDER if SECRETS_FOLDER.is_dir() else None,
    }


def _read(settings_type: type[S], sources: dict[str, Any], problems: list[Problem]) -> S | None:
    """Stand-ins take the place of malformed variables, so that one start can judge all others."""
    try:
        return settings_type(**sources)
    except ValidationError as error:
        problems += _explain(settings_type, error)
        malformed = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    stand_ins = {name: _stand_in(settings_type.model_fields[name]) for name in malformed}
    try:
        return settings_type(**sources, **stand_ins)
    except ValidationError:
        return None


def _stand_in(field: FieldInfo) -> Any:
    if not field.is_required():
        return field.get_default()
    return 0.0 if field.annotation is float else "https://stand-in.invalid"


def _explain(settings_type: type[BaseSettings], error: ValidationError) -> Iterator[Problem]:
    explained: set[str] = set()
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        if field in explained:
            continue
        explained.add(field)
        remedy = "is not set" if item["type"] == "missing" else _lower_first(item["msg"])
        description = settings_type.model_fields[field].description if field else None
        hint = f" ({description.rstrip('.')})" if description and item["type"] == "missing" else ""
        yield Problem(variable_name(settings_type, field), f"{remedy}{hint}")


def _lower_first(message: str) -> str:
    bare = message.removeprefix("Value error, ")
    bare = bare.replace("Input should", "should").replace("Input must", "must")
    return bare[:1].lower() + bare[1:]


def _chain(
    service: Settings | None,
    provider_types: Mapping[str, type[ProviderSettings]],
    problems: list[Problem],
) -> tuple[str, ...]:
    """The providers to configure; all of them when the variable is not usable."""
    wanted = service.providers if service is not None else ()
    unknown = [name for name in wanted if name not in provider_types]
    if unknown:
        known = ", ".join(provider_types)
        problems.append(Problem("PROVIDERS", f"names a provider that is not one of: {known}"))
    if len(set(wanted)) < len(wanted):
        problems.append(Problem("PROVIDERS", "names a provider twice"))
    return tuple(dict.fromkeys(n for n in wanted if n in provider_types)) or tuple(provider_types)


def _provider_problems(settings: ProviderSettings, service: Settings | None) -> Iterator[Problem]:
    kind = type(settings)
    key = settings.api_key
    if key is not None and is_placeholder(key.get_secret_value()):
        yield Problem(variable_name(kind, "api_key"), "is empty or a placeholder; set the real key")
    if is_placeholder(settings.model):
        yield Problem(variable_name(kind, "model"), "is empty or a placeholder; name a model")
    try:
        check_http_url(settings.base_url)
    except ValueError as error:
        yield Problem(variable_name(kind, "base_url"), str(error))
        return
    if proxy := proxy_problem(settings.base_url):
        yield Problem(*proxy)
    if service is not None and service.is_production:
        problem = production_problem(settings.base_url, http_allowed=kind.may_be_local)
        if problem:
            yield Problem(variable_name(kind, "base_url"), problem)


def _service_problems(service: Settings) -> Iterator[Problem]:
    if service.deadline_seconds < service.first_byte_timeout_seconds:
        yield Problem(
            "DEADLINE_SECONDS",
            "is below FIRST_BYTE_TIMEOUT_SECONDS; the first attempt could never use its time",
        )
    if not service.is_production:
        return
    if not service.service_api_keys and not service.allow_anonymous:
        yield Problem(
            "SERVICE_API_KEYS",
            "is not set; name the callers (name:key), or set ALLOW_ANONYMOUS=true",
        )
    if service.alert_webhook_url is not None:
        problem = production_problem(service.alert_webhook_url.get_secret_value())
        if problem:
            yield Problem("ALERT_WEBHOOK_URL", problem)
