"""Which source of a variable counts, what is wrong with a file, and whose name is misspelt."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.guardrails.environment.sources import (
    MAX_SECRET_BYTES,
    Found,
    Sources,
    Unusable,
    read_dotenv,
)

from .nobody import as_nobody

KEY, FILE = "OPENAI_API_KEY", "OPENAI_API_KEY_FILE"
NOWHERE = Path("/nowhere")

KNOWN = (
    "HOST",
    "PORT",
    "WORKERS",
    "PROVIDERS",
    "LOG_LEVEL",
    "SERVICE_API_KEYS",
    "DAILY_BUDGET_USD",
    "RATE_LIMIT_REQUESTS",
    "MAX_INPUT_TOKENS",
    "MAX_OUTPUT_TOKENS",
    "DEADLINE_SECONDS",
    "OPENAI_API_KEY",
    "OPENAI_API_KEY_FILE",
    "OPENAI_MODEL",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "DATABASE_URL",
    "SENTRY_DSN",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
MISSPELT = {
    "OPENAI_APIKEY": "OPENAI_API_KEY",
    "OPEN_AI_API_KEY": "OPENAI_API_KEY",
    "OPENAI_API_KEYS": "OPENAI_API_KEY",
    "OPENAI_API_KEY_FIEL": "OPENAI_API_KEY_FILE",
    "OPENAI_BASEURL": "OPENAI_BASE_URL",
    "ANTROPIC_API_KEY": "ANTHROPIC_API_KEY",
    "SERVICE_API_KEY": "SERVICE_API_KEYS",
    "RATE_LIMIT_REQUEST": "RATE_LIMIT_REQUESTS",
    "MAX_OUPUT_TOKENS": "MAX_OUTPUT_TOKENS",
    "DATABASE_URI": "DATABASE_URL",
    "DEADLINE_SECOND": "DEADLINE_SECONDS",
}
SHORTENED = {"DEADLINE": "DEADLINE_SECONDS", "DAILY_BUDGET": "DAILY_BUDGET_USD"}
OTHERS = re.findall(
    r"\w+",
    """
    OPENAI_ORG_ID OPENAI_PROJECT_ID OPENAI_API_TYPE OPENAI_API_VERSION OPENAI_API_BASE
    OPENAI_LOG OPENAI_MODEL_NAME OPENAI_API_KEY_2 OPENAI_ADMIN_KEY OPENAI_COMPATIBLE_API_KEY
    OPENAI_COMPATIBLE_MODEL AZURE_OPENAI_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL
    ANTHROPIC_VERTEX_PROJECT_ID GEMINI_API_KEY GOOGLE_API_KEY GROQ_API_KEY HOSTNAME HOSTS
    PORTS LOGNAME LOGLEVEL PROVIDER WORKER MAX_WORKERS MAX_TOKENS WEB_CONCURRENCY
    PORT_8000_TCP SERVICE_PORT SERVICE_HOST REDIS_URL DATABASE_HOST DATABASE_NAME
    POSTGRES_URL SENTRY_ENVIRONMENT SENTRY_RELEASE OTEL_EXPORTER_OTLP_LOGS_ENDPOINT
    OTEL_SERVICE_NAME OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_METRICS_ENDPOINT
    HOME PATH OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_PROTOCOL RATE_LIMIT
    ENVIRONMENT_NAME TZ
    """,
)


def sources(
    environment: Mapping[str, str] | None = None,
    dotenv: Mapping[str, str] | None = None,
    folder: Path = NOWHERE,
) -> Sources:
    return Sources(environment or {}, dotenv or {}, folder)


def find(given: Sources) -> Found | None:
    return given.find(KEY, is_secret=True)


def refusal(given: Sources) -> Unusable:
    with pytest.raises(Unusable) as refused:
        find(given)
    return refused.value


# Which counts


def test_the_process_comes_first(tmp_path: Path) -> None:
    """The environment counts before `.env`, that before a mounted file; each may name a file."""
    (tmp_path / "openai_api_key").write_text("mounted")
    (tmp_path / "named").write_text("named")
    path = str(tmp_path / "named")
    named, mounted = Found("named", FILE), Found("mounted", str(tmp_path))
    assert find(sources({KEY: "a"}, {KEY: "b"}, tmp_path)) == Found("a", "environment")
    assert find(sources({KEY: "a"}, {FILE: path}, tmp_path)) == Found("a", "environment")
    assert find(sources({FILE: path}, {KEY: "b"}, tmp_path)) == named
    assert find(sources({}, {KEY: "b"}, tmp_path)) == Found("b", ".env")
    assert find(sources({}, {FILE: path}, tmp_path)) == named
    assert find(sources({}, {}, tmp_path)) == mounted
    assert find(sources()) is None


@pytest.mark.promise("E2")
def test_an_empty_secret_is_as_good_as_none(tmp_path: Path) -> None:
    """Compose passes on variables that are empty: what has a value counts, wherever it is. Any
    other setting that is empty is so on purpose, or by mistake."""
    (tmp_path / "OPENAI_API_KEY").write_text("mounted")
    empty = Found("", "environment")
    assert find(sources({KEY: ""}, {KEY: "b"})) == Found("b", ".env")
    assert find(sources({KEY: ""}, {KEY: ""}, tmp_path)) == Found("mounted", str(tmp_path))
    assert find(sources({KEY: "", FILE: str(tmp_path / "OPENAI_API_KEY")})) == Found(
        "mounted", FILE
    )
    assert find(sources({KEY: "a", FILE: ""})) == Found("a", "environment")
    assert find(sources({KEY: "", FILE: ""}, {KEY: ""})) == empty
    assert sources({"PORT": ""}, {"PORT": "1"}).find("PORT", is_secret=False) == empty


def test_names_are_read_in_small_letters_too(tmp_path: Path) -> None:
    """As pydantic-settings has it: in each source, with what stands in capitals first."""
    (tmp_path / "OpenAI_API_Key").write_text("mounted")
    assert find(sources({KEY.lower(): "a"})) == Found("a", "environment")
    assert find(sources({KEY.lower(): "a", KEY: "b"})) == Found("b", "environment")
    assert find(sources(folder=tmp_path)) == Found("mounted", str(tmp_path))


def test_only_a_secret_is_read_from_a_file_of_any_name(tmp_path: Path) -> None:
    """`LOG_LEVEL_FILE` and its like may be another program's."""
    (tmp_path / "named").write_text("DEBUG")
    given = sources({"LOG_LEVEL_FILE": str(tmp_path / "named")})
    assert given.find("LOG_LEVEL", is_secret=False) is None


@given(st.text(" \n\r\t", max_size=3), st.text("abc.-+/=", min_size=1))
def test_blanks_around_a_secret_are_no_part_of_it(blanks: str, secret: str) -> None:
    """Editors and `echo` end a file with a line break."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "secret"
        path.write_text(blanks + secret + blanks, newline="")
        assert find(sources({FILE: str(path)})) == Found(secret, FILE)


# What is wrong with a file


def nothing(path: Path) -> None:
    pass


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def not_a_folder_before(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (nothing, "does not exist"),
    "folder": (Path.mkdir, "a folder"),
    "empty": (write(b""), "empty"),
    "blank": (write(b" \n\n"), "empty"),
    "not text": (write(b"\xff\xfe\x00"), "no UTF-8 text"),
    "too large": (write(b"x" * (MAX_SECRET_BYTES + 1)), "more than 64 KiB"),
    "pipe": (os.mkfifo, "no regular file"),
    "link to itself": (link_to_itself, "cannot be read"),
    "below a file": (not_a_folder_before, "cannot be read"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_is_none_is_named(tmp_path: Path, case: str) -> None:
    """Whatever is at the path, it is said what that is, and neither the path nor the content."""
    (tmp_path / "marked").mkdir()
    path = tmp_path / "marked" / "canary"
    make, what = UNUSABLE[case]
    make(path)
    refused = refusal(sources({FILE: str(path)}))
    assert refused.variable == FILE and what in refused.remedy
    assert "canary" not in str(refused) and "marked" not in str(refused)


@pytest.mark.parametrize("value", ["sk-marked\0", "marked" * 1000, "sk-marked", "~/marked"])
def test_a_secret_in_place_of_its_path_is_not_shown(value: str) -> None:
    """Who puts the key itself there is told that a path is wanted."""
    refused = refusal(sources({FILE: value}))
    assert "it takes a path" in refused.remedy and "marked" not in str(refused)


@pytest.mark.parametrize("variable", [FILE, KEY])
def test_a_file_that_may_not_be_read_is_named(variable: str) -> None:
    """The service is seldom root, and the secret's owner often is."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / KEY).write_text("marked")
        (folder / KEY).chmod(0o000)
        with as_nobody():
            given = sources({FILE: str(folder / KEY)} if variable == FILE else {}, folder=folder)
            refused = refusal(given)
    assert refused.variable == variable and "may not read" in refused.remedy


@pytest.mark.parametrize("layer", ["environment", "dotenv"])
def test_a_secret_that_is_there_twice_is_refused(tmp_path: Path, layer: str) -> None:
    """Nobody knows which of both is meant when one source has the value and a file's name."""
    refused = refusal(sources(**{layer: {KEY: "a", FILE: str(tmp_path / "b")}}))  # type: ignore[arg-type]
    assert str(refused) == f"{FILE} is set, and so is {KEY}; remove one"


def test_a_mounted_file_is_named_by_its_variable(tmp_path: Path) -> None:
    """So is one that is there in capitals and in small letters."""
    (tmp_path / KEY).mkdir()
    assert refusal(sources(folder=tmp_path)).variable == KEY
    assert find(sources({KEY: "a"}, folder=tmp_path)) == Found("a", "environment")
    (tmp_path / KEY.lower()).write_text("a")
    assert "twice" in refusal(sources(folder=tmp_path)).remedy


def test_a_mount_of_kubernetes_is_read(tmp_path: Path) -> None:
    """There the files are links into a folder that is replaced as a whole."""
    (tmp_path / "..2026_01_31").mkdir()
    (tmp_path / "..2026_01_31" / KEY).write_text("a\n")
    (tmp_path / "..data").symlink_to("..2026_01_31")
    (tmp_path / KEY).symlink_to(f"..data/{KEY}")
    assert find(sources(folder=tmp_path)) == Found("a", str(tmp_path))


def test_others_files_are_left_alone(tmp_path: Path) -> None:
    """Platforms mount their own secrets into the same folder."""
    (tmp_path / "kubernetes.io").mkdir()
    (tmp_path / "rhsm").symlink_to("nowhere")
    assert find(sources(folder=tmp_path)) is None


@pytest.mark.parametrize("content", [b"NAME=caf\xe9\n", "NAME=x\n".encode("utf-16")])
def test_a_dotenv_that_is_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    """It is refused by its name, not by a traceback."""
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(Unusable, match="cannot be read; save it as UTF-8"):
        read_dotenv(tmp_path / ".env")


def test_a_dotenv_may_come_from_another_editor(tmp_path: Path) -> None:
    """A byte order mark is no part of the first name, nor a line break of a value."""
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfHOST=a\r\nPORT\r\n# DOCS=1\r\n")
    assert read_dotenv(tmp_path / ".env") == {"HOST": "a"}


# Names


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_name_is_recognised(name: str) -> None:
    """In the environment and in `.env`, one letter more or less, or an underscore elsewhere."""
    for each in (sources({name: "x"}), sources({}, {name.lower(): "x"})):
        (found,) = each.misspelt(KNOWN)
        assert (found.name, found.right, found.is_close) == (name, MISSPELT[name], True)


@pytest.mark.parametrize("name", SHORTENED)
def test_a_forgotten_unit_is_recognised(name: str) -> None:
    """It is told apart: so short a name may well be another program's."""
    (found,) = sources({name: "x"}).misspelt(KNOWN)
    assert (found.right, found.is_close) == (SHORTENED[name], False)


def test_others_names_are_left_alone() -> None:
    """What SDKs, platforms and other services read is no mistake; nor is any of our own names."""
    given = sources(dict.fromkeys((*OTHERS, *KNOWN), "x"))
    assert list(given.misspelt(KNOWN)) == []
