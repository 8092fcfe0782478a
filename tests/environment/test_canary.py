"""Whatever is wrong with a secret or an address, nothing that is said of it shows its value."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.guardrails.environment import startup
from app.guardrails.environment.startup import Configuration, InvalidEnvironment, load
from app.guardrails.environment.tables import Page

from .every_setting import PROVIDERS, STORES, VARIABLES

MARK = "MARKED"
WRONG = (
    MARK,
    f"{MARK}:",
    f"sk-{MARK} cut in two",
    f"<{MARK}>",
    f"https://me:{MARK}@localhost/{MARK}?key={MARK}",
    f"http://me:{MARK}@127.0.0.1/{MARK}",
    f"https://{MARK}:{MARK}@host:{MARK}/",
    f"postgresql://me:{MARK}@localhost/name?{MARK}={MARK}",
    f"postgresql://me:{MARK}@localhost/name",
    f"redis://me:{MARK}@localhost:{MARK}",
    f"redis://me:{MARK}@localhost/{MARK}?{MARK}={MARK}",
    f"redis://me:{MARK}@127.0.0.1",
    f"a:{MARK},b:{MARK}",
    f"{MARK}\n{MARK}",
    f"é{MARK}",
)
ADDRESSES = {
    "REDIS_URL": f"rediss://me:{MARK}@redis.example.com",
    "DATABASE_URL": f"postgresql://me:{MARK}@db.example.com/name",
    "ALERT_WEBHOOK_URL": f"https://hooks.example.com/{MARK}",
    "SERVICE_API_KEYS": f"one:{MARK},two:{MARK}2",
    "METRICS_TOKEN": MARK,
    "SQLITE_PATH": "service.db",
    **{f"{name.upper()}_API_KEY": f"sk-{MARK}" for name in PROVIDERS},
    **{f"{name.upper()}_BASE_URL": f"https://me:{MARK}@example.com/v1" for name in PROVIDERS},
    "OPENAI_COMPATIBLE_MODEL": "a-model",
    "OPENAI_COMPATIBLE_INPUT_USD_PER_MTOK": "1",
    "OPENAI_COMPATIBLE_OUTPUT_USD_PER_MTOK": "1",
}

Load = Callable[[], Configuration]


@pytest.fixture(params=STORES)
def load_with(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Load:
    """Loads the settings of every provider, and of one store, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "SECRETS_FOLDER", tmp_path / "secrets")
    for name in (*VARIABLES, "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return lambda: load(PROVIDERS, STORES[request.param])


def said_of(load_with: Load) -> Iterator[str]:
    """All that can be printed of a start that is refused."""
    with pytest.raises(InvalidEnvironment) as refused:
        load_with()
    error = refused.value
    yield from (str(error), repr(error), error.written(Page(60, in_colour=True)))
    yield "".join(traceback.format_exception(error))


@pytest.mark.promise("E1", "V7")
@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("environment", ["production", "development", MARK])
def test_a_problem_shows_no_value(
    load_with: Load, monkeypatch: pytest.MonkeyPatch, environment: str, value: str
) -> None:
    """With the same nonsense in each variable, of every provider and store, none of it is said."""
    for name in VARIABLES:
        monkeypatch.setenv(name, value)
    for proxy in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(proxy, value)
    monkeypatch.setenv("ENVIRONMENT", environment)
    assert [text for text in said_of(load_with) if MARK in text] == []


@pytest.mark.parametrize("source", ["_FILE", ".env", "folder"])
def test_another_source_shows_none_either(
    load_with: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    """Nor is a path shown, in which somebody may have put the secret itself."""
    monkeypatch.setenv("ENVIRONMENT", "development")
    if source == ".env":
        lines = (f'{name}="{WRONG[4]}"\n' for name in VARIABLES if name != "ENVIRONMENT")
        (tmp_path / ".env").write_text("".join(lines))
    elif source == "folder":
        (tmp_path / "secrets").mkdir()
        for name in VARIABLES:
            (tmp_path / "secrets" / name).write_text(WRONG[4])
    else:
        for name in VARIABLES:
            monkeypatch.setenv(f"{name}_FILE", f"/nowhere/{MARK}")
    texts = list(said_of(load_with))
    assert [text for text in texts if MARK in text] == []
    secrets = [name for name in ADDRESSES if name.endswith(("_KEY", "_KEYS", "TOKEN", "HOOK_URL"))]
    named = [f"{name}_FILE" for name in secrets] if source == "_FILE" else ["PORT", "LOG_LEVEL"]
    assert [name for name in named if f"  {name} " not in texts[0]] == []


@pytest.mark.parametrize("environment", ["production", "development"])
def test_settings_in_effect_show_no_secret(
    load_with: Load, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """Neither printed nor listed does a fit configuration show a key, a token or an address with
    a password."""
    for name, value in ADDRESSES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENVIRONMENT", environment)
    configuration = load_with()
    listed = list(configuration.settings())
    assert MARK not in repr(listed) and MARK not in repr(configuration)
    hidden = {setting.variable for setting in listed if setting.is_secret and setting.is_set}
    assert hidden == {s.variable for s in listed if MARK in ADDRESSES.get(s.variable, "")}
