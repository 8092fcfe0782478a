"""Reads the whole environment at once and lists everything that is wrong with it, by name.

No message repeats a value: a rejected key or URL may be the real one with a typing error.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ...providers.base import ProviderSettings
from ...storage.base import StoreSettings
from ...variables import Variables
from .network import certificate_problems, proxy_problem
from .prompts import NO_PROMPTS, Prompts
from .settings import SECRETS_FOLDER, Settings
from .sources import Sources, Unusable, read_dotenv
from .tables import Colour, Page
from .values import check_http_url, is_placeholder, key_problem, production_problem

S = TypeVar("S", bound=Variables)

DOTENV = Path(".env")
DEFAULT = "default"
NOT_SET = "is not set"
EXTRAS = {
    "SENTRY_DSN": ("sentry", "sentry-sdk"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("otel", "opentelemetry-exporter-otlp-proto-http"),
}
"""What is optional, and the library that it needs."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One variable and what to do about it. A warning keeps nothing from starting."""

    variable: str
    remedy: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.variable} {self.remedy}"

    def says_missing(self, variable: str) -> bool:
        return self.variable == variable and self.remedy.startswith(NOT_SET)


class InvalidEnvironment(Exception):
    """The service must not start. Its text names every variable and no value."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = tuple(dict.fromkeys(problems))
        self.problems = tuple(problem for problem in found if not problem.is_warning)
        self.warnings = tuple(problem for problem in found if problem.is_warning)
        super().__init__(self.problems, self.warnings)

    def __str__(self) -> str:
        return self.written(Page())

    def written(self, page: Page) -> str:
        """A table of what is wrong, fit for `page`."""
        count = len(self.problems)
        title = (
            f"The environment has {count} problem{'s' if count != 1 else ''};"
            " the service does not start."
        )
        return f"{title}\n\n{problem_table((*self.problems, *self.warnings), page)}"


def problem_table(problems: Iterable[Problem], page: Page) -> str:
    """A row for each, the warnings marked."""
    rows = [
        (p.variable, f"warning: {p.remedy}" if p.is_warning else p.remedy, p.is_warning)
        for p in problems
    ]
    return page.table(
        ("variable", "problem and what to do"),
        [row[:2] for row in rows],
        [Colour.WARNING if is_warning else Colour.PROBLEM for *_, is_warning in rows],
    )


@dataclass(frozen=True, slots=True)
class SettingInEffect:
    """`value` is written as its variable takes it; `None` for what is not set, and for a secret."""

    variable: str
    value: str | None
    source: str
    is_set: bool
    is_secret: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """A checked environment. `providers` is in the order of fallback; `sources` has the source of
    each variable that is set."""

    service: Settings
    providers: Mapping[str, ProviderSettings]
    store: StoreSettings
    sources: Mapping[str, str]
    warnings: tuple[Problem, ...] = ()
    prompts: Prompts = NO_PROMPTS

    def settings(self) -> Iterator[SettingInEffect]:
        """Every setting that counts. A URL that holds credentials is a secret as well."""
        depending = {**self.service.in_effect(), "providers": tuple(self.providers)}
        for settings in (self.service, *self.providers.values(), self.store):
            kind = type(settings)
            for field, info in kind.model_fields.items():
                value = getattr(settings, field)
                if settings is self.service:
                    value = depending.get(field, value)
                variable = variable_name(kind, field)
                text = written(value)
                is_secret = holds_secret(info.annotation) or _has_credentials(text)
                yield SettingInEffect(
                    variable,
                    None if is_secret else text,
                    self.sources.get(variable, DEFAULT),
                    text is not None,
                    is_secret,
                )


Check = Callable[[Settings, Mapping[str, ProviderSettings]], Iterable[Problem]]


def load(
    provider_types: Mapping[str, type[ProviderSettings]],
    store_type: type[StoreSettings],
    checks: Iterable[Check] = (),
) -> Configuration:
    """Reads the process's environment, the files that it names, those in `/run/secrets` and, in
    development, `.env`.

    `provider_types` is in the default order of fallback. Each of `checks` sees the settings that
    are well formed, and stand-ins for the others. Raises `InvalidEnvironment` with every problem
    found.
    """
    problems: list[Problem] = []
    dotenv = _dotenv(problems)
    reader = _Reader(Sources(os.environ, dotenv or {}, SECRETS_FOLDER), problems)
    service = reader.read(Settings)
    if service is not None and any(problem.variable == "ENVIRONMENT" for problem in problems):
        # Nobody knows which is meant; what only production asks for would be noise.
        service = service.model_copy(update={"environment": "development"})
    providers = {
        name: settings
        for name in _chain(service, provider_types, problems)
        if (settings := reader.read(provider_types[name])) is not None
    }
    store = reader.read(store_type)
    judged: list[Problem] = []
    for settings in providers.values():
        judged += _provider_problems(settings, service)
    judged += [Problem(*item) for item in certificate_problems()]
    if service is not None:
        judged += _service_problems(service)
        judged += _missing_extras(service)
        judged += _tracing_problems(service)
        if service.is_production and store is not None:
            judged += [Problem(*item) for item in store.production_problems().items()]
        for check in checks:
            judged += check(service, providers)
    problems += [problem for problem in judged if problem.variable not in reader.malformed]
    reader.name_misspelt((Settings, *provider_types.values(), store_type))
    wrong = [problem for problem in problems if not problem.is_warning]
    if wrong or service is None or store is None:
        if dotenv is None:
            remedy = "is not read, since ENVIRONMENT is not development"
            problems.append(Problem(str(DOTENV), remedy, is_warning=True))
        raise InvalidEnvironment(problems)
    return Configuration(service, providers, store, reader.sources, tuple(problems))


def summary_model(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> tuple[str, ProviderSettings] | None:
    """The provider that is asked for summaries, and its settings with `SUMMARY_MODEL` in them;
    `None` where who answers is asked. Raises `KeyError` for a provider that is none of these."""
    if settings.summary_model is None:
        return None
    name, _, model = settings.summary_model.partition("/")
    provider = providers[name]
    if model == provider.model:
        return name, provider
    # What is declared of the provider's own model is not true of another.
    its_own = {
        "model": model,
        "input_usd_per_mtok": settings.summary_input_usd_per_mtok,
        "output_usd_per_mtok": settings.summary_output_usd_per_mtok,
        "context_window_tokens": None,
        "max_output_tokens": None,
    }
    return name, provider.model_copy(update=its_own)


def variable_name(settings_type: type[Variables], field: str) -> str:
    """The environment variable behind a field."""
    return f"{settings_type.model_config.get('env_prefix', '')}{field}".upper()


def holds_secret(annotation: object) -> bool:
    """Whether a field of this type is a secret, or may hold some."""
    return annotation is SecretStr or any(map(holds_secret, get_args(annotation)))


def _dotenv(problems: list[Problem]) -> dict[str, str] | None:
    """What `.env` sets; `None` for one that does not count, as only development reads it: where the
    process, or else the file itself, says so."""
    declared = os.environ.get("ENVIRONMENT")
    if declared and declared != "development":
        return None if DOTENV.is_file() else {}
    try:
        dotenv = read_dotenv(DOTENV)
    except Unusable as error:
        problems.append(Problem(error.variable, error.remedy))
        return {}
    is_development = (declared or dotenv.get("ENVIRONMENT")) == "development"
    return dotenv if is_development or not dotenv else None


class _Reader:
    """Makes settings of what the sources hold, and takes down what is wrong.

    Stand-ins take the place of what is malformed, so that one start can judge all others.
    """

    def __init__(self, sources: Sources, problems: list[Problem]) -> None:
        self._sources = sources
        self._problems = problems
        self._wanted: set[str] = set()
        self.sources: dict[str, str] = {}
        self.malformed: set[str] = set()

    def read(self, settings_type: type[S]) -> S | None:
        values = self._find_all(settings_type)
        try:
            return settings_type(**values)
        except ValidationError as error:
            for field, problem in _explain(settings_type, error):
                self._problems.append(problem)
                self.malformed.add(problem.variable)
                values[field] = _stand_in(settings_type.model_fields[field])
        try:
            return settings_type(**values)
        except ValidationError:
            return None

    def name_misspelt(self, settings_types: Iterable[type[Variables]]) -> None:
        """A name close to one that is wanted and not set is a problem, in place of that one's. To
        any other it is a warning: it may be another program's, and nothing is amiss."""
        known = {name: variable for kind in settings_types for name, variable in _names(kind)}
        for found in self._sources.misspelt(known):
            variable = known[found.right]
            is_amiss = found.is_close and variable in self._wanted and variable not in self.sources
            if is_amiss:
                self._problems[:] = [p for p in self._problems if not p.says_missing(variable)]
            remedy = f"is read by nobody; did you mean {found.right}?"
            self._problems.append(Problem(found.name, remedy, is_warning=not is_amiss))

    def _find_all(self, settings_type: type[Variables]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field, info in settings_type.model_fields.items():
            variable = variable_name(settings_type, field)
            self._wanted.add(variable)
            try:
                found = self._sources.find(variable, is_secret=holds_secret(info.annotation))
            except Unusable as error:
                self._problems.append(Problem(error.variable, error.remedy))
                self.malformed.add(variable)
                values[field] = _stand_in(info)
                continue
            if found is not None:
                values[field] = found.value
                if found.value:
                    self.sources[variable] = found.source
                elif not info.is_required() and info.get_default() is None:
                    values[field] = None  # empty is as good as not set
        return values


def _stand_in(field: FieldInfo) -> Any:
    if not field.is_required():
        return field.get_default()
    return 0.0 if field.annotation is float else "https://stand-in.invalid"


def _explain(
    settings_type: type[Variables], error: ValidationError
) -> Iterator[tuple[str, Problem]]:
    """The first thing that is wrong with each field."""
    items: dict[str, ErrorDetails] = {}
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        items.setdefault(str(item["loc"][0]), item)
    for field, item in items.items():
        remedy = _lower_first(item["msg"])
        if item["type"] == "missing":
            remedy = f"{NOT_SET} ({_first_sentence(settings_type.model_fields[field])})"
        yield field, Problem(variable_name(settings_type, field), remedy)


def _first_sentence(field: FieldInfo) -> str:
    text = (field.description or "").replace("`", "")
    return text.partition(". ")[0].rstrip(".")


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
    if key is not None and (problem := key_problem(key.get_secret_value())):
        yield Problem(variable_name(kind, "api_key"), problem)
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
    yield from (Problem(*item) for item in service.contradictions())
    if not service.is_production:
        return
    if not service.service_api_keys and not service.allow_anonymous:
        yield Problem(
            "SERVICE_API_KEYS",
            f"{NOT_SET}; name the callers (name:key), or set ALLOW_ANONYMOUS=true",
        )
    alerts = {"ALERT_WEBHOOK_URL": service.alert_webhook_url, "SENTRY_DSN": service.sentry_dsn}
    for variable, url in alerts.items():
        if url is not None and (problem := production_problem(url.get_secret_value())):
            yield Problem(variable, problem)


def _missing_extras(service: Settings) -> Iterator[Problem]:
    for variable, (extra, library) in EXTRAS.items():
        if getattr(service, variable.lower()) is None:
            continue
        try:
            distribution(library)
        except PackageNotFoundError:
            yield Problem(
                variable,
                f"needs libraries that are not here; run `uv sync --extra {extra}`, or remove it",
            )


def _tracing_problems(service: Settings) -> Iterator[Problem]:
    if service.otel_exporter_otlp_endpoint is None:
        return
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        if os.environ.get(name) not in (None, "", "http/protobuf"):
            yield Problem(name, "must be http/protobuf, which is all that is spoken here")
    if proxy := proxy_problem(service.otel_exporter_otlp_endpoint.get_secret_value()):
        yield Problem(*proxy)


def _names(settings_type: type[Variables]) -> Iterator[tuple[str, str]]:
    """Each name that is read, with the variable that it is for."""
    for field, info in settings_type.model_fields.items():
        variable = variable_name(settings_type, field)
        yield variable, variable
        if holds_secret(info.annotation):
            yield f"{variable}_FILE", variable


def written(value: object) -> str | None:
    """A setting as its variable takes it."""
    match value:
        case None | ():
            return None
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case tuple():
            return ",".join(str(written(item)) for item in value)
        case _:
            return str(value)


def _has_credentials(text: str | None) -> bool:
    if text is None or "://" not in text:
        return False
    try:
        return "@" in urlsplit(text).netloc
    except ValueError:
        return True
