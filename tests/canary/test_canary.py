"""No secret and no prompt leaves: by no line, alert, event, metric or answer, whatever goes wrong,
at any level, in either form of the log."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import redis

from app import errors
from sandbox.faults import Fault
from sandbox.server import Sandbox
from sandbox.stores import redis as redis_server

from ..matrix.combinations import read_axes
from ..rendering import render, take_snapshot
from ..service.receiving import SENTRY_KEY, Receiver
from ..service.serving import Project
from ..stores import stores_with_servers
from .driving import LIMITS, POLICY, PROMPT, QUOTED, SECRET, Driver, faults

# One process has the cases; two would have them twice.
pytestmark = pytest.mark.xdist_group("canary")

HERE = Path(__file__).parent
AXES = {axis.name: axis.values for axis in read_axes()}
STORE_PASSWORD = f'{SECRET}-p@ss/word:"of"+redis'


@dataclass(frozen=True, slots=True)
class Case:
    """A service, and how it logs. One of them meets every fault of every vendor."""

    framework: str
    storage: str
    level: str
    form: str
    meets_all: bool = False
    only_crashes: bool = False

    def __str__(self) -> str:
        return "-".join((self.framework, self.storage, self.level, self.form))


CASES = (
    Case("fastapi", "sqlite", "DEBUG", "json", meets_all=True),
    Case("litestar", "redis", "DEBUG", "text"),
    Case("quart", "postgres", "INFO", "json"),
    Case("django", "memory", "WARNING", "text"),
    Case("django", "redis", "ERROR", "json"),
)


def test_the_cases_have_each_choice_once() -> None:
    """Each framework, store, level and form of the log."""
    assert {case.framework for case in CASES} == set(AXES["framework"])
    assert {case.storage for case in CASES} == set(AXES["storage"])
    assert {case.level for case in CASES} == {"DEBUG", "INFO", "WARNING", "ERROR"}
    assert {case.form for case in CASES} == {"json", "text"}


@dataclass(slots=True)
class Emitted:
    """All that left the service, by where it went; `secrets` are what must be nowhere in it."""

    texts: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)

    def leaks(self) -> list[str]:
        """An excerpt of each place where something marked is. A caller may hear its own words."""
        found: list[str] = []
        for place, text in self.texts.items():
            marks = [*self.secrets, *([] if place == "answers" else [PROMPT])]
            for match in re.finditer("|".join(map(re.escape, marks)), text, re.IGNORECASE):
                around = text[max(0, match.start() - 120) : match.end() + 60]
                found.append(f"{match[0]} in {place}: ...{around}...")
        return found


Break = Callable[[Path], None]
Emit = Callable[[Case, Break | None], Emitted]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take_snapshot(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def emit(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Emit:
    """Renders a service with the owner's bugs in it, drives it once, and tells what it emitted."""

    @cache
    def emit(case: Case, edit: Break | None = None) -> Emitted:
        folder = tmp_path_factory.mktemp("case")
        root = folder / "service"
        choices = {"framework": case.framework, "storage": case.storage}
        render(template, root, {**choices, "providers": [*AXES["providers"]]})
        shutil.copyfile(HERE / "routes" / f"{case.framework}.py", root / "app" / "routes.py")
        shutil.copyfile(HERE / "bugs.py", root / "app" / "bugs.py")
        _set_policy(root / "app" / "policy.py")
        if edit is not None:
            edit(root)
        with ExitStack() as stack:
            sandbox = stack.enter_context(Sandbox.in_thread())
            webhook = stack.enter_context(Receiver.in_thread())
            sentry = stack.enter_context(Receiver.in_thread())
            store = stack.enter_context(ExitStack())
            variables = {
                **sandbox.environment(),
                **_place(case.storage, store, folder),
                **{f"{vendor.upper()}_INPUT_USD_PER_MTOK": "1" for vendor in sandbox.vendors},
                # 500 tokens are as much as a caller may spend.
                **{f"{vendor.upper()}_OUTPUT_USD_PER_MTOK": "1000" for vendor in sandbox.vendors},
                **LIMITS,
                "DAILY_BUDGET_USD": "30" if case.meets_all else "4",
                "ENVIRONMENT": "development",
                "LOG_LEVEL": case.level,
                "LOG_FORMAT": case.form,
                "ALERT_WEBHOOK_URL": webhook.url,
                "SENTRY_DSN": sentry.dsn,
            }
            with Project(root, variables, folder / "service.db").serve() as service:
                driver = Driver(service, sandbox)
                emitted = Emitted(secrets=list(_secrets(variables)))
                _drive(driver, case, store, emitted)
            emitted.texts |= {
                "log": service.output(),
                "webhook": "\n".join(webhook.messages),
                "sentry": json.dumps(sentry.events, ensure_ascii=False),
                "answers": "\n".join(driver.answers),
            }
            emitted.codes = driver.codes
        return emitted

    return emit


def _drive(driver: Driver, case: Case, store: ExitStack, emitted: Emitted) -> None:
    if case.only_crashes:
        driver.owners_routes_crash()
        return
    driver.vendors_fail(faults if case.meets_all else _few_faults)
    driver.nobody_answers()
    driver.requests_are_refused()
    driver.keys_are_reused()
    driver.callers_leave()
    driver.owners_routes_crash()
    emitted.texts["others"] = driver.other()
    emitted.texts["metrics"] = driver.metrics()
    if case.storage == "memory":
        driver.budget_is_spent()
    if case.storage in stores_with_servers():
        driver.store_is_gone(store.close)
        emitted.texts["others, without a store"] = driver.other()
    else:
        driver.service_ends()


def _few_faults(key: str) -> Iterator[Fault]:
    yield Fault(error="invalid_api_key", message=f"{QUOTED} {key}")
    yield Fault(action="garble", after_chunks=3)


def _set_policy(policy: Path) -> None:
    text = policy.read_text(encoding="utf-8")
    for name, value in POLICY.items():
        text, edits = re.subn(rf"(?m)^({name}: Final) = .*$", rf"\1 = {value}", text)
        assert edits == 1, name
    policy.write_text(text, encoding="utf-8")


def _place(storage: str, stack: ExitStack, folder: Path) -> dict[str, str]:
    """A store of its own, which ends with the stack; Redis' password is one that URLs quote."""
    match storage:
        case "redis":
            url = stack.enter_context(redis_server.serve())
            with redis.Redis.from_url(url) as client:
                client.config_set("requirepass", STORE_PASSWORD)
            address = urlsplit(url).netloc.rpartition("@")[2]
            return {"REDIS_URL": f"redis://:{quote(STORE_PASSWORD, safe='')}@{address}/0"}
        case other if server := stores_with_servers().get(other):
            return {server.VARIABLE: stack.enter_context(server.serve())}
        case _:
            return {"SQLITE_PATH": str(folder / "service.db")}


def _secrets(variables: Mapping[str, str]) -> Iterator[str]:
    yield from (SECRET, SENTRY_KEY, "the-key-of-the-webhook")
    yield from (value for name, value in variables.items() if name.endswith("_API_KEY"))
    for server in stores_with_servers().values():
        if password := urlsplit(variables.get(server.VARIABLE, "")).password:
            yield from (password, unquote(password))


@pytest.mark.promise("V7")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_marked_leaves(case: Case, emit: Emit) -> None:
    """Log, alerts, Sentry, metrics and other callers' answers hold neither secret nor prompt; what
    a caller is answered holds no secret."""
    emitted = emit(case, None)
    assert emitted.leaks() == []
    # It was there to be seen.
    assert PROMPT in emitted.texts["answers"]
    for place in ("log", "sentry"):
        assert "[prompt]" in emitted.texts[place] and "[secret]" in emitted.texts[place]
    for kind in ("unhandled_error", "uncaught_error", "providers_down", "breaker_open"):
        assert f"{kind}" in emitted.texts["webhook"] and f"{kind}" in emitted.texts["sentry"]


def test_each_error_was_met(emit: Emit) -> None:
    """Each class of error that a caller can be answered with, and each failure of a provider."""
    every = [emit(case, None) for case in CASES]
    codes = set[str]().union(*(emitted.codes for emitted in every))
    assert {kind.code for kind in _kinds_of(errors.ServiceError)} - codes == {
        # Bare classes, which others derive from or which have a code of their own each time.
        errors.Unavailable.code,
    }
    log = every[0].texts["log"]
    for kind in _kinds_of(errors.ProviderError) - {errors.ProviderError}:
        assert f'"outcome":"{kind.__name__}"' in log


def _kinds_of(root: type[Any]) -> set[type[Any]]:
    return {root}.union(*(_kinds_of(kind) for kind in root.__subclasses__()))


def _show_prompts(root: Path) -> None:
    _replace(root, "        if self._is_forgotten:\n            return text and WITHHELD\n", "")
    _replace(root, "if 1 not in marks:", "if True:")


def _show_secrets(root: Path) -> None:
    _replace(root, 'self._pattern.sub("[secret]", text) if self._pattern else text', "text")


@pytest.mark.promise("V7")
@pytest.mark.parametrize("edit", [_show_prompts, _show_secrets], ids=["prompts", "secrets"])
def test_the_canary_can_die(emit: Emit, edit: Break) -> None:
    """Without the one or the other it is seen in the log and at Sentry, and nowhere else anew."""
    emitted = emit(replace(CASES[-1], only_crashes=True), edit)
    mark = PROMPT if edit is _show_prompts else SECRET
    leaks = [leak for leak in emitted.leaks() if leak.startswith(mark)]
    assert any(" in log: " in leak for leak in leaks)
    assert any(" in sentry: " in leak for leak in leaks)


def _replace(root: Path, old: str, new: str) -> None:
    path = root / "app" / "guardrails" / "visibility" / "redaction.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
