"""Environment: what the service needs to start, and how it says what is missing or wrong."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from app.__main__ import main
from app.configuration import load_configuration
from app.guardrails.environment import startup
from app.guardrails.environment.settings import Settings
from app.guardrails.environment.startup import Configuration, InvalidEnvironment, variable_name
from app.main import create_app
from app.service import Service
from app.variables import Variables
from app.wiring import ADAPTERS, Store
from tests.conftest import METRICS_TOKEN
from tests.running import ROOT, kept_port

Load = Callable[..., Configuration]
Problems = Callable[..., dict[str, str]]

PROVIDERS = {adapter.name: adapter.settings_type for adapter in ADAPTERS}
SETTINGS: tuple[type[Variables], ...] = (Settings, *PROVIDERS.values(), Store.settings_type)
BASE_URLS = {name: variable_name(kind, "base_url") for name, kind in PROVIDERS.items()}
KEYS = {name: variable_name(kind, "api_key") for name, kind in PROVIDERS.items()}
NEEDED = {
    name: [variable_name(kind, f) for f, info in kind.model_fields.items() if info.is_required()]
    for name, kind in PROVIDERS.items()
}
"""What a provider cannot do without: a key, or the address of a server and what it costs."""
MAY_BE_LOCAL = {name for name, kind in PROVIDERS.items() if kind.may_be_local}
"""One's own server may stand in the same cluster, without a certificate, or on this machine."""


def _variables() -> dict[str, tuple[type[Variables], str]]:
    return {variable_name(kind, name): (kind, name) for kind in SETTINGS for name in _fields(kind)}


def _fields(kind: type[Variables]) -> list[str]:
    return list(kind.model_fields)


@pytest.fixture
def load(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Loads the configuration from a good environment with these changes; None removes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "SECRETS_FOLDER", tmp_path / "secrets")
    for name in _variables():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):  # this machine's, which take long to read
        monkeypatch.delenv(name, raising=False)

    def load_with(**changes: str | None) -> Configuration:
        few = {"SERVICE_API_KEYS": "caller0:key-of-caller0"}
        for name, value in {**environment, **few, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_configuration()

    return load_with


@pytest.fixture
def problems(load: Load) -> Problems:
    """What is wrong with a good environment after these changes: variables and remedies."""

    def problems_with(**changes: str | None) -> dict[str, str]:
        try:
            load(**changes)
        except InvalidEnvironment as error:
            assert all(problem.variable in str(error) for problem in error.problems)
            return {problem.variable: problem.remedy for problem in error.problems}
        return {}

    return problems_with


# Everything at once, by name


def test_all_problems_are_listed_at_once(load: Load) -> None:
    """One start names every variable that is missing, malformed or out of range, and no value."""
    wrong = {
        "SERVICE_API_KEYS": "canary-without-a-name",
        "PORT": "canary",
        "LOG_LEVEL": "canary",
        "BUDGET_TIMEZONE": "Canary/Island",
        "TRUSTED_PROXY_CIDRS": "canary/8",
        "RATE_LIMIT_REQUESTS": "0",
        "DAILY_BUDGET_USD": "-98765.4321",
        "DEADLINE_SECONDS": "nan",
        "ALERT_WEBHOOK_URL": "canary://hook",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "canary:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer canary",
        f"{ADAPTERS[0].name.upper()}_BASE_URL": "canary",
        f"{ADAPTERS[0].name.upper()}_INPUT_USD_PER_MTOK": "-1",
    }
    needed = [variable for variables in NEEDED.values() for variable in variables]
    missing = [variable for variable in needed if variable not in wrong]
    with pytest.raises(InvalidEnvironment) as refused:
        load(**wrong, **dict.fromkeys(missing))
    text = str(refused.value)
    assert [name for name in (*wrong, *missing) if name not in text] == []
    assert "canary" not in text.lower() and "98765" not in text
    assert {problem.variable for problem in refused.value.problems} == {*wrong, *missing}


def test_a_mistyped_environment_is_one_problem(problems: Problems) -> None:
    """When nobody knows which environment is meant, only that is said."""
    assert set(problems(ENVIRONMENT="produktion")) == {"ENVIRONMENT"}


def test_the_app_factory_checks_too(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """Another server's factory ends with the same list, and without a traceback's help."""
    with pytest.raises(InvalidEnvironment) as refused:
        load(PORT="canary")
    with pytest.raises(SystemExit) as ended:
        create_app()
    assert ended.value.code == str(refused.value)


def test_a_configuration_shows_no_key(load: Load, environment: Mapping[str, str]) -> None:
    """Printing the settings shows neither the providers' keys nor the callers'."""
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:canary@example.com",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=canary",
    }
    shown = repr(load(METRICS_TOKEN=METRICS_TOKEN, **traces))
    keys = [value for name, value in environment.items() if name.endswith("_API_KEY")]
    secrets = [*keys, "key-of-caller0", METRICS_TOKEN, environment["ALERT_WEBHOOK_URL"], "canary"]
    assert [secret for secret in secrets if secret in shown] == []


def test_a_deadline_leaves_time_for_an_answer(problems: Problems) -> None:
    """Limits that contradict each other are refused."""
    assert "DEADLINE_SECONDS" in problems(DEADLINE_SECONDS="1", FIRST_BYTE_TIMEOUT_SECONDS="2")


def test_limits_that_another_makes_idle_are_named(problems: Problems) -> None:
    """A limit that is set and can never be reached is a mistake; a default like that is not."""
    idle = {
        "DAILY_BUDGET_PER_CALLER_USD": ("DAILY_BUDGET_USD", "3", "2"),
        "CONNECT_TIMEOUT_SECONDS": ("FIRST_BYTE_TIMEOUT_SECONDS", "4", "3"),
        "IDLE_TIMEOUT_SECONDS": ("STREAM_MAX_SECONDS", "70", "60"),
    }
    for variable, (limit, value, lower) in idle.items():
        assert set(problems(**{variable: value, limit: lower})) == {variable}
        assert problems(**{variable: lower, limit: lower}) == {}
        assert problems(**{variable: None, limit: lower}) == {}


def test_a_misspelt_name_is_named(problems: Problems, load: Load) -> None:
    """A name close to one that is missing is a problem; close to one that is set, or without its
    unit, a warning; and another program's is left alone."""
    for wanted in (variable for variables in NEEDED.values() for variable in variables):
        wrong = wanted.replace("_", "", 1) if wanted.count("_") > 1 else f"{wanted}S"
        refused = problems(**{wanted: None, wrong: "1"})
        assert set(refused) == {wrong} and f"did you mean {wanted}?" in refused[wrong]
        load(**{wrong: None})
    others = {
        f"{name.upper()}_{word}": "1" for name in PROVIDERS for word in ("ORG_ID", "API_KEY_2")
    }
    given = {**others, "HOSTNAME": "1", "RATE_LIMIT_REQUEST": "1", "DAILY_BUDGET": "1"}
    warnings = load(**given).warnings
    assert {warning.variable for warning in warnings} == {"RATE_LIMIT_REQUEST", "DAILY_BUDGET"}


def test_several_workers_need_a_shared_store(problems: Problems) -> None:
    """More than one process is refused where each would count for itself."""
    assert ("WORKERS" in problems(WORKERS="2")) is not Store.shared_between_processes


# Keys


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "  ",
        "sk-xxx",
        "sk-xxxxxxxxxxxx",
        "changeme",
        "CHANGE_ME",
        "your-key-here",
        "<your key>",
        "insert-key",
        "...",
        "TODO",
    ],
)
def test_missing_keys_and_placeholders_are_refused(problems: Problems, value: str | None) -> None:
    """What stands in examples is neither a key nor anything else that a provider needs; only a key
    that is not needed may be missing."""
    needed = {variable for variables in NEEDED.values() for variable in variables}
    given = needed | set(KEYS.values())
    expected = {variable for variable in given if variable in needed or value}
    assert set(problems(**dict.fromkeys(given, value))) == expected


def test_a_key_may_look_like_anything_else(problems: Problems) -> None:
    """A real key is taken although parts of it look like a placeholder."""
    assert problems(**dict.fromkeys(KEYS.values(), "sk-A8xxx-your-todo-17")) == {}


@pytest.mark.parametrize("entry", ["name", "name:", ":key-1234", "name:changeme", "a:same,b:same"])
def test_callers_keys_are_checked(problems: Problems, entry: str) -> None:
    """Each entry names one caller and a real key, and no key names two callers."""
    assert "SERVICE_API_KEYS" in problems(SERVICE_API_KEYS=entry)


def test_production_names_its_callers(problems: Problems) -> None:
    """In production nobody is served without a key unless that is said."""
    production = {"ENVIRONMENT": "production", "SERVICE_API_KEYS": ""}
    assert "SERVICE_API_KEYS" in problems(**production)
    assert "SERVICE_API_KEYS" not in problems(**production, ALLOW_ANONYMOUS="true")


def test_only_the_chosen_providers_need_keys(problems: Problems) -> None:
    """A provider that `PROVIDERS` leaves out may stay without a key and all else."""
    for name in PROVIDERS:
        others = [v for other in PROVIDERS if other != name for v in NEEDED[other]]
        assert problems(PROVIDERS=name, **dict.fromkeys(others)) == {}


def test_the_order_of_providers_is_checked(problems: Problems, load: Load) -> None:
    """`PROVIDERS` sets the order of fallback; unknown names and repeated ones are refused."""
    backwards = list(PROVIDERS)[::-1]
    assert list(load(PROVIDERS=" , ".join(backwards)).providers) == backwards
    for wrong in ("nobody", f"{backwards[0]},{backwards[0]}"):
        assert "PROVIDERS" in problems(PROVIDERS=wrong)


# Addresses


@pytest.mark.parametrize(
    "url", ["no url", "ftp://example.com", "https://", "https://[::1", "https://example.com?key=x"]
)
def test_addresses_are_parsed(problems: Problems, url: str) -> None:
    """What is no http(s) URL with a host is refused, in development too."""
    assert set(problems(**dict.fromkeys(BASE_URLS.values(), url))) == set(BASE_URLS.values())


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example.com/v1",
        "https://localhost/v1",
        "https://api.localhost",
        "https://127.0.0.1:8443",
        "https://[::1]/v1",
        "https://0.0.0.0",
    ],
)
def test_production_refuses_unsafe_addresses(problems: Problems, url: str) -> None:
    """A public vendor is reached by https and not on this machine; one's own server may be."""
    refused = problems(ENVIRONMENT="production", **dict.fromkeys(BASE_URLS.values(), url))
    for name, variable in BASE_URLS.items():
        assert (variable in refused) is (name not in MAY_BE_LOCAL)


def test_addresses_are_not_searched_for_words(problems: Problems) -> None:
    """A host that merely contains "localhost" is another host."""
    url = "https://localhost.example.com/127.0.0.1"
    refused = problems(ENVIRONMENT="production", **dict.fromkeys(BASE_URLS.values(), url))
    assert not refused.keys() & set(BASE_URLS.values())


def test_production_refuses_an_unsafe_webhook(problems: Problems) -> None:
    """Alerts leave by https too."""
    for url in ("http://hooks.example.com/T0/B1", "https://localhost/hook"):
        assert "ALERT_WEBHOOK_URL" in problems(ENVIRONMENT="production", ALERT_WEBHOOK_URL=url)
    for dsn in ("http://key-1234@sentry.example.com/1", "https://key-1234@localhost/1"):
        assert "SENTRY_DSN" in problems(ENVIRONMENT="production", SENTRY_DSN=dsn)


@pytest.mark.parametrize(
    "dsn", ["no dsn", "https://sentry.example.com/1", "https://canary@example.com/canary"]
)
def test_a_dsn_is_parsed(problems: Problems, dsn: str) -> None:
    """What is no address with a key and a project's number is refused, and not repeated."""
    refused = problems(SENTRY_DSN=dsn)
    assert set(refused) == {"SENTRY_DSN"} and "canary" not in refused["SENTRY_DSN"]
    assert problems(SENTRY_DSN="") == {}


def test_credentials_in_an_address_are_not_echoed(load: Load) -> None:
    """A refused URL is named by its variable: its password stays unsaid."""
    urls = {f"{name.upper()}_BASE_URL": "http://me:canary@example.com" for name in PROVIDERS}
    urls["ALERT_WEBHOOK_URL"] = "http://me:canary@example.com/hook"
    with pytest.raises(InvalidEnvironment) as refused:
        load(ENVIRONMENT="production", **urls)
    assert "ALERT_WEBHOOK_URL" in str(refused.value)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("proxy", ["socks5://me:canary@proxy.test:1080", "http://", "proxy:canary"])
def test_a_proxy_that_cannot_be_one_is_named(problems: Problems, proxy: str) -> None:
    """A proxy is http or https, and is judged where it stands before a provider; its credentials
    stay unsaid."""
    url = dict.fromkeys(BASE_URLS.values(), "https://models.example.com/v1")
    refused = problems(**url, HTTPS_PROXY=proxy, https_proxy=None)
    assert set(refused) == {"HTTPS_PROXY"} and "canary" not in refused["HTTPS_PROXY"]
    assert problems(**url, NO_PROXY="example.com", no_proxy=None) == {}


def test_certificates_that_are_not_there_are_named(problems: Problems, tmp_path: Path) -> None:
    """A path to authorities that vouches for nobody would fail each call, and never say why."""
    assert set(problems(SSL_CERT_FILE="/nowhere/ca.pem")) == {"SSL_CERT_FILE"}
    assert set(problems(SSL_CERT_FILE=None, SSL_CERT_DIR=str(tmp_path))) == {"SSL_CERT_DIR"}


def test_what_is_optional_needs_its_extra(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set without its libraries it would do nothing: the start says what to run."""
    extras = {variable: extra for variable, (extra, _) in startup.EXTRAS.items()}
    wanted = {
        "SENTRY_DSN": "https://key-1234@sentry.example.com/1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    }

    def with_library(name: str, **variables: str) -> dict[str, str]:
        monkeypatch.setattr(startup, "EXTRAS", {v: (e, name) for v, e in extras.items()})
        return problems(**variables)

    assert with_library("pytest", **wanted) == {}
    refused = with_library("a-library-that-is-not-here", **wanted)
    assert set(refused) == set(wanted) == set(extras)
    assert all(f"uv sync --extra {extras[name]}`" in what for name, what in refused.items())
    assert problems(**dict.fromkeys(wanted, "")) == {}


def test_traces_are_sent_in_one_way(problems: Problems) -> None:
    """Where the environment asks for gRPC, nothing would arrive."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    refused = problems(**endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert set(refused) == {"OTEL_EXPORTER_OTLP_PROTOCOL"}


# Prices


def test_a_model_without_a_price_is_refused(problems: Problems) -> None:
    """An unknown model would be free and no budget would hold: its price must be declared."""
    for name in PROVIDERS:
        prefix = name.upper()
        prices = [f"{prefix}_INPUT_USD_PER_MTOK", f"{prefix}_OUTPUT_USD_PER_MTOK"]
        unknown = {f"{prefix}_MODEL": "a-model-of-tomorrow"}
        refused = problems(**unknown, **dict.fromkeys(prices))
        assert all(variable in f"{refused}" for variable in prices)
        half = {prices[0]: "1", prices[1]: None}
        assert prices[1] in f"{problems(**unknown, **half)}"
        assert problems(**unknown, **dict.fromkeys(prices, "1.5")) == {}
        assert problems(**unknown, **dict.fromkeys(prices, "0")) == {}


def test_a_summary_model_must_be_fit_to_be_asked(problems: Problems) -> None:
    """It belongs to a provider that is asked, and has a price like any other."""
    for name in PROVIDERS:
        own = f"{name}/a-model-of-tomorrow"
        prices = ["SUMMARY_INPUT_USD_PER_MTOK", "SUMMARY_OUTPUT_USD_PER_MTOK"]
        refused = problems(SUMMARY_MODEL=own, **dict.fromkeys(prices))
        assert set(refused) == {"SUMMARY_MODEL"}
        assert all(variable in f"{refused}" for variable in prices)
        assert problems(SUMMARY_MODEL=own, **dict.fromkeys(prices, "0.1")) == {}
    for wrong in ("a-model", "/a-model", f"{next(iter(PROVIDERS))}/", "nobody/a-model"):
        refused = problems(SUMMARY_MODEL=wrong)
        assert set(refused) == {"SUMMARY_MODEL"}
        assert wrong not in f"{refused}"


# Shutdown


def test_only_production_waits_for_a_load_balancer(load: Load) -> None:
    """A developer's Ctrl-C is obeyed without delay, unless a delay is asked for."""
    told, empty = {"SHUTDOWN_DELAY_SECONDS": "1.5"}, {"SHUTDOWN_DELAY_SECONDS": ""}
    assert load(**told).service.delay_before_shutdown_seconds == 1.5
    development = load(**empty).service
    assert development.delay_before_shutdown_seconds == 0
    production = development.model_copy(update={"environment": "production"})
    assert production.delay_before_shutdown_seconds == 5


# Files


@pytest.fixture
def dotenv(load: Load, environment: Mapping[str, str], tmp_path: Path) -> Path:
    """A `.env` that holds the whole environment; the process' own holds nothing."""
    path = tmp_path / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    return path


def test_dotenv_is_read_in_development(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` fills in what the process' environment does not say, which comes first."""
    monkeypatch.setenv("RATE_LIMIT_REQUESTS", "7")
    configuration = load_configuration()
    assert configuration.service.rate_limit_requests == 7
    assert configuration.service.first_byte_timeout_seconds == 1
    assert list(configuration.providers) == list(PROVIDERS)


def test_dotenv_is_not_read_in_production(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Production gets real variables; a `.env` that lies about is said to be of no use."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(InvalidEnvironment) as refused:
        load_configuration()
    assert {variable for variables in NEEDED.values() for variable in variables} <= {
        problem.variable for problem in refused.value.problems
    }
    assert [warning.variable for warning in refused.value.warnings] == [".env"]
    assert "warning: is not read" in str(refused.value)


def test_secrets_may_be_files(load: Load, environment: Mapping[str, str], tmp_path: Path) -> None:
    """A key may come from a file of its name, as Docker and Kubernetes mount them."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for variable in KEYS.values():
        (secrets / variable.lower()).write_text("a-key-from-a-file\n")
    configuration = load(**dict.fromkeys(KEYS.values()))
    for name in PROVIDERS:
        key = configuration.providers[name].api_key
        assert key is not None and key.get_secret_value() == "a-key-from-a-file"


def test_a_variable_may_name_a_file(load: Load, problems: Problems, tmp_path: Path) -> None:
    """Each secret may stand in the file that `<NAME>_FILE` points at; a file that is none, and a
    secret that is there twice, are named, and neither the path nor what is in it."""
    (tmp_path / "canary").write_text("one:a-key-from-a-file\n")
    several = {"SERVICE_API_KEYS": None, "SERVICE_API_KEYS_FILE": str(tmp_path / "canary")}
    assert load(**several).service.named_keys == (("one", "a-key-from-a-file"),)
    for path in (tmp_path, tmp_path / "canary-that-is-not-there"):
        refused = problems(**{**several, "SERVICE_API_KEYS_FILE": str(path)})
        assert set(refused) == {"SERVICE_API_KEYS_FILE"} and "canary" not in str(refused)
    twice = problems(SERVICE_API_KEYS_FILE=str(tmp_path / "canary"))
    assert set(twice) == {"SERVICE_API_KEYS_FILE"}


def test_the_example_lists_exactly_the_settings() -> None:
    """`.env.example` has each variable once, and no other."""
    names = [name for name, _, _ in _example()]
    assert sorted(names) == sorted(_variables())


def test_the_example_shows_the_defaults() -> None:
    """A line of `.env.example` that is commented shows what holds without it."""
    for name, value, is_commented in _example():
        kind, field = _variables()[name]
        default = kind.model_fields[field].get_default()
        if name == "PROVIDERS":
            assert value.split(",") == list(PROVIDERS)
        elif is_commented and value:
            assert _read(kind, field, value) == default, name


def test_dotenv_stays_here() -> None:
    """Neither git nor a container image takes `.env` along."""
    for ignored in (".gitignore", ".dockerignore"):
        assert ".env" in (ROOT / ignored).read_text(encoding="utf-8").splitlines()


def _example() -> list[tuple[str, str, bool]]:
    """Names, values, and whether they are commented."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = re.findall(r"^(# )?([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE)
    return [(name, value, bool(comment)) for comment, name, value in lines]


def _read(kind: type[Variables], field: str, value: str) -> object:
    """What a setting is when its variable holds `value` and all others what they need."""
    values: dict[object, object] = {SecretStr: SecretStr("a key"), float: 1.0}
    others = {
        name: values.get(info.annotation, "https://example.com")
        for name, info in kind.model_fields.items()
        if info.is_required() and name != field
    }
    create: Callable[..., Variables] = kind
    return getattr(create(**others, **{field: value}), field)


# The check


def test_check_shows_every_setting(
    load: Load, environment: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m app --check` says that a good environment is good, and what is in effect from
    where, each variable once and no secret; it serves nothing."""
    load()
    assert main(["--check"]) == 0
    shown = capsys.readouterr().out
    rows = dict(re.findall(r"^  ([A-Z_]+) +(.*)$", shown, re.MULTILINE))
    assert "fit to serve" in shown and set(rows) == set(_variables())
    assert rows["DEADLINE_SECONDS"].split() == ["environment", "15"]
    assert rows["PORT"].split() == ["default", "8000"]
    assert rows["SERVICE_API_KEYS"].split() == ["environment", "set"]
    assert [value for value in _secrets(environment) if value in shown] == []


def test_check_says_what_is_wrong(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with another status and the list of problems, on the error output; a start ends
    just the same."""
    with pytest.raises(InvalidEnvironment) as refused:
        load(PORT="canary")
    for arguments in (["--check"], []):
        assert main(arguments) != 0
        assert capsys.readouterr() == ("", f"{refused.value}\n")


def test_check_speaks_json(
    load: Load, environment: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` says the same to machines, good or bad, on the standard output."""
    load()
    assert main(["--check", "--json"]) == 0
    text = capsys.readouterr().out
    assert [value for value in _secrets(environment) if value in text] == []
    good = json.loads(text)
    assert good["fit"] and good["problems"] == []
    assert {setting["variable"] for setting in good["settings"]} == set(_variables())
    with pytest.raises(InvalidEnvironment):
        load(PORT="canary")
    assert main(["--check", "--json"]) != 0
    bad = json.loads(capsys.readouterr().out)
    assert not bad["fit"] and [problem["variable"] for problem in bad["problems"]] == ["PORT"]


def _secrets(environment: Mapping[str, str]) -> list[str]:
    keys = [value for name, value in environment.items() if name.endswith("_API_KEY")]
    return [*keys, "key-of-caller0", environment["ALERT_WEBHOOK_URL"]]


def test_an_unreachable_store_is_refused(
    load: Load,
    environment: Mapping[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A store that does not answer is a problem like any other, unless there is none to reach."""
    with kept_port() as port:
        nobody = _unreachable(environment, tmp_path, port)
        load(**nobody)
        started = time.monotonic()
        status = main(["--check"])
        assert time.monotonic() - started < 10
    output = capsys.readouterr().err
    assert (status != 0) is (nobody != {})
    assert re.findall(rf"^  (\w+) +leads to no {Store.name} store", output, re.MULTILINE) == [
        *nobody
    ]


def _unreachable(environment: Mapping[str, str], folder: Path, port: int) -> dict[str, str]:
    """The store's address with nobody behind it; nothing for a store without an address."""
    (folder / "file").touch()
    changes: dict[str, str] = {}
    for field in _fields(Store.settings_type):
        name = variable_name(Store.settings_type, field)
        value = environment.get(name, "")
        if "://" in value:
            address = f"127.0.0.1:{port}"
            changes[name] = urlsplit(value)._replace(netloc=address, query="").geturl()
        elif value:
            changes[name] = str(folder / "file" / "service.db")
    return changes


# What production does not show


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Takes back what the service does to the loggers of the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("restored_logging")
def test_production_shows_docs_and_metrics_only_when_told(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In production /docs, /openapi.json and /metrics are not there unless settings say so."""
    # Nothing is counted here, and the encoding takes long to load.
    monkeypatch.setattr("app.service.TokenCounter", object)
    paths = ["/docs", "/openapi.json", "/metrics"]
    assert _statuses(load(), {"environment": "production"}, paths) == [404, 404, 404]
    told = {"environment": "production", "docs": True, "metrics_token": SecretStr(METRICS_TOKEN)}
    assert _statuses(load(), told, [*paths, f"/metrics {METRICS_TOKEN}"]) == [200, 200, 401, 200]


def _statuses(
    configuration: Configuration, settings: Mapping[str, Any], requests: Sequence[str]
) -> list[int]:
    """What a service with these settings answers to a path or a path and a key."""
    service = configuration.service.model_copy(update=settings)
    transport = httpx.ASGITransport(Service(replace(configuration, service=service)).app())

    async def get_all() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await get(client, *request.split()) for request in requests]

    async def get(client: httpx.AsyncClient, path: str, key: str = "") -> int:
        return (await client.get(path, headers={"authorization": f"Bearer {key}"})).status_code

    return asyncio.run(get_all())
