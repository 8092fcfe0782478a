"""What `python -m app`, with `--check` and without, says of its environment."""

import json
import re
import socket
import sys
from pathlib import Path

import pexpect
import pytest

from .conftest import Start, variables

COLOUR = re.compile(r"\x1b\[[0-9]*m")
MISTAKES: dict[str, str | None] = {
    "ENVIRONMENT": "production",
    "ALLOW_ANONYMOUS": "true",
    "OPENAI_API_KEY": None,
    "OPENAI_APIKEY": "sk-a-key-under-another-name",
    "OPENAI_BASE_URL": "http://me:a-password@gateway.example.com",
    "PROVIDERS": "openai,anthropics",
    "RATE_LIMIT_REQUESTS": "many",
    "DEADLINE_SECONDS": "20",
}
NAMED = [
    "RATE_LIMIT_REQUESTS",
    "PROVIDERS",
    "OPENAI_BASE_URL",
    "DEADLINE_SECONDS",
    "OPENAI_APIKEY",
]


def rows_of(text: str) -> dict[str, str]:
    """The first cell of each row of a table, and what stands beside it."""
    return dict(re.findall(r"^  ([A-Z][A-Z0-9_]*|\.env)  +(.*)$", text, re.MULTILINE))


@pytest.mark.promise("E1")
def test_a_boot_with_five_mistakes_lists_five(start: Start) -> None:
    """A start names each mistake once, whatever its kind, with what to do; no port is opened."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        # Taken, so that a start which came so far would say so.
        ended = start(**MISTAKES, PORT=str(probe.getsockname()[1]))
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("The environment has 5 problems; the service does not start.\n")
    assert list(rows_of(ended.stderr)) == NAMED
    assert "did you mean OPENAI_API_KEY?" in ended.stderr
    assert [
        value for value in ("sk-a", "many", "anthropics,", "a-password") if value in ended.stderr
    ] == []


@pytest.mark.promise("E5")
def test_check_and_start_say_the_same(start: Start) -> None:
    """`--check` refuses what a start refuses, in the same words; `--json` has the same content."""
    by_start, by_check, by_json = (
        start(*arguments, **MISTAKES) for arguments in ([], ["--check"], ["--check", "--json"])
    )
    assert (by_check.returncode, by_check.stderr) == (by_start.returncode, by_start.stderr)
    assert (by_json.returncode, by_json.stderr) == (2, "")
    document = json.loads(by_json.stdout)
    assert set(document) == {"fit", "problems", "warnings", "settings"}
    assert document["fit"] is False and document["settings"] == []
    told = {problem["variable"]: problem["remedy"] for problem in document["problems"]}
    assert told == rows_of(by_start.stderr)


@pytest.mark.promise("E5")
def test_a_fit_environment_is_shown_whole(start: Start, tmp_path: Path) -> None:
    """Each setting stands with its value in effect and its source, the same in both forms."""
    (tmp_path / "key").write_text("sk-ant-from-a-file\n")
    (tmp_path / ".env").write_text("MAX_ATTEMPTS=2\nMAX_ATTEMPT=1\n")
    changes = {
        "ANTHROPIC_API_KEY": None,
        "ANTHROPIC_API_KEY_FILE": "key",
        "OPENAI_BASE_URL": "https://me:a-password@gateway.example.com/v1",
        "TRUSTED_PROXY_CIDRS": " 10.0.0.0/8 , 192.0.2.1",
        "IDLE_TIMEOUT_SECONDS": "2.50",
    }
    shown, document = (
        start(*arguments, **changes) for arguments in (["--check"], ["--check", "--json"])
    )
    assert (shown.returncode, shown.stderr) == (document.returncode, document.stderr) == (0, "")
    problems, settings = shown.stdout.split("\n\n")[1:]
    assert rows_of(problems) == {
        "MAX_ATTEMPT": "warning: is read by nobody; did you mean MAX_ATTEMPTS?"
    }
    rows = {name: row.split(maxsplit=1) for name, row in rows_of(settings).items()}
    assert rows["ANTHROPIC_API_KEY"] == ["ANTHROPIC_API_KEY_FILE", "set"]
    assert rows["OPENAI_API_KEY"] == ["environment", "set"]
    assert rows["OPENAI_BASE_URL"] == ["environment", "set"]
    assert rows["METRICS_TOKEN"] == ["default", "unset"]
    assert rows["MAX_ATTEMPTS"] == [".env", "2"]
    assert rows["IDLE_TIMEOUT_SECONDS"] == ["environment", "2.5"]
    assert rows["TRUSTED_PROXY_CIDRS"] == ["environment", "10.0.0.0/8,192.0.2.1/32"]
    # What depends on the environment, and on the answers.
    assert rows["LOG_FORMAT"] == ["default", "text"]
    assert rows["ALLOW_ANONYMOUS"] == ["default", "true"]
    assert rows["PROVIDERS"] == ["default", "openai,anthropic"]
    assert rows["SHUTDOWN_DELAY_SECONDS"] == ["default", "0"]
    told = {setting.pop("variable"): setting for setting in json.loads(document.stdout)["settings"]}
    assert list(told) == list(rows)
    for name, setting in told.items():
        assert set(setting) == {"value", "source", "is_set", "is_secret"}
        word = setting["value"] or ("set" if setting["is_set"] else "unset")
        assert rows[name] == [setting["source"], word]
    assert not any(
        "sk-" in text or "a-password" in text for text in (shown.stdout, document.stdout)
    )


def test_a_limit_that_no_model_can_take_is_refused(start: Start) -> None:
    """An answer that leaves no room for a question in a model's window is a mistake, be it the
    price list or the owner who knows the window, unless the model is said to write less."""
    for changes, size, model in (
        ({"MAX_OUTPUT_TOKENS": "9000", "OPENAI_MODEL": "gpt-4"}, "8,192", "OPENAI_MODEL"),
        ({"ANTHROPIC_CONTEXT_WINDOW_TOKENS": "1015"}, "1,015", "ANTHROPIC_MODEL"),
    ):
        refused = start("--check", **changes)
        assert refused.returncode == 2
        assert rows_of(refused.stderr) == {
            "MAX_OUTPUT_TOKENS": f"leaves no room for an input in {size}, the context window of"
            f" {model}; lower it, or choose another model"
        }
        company = model.removesuffix("MODEL")
        assert start("--check", **changes, **{f"{company}MAX_OUTPUT_TOKENS": "99"}).returncode == 0


def test_a_limit_that_one_model_cannot_take_is_worth_a_warning(start: Start) -> None:
    """Each input is kept within its model's window, which may be shorter than MAX_INPUT_TOKENS; a
    model of which nobody knows the window is not judged."""
    prices = {f"OPENAI_{direction}_USD_PER_MTOK": "1" for direction in ("INPUT", "OUTPUT")}
    limits = {"MAX_INPUT_TOKENS": "7000", "MAX_OUTPUT_TOKENS": "2000", **prices}
    for changes, room in (
        ({"OPENAI_MODEL": "gpt-4"}, "6,192"),
        ({"OPENAI_MODEL": "gpt-4", "OPENAI_MAX_OUTPUT_TOKENS": "1192"}, None),
        ({"OPENAI_MODEL": "gpt-4", "OPENAI_CONTEXT_WINDOW_TOKENS": "9000"}, None),
        ({"OPENAI_MODEL": "gpt-4", "OPENAI_CONTEXT_WINDOW_TOKENS": "8999"}, "6,999"),
        ({"OPENAI_MODEL": "a-model-of-tomorrow"}, None),
    ):
        fit = json.loads(start("--check", "--json", **limits, **changes).stdout)
        assert fit["fit"] is True
        warned = {item["variable"]: item["remedy"] for item in fit["warnings"]}
        assert list(warned) == ["MAX_INPUT_TOKENS"] * (room is not None)
        assert f"is above {room}," in warned.get("MAX_INPUT_TOKENS", f"is above {room},")


def test_a_budget_below_one_answer_is_worth_a_warning(start: Start) -> None:
    """Each call sets its worst case aside, so that not even the first would be admitted."""
    prices = {
        f"{provider}_{direction}_USD_PER_MTOK": "1"
        for provider in ("OPENAI", "ANTHROPIC")
        for direction in ("INPUT", "OUTPUT")
    }
    budgets = {"DAILY_BUDGET_USD": "0.001", "DAILY_BUDGET_PER_CALLER_USD": "0.00099"}
    ended = start("--check", "--json", MAX_OUTPUT_TOKENS="1000", **prices, **budgets)
    warnings = json.loads(ended.stdout)["warnings"]
    assert {item["variable"] for item in warnings} == {"DAILY_BUDGET_PER_CALLER_USD"}
    assert "is below $0.001, the price of MAX_OUTPUT_TOKENS" in warnings[0]["remedy"]


@pytest.mark.promise("E4")
def test_an_outage_of_the_store_is_a_problem_like_any_other(start: Start, tmp_path: Path) -> None:
    """What keeps the store from being opened stands in the table and the document."""
    (tmp_path / "file").touch()
    place = {"SQLITE_PATH": "file/service.db"}
    by_start, by_json = start(**place), start("--check", "--json", **place)
    assert by_start.returncode == by_json.returncode == 2
    assert list(rows_of(by_start.stderr)) == ["SQLITE_PATH"]
    assert [item["variable"] for item in json.loads(by_json.stdout)["problems"]] == ["SQLITE_PATH"]


@pytest.mark.promise("E1")
def test_what_does_not_start_leaves_no_trace(start: Start, tmp_path: Path) -> None:
    """The store is not opened, and so not brought up to date, by a service that is not fit."""
    assert start("--check", PORT="eighty").returncode == 2
    assert not (tmp_path / "service.db").exists()
    assert start("--check").returncode == 0
    assert (tmp_path / "service.db").exists()


@pytest.mark.promise("E5")
def test_json_goes_with_the_check(start: Start) -> None:
    """A start has no other form, and says so instead of starting."""
    ended = start("--json")
    assert ended.returncode == 2 and "--json goes with --check" in ended.stderr


@pytest.mark.parametrize("told", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_only_a_terminal_has_colours_and_an_edge(
    rendered: Path, tmp_path: Path, told: dict[str, str | None]
) -> None:
    """There rows are broken where it ends; elsewhere a row is a line, for those who search."""
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "app", "--check"],
        cwd=str(tmp_path),
        env=variables(rendered, {"TERM": "xterm", **MISTAKES, **told}),
        dimensions=(40, 70),
        encoding="utf-8",
        timeout=60,
    )
    text = terminal.read().replace("\r\n", "\n")
    terminal.close()
    assert terminal.exitstatus == 2
    assert bool(COLOUR.search(text)) is (not told)
    plain = COLOUR.sub("", text)
    assert list(rows_of(plain)) == NAMED
    assert max(map(len, plain.splitlines())) <= 70
