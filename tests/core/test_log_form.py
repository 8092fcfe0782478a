"""One form for whatever a process logs, be it the service's own or a library's."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "sk-a-secret-of-the-service"
LIBRARIES = ("uvicorn", "uvicorn.error", "asyncio", "aiohttp.client", "some.driver")
SPEAK = f"""
import asyncio, gc, logging, sys, warnings

from app.guardrails.visibility.redaction import Redactor
from app.guardrails.visibility.request_log import configure_logging

def configure():
    redact = Redactor([{SECRET!r}])
    return configure_logging(level="INFO", json=sys.argv[1] == "json", redact=redact)

configure()
logger = configure()
logger.info("started", key={SECRET!r})
for name in {LIBRARIES}:
    logging.getLogger(name).warning("%s says %s", name, {SECRET!r})
    logging.getLogger(name).debug("never mind")
logging.getLogger("uvicorn.access").info("GET /")
try:
    {{}}["missing"]
except KeyError:
    logging.getLogger("some.driver").exception("it failed")
warnings.warn("this is old")

async def forget():
    async def fail():
        raise LookupError({SECRET!r})
    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()

asyncio.run(forget())
"""


def written(form: str) -> str:
    """All output of a process in which everybody says something."""
    process = subprocess.run(
        [sys.executable, "-c", SPEAK, form],
        cwd=ROOT / "template",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return process.stdout


@pytest.fixture(scope="module")
def lines() -> list[dict[str, str]]:
    return [json.loads(line) for line in written("json").splitlines()]


@pytest.mark.promise("V1")
def test_libraries_write_json_too(lines: list[dict[str, str]]) -> None:
    """Each line is JSON that begins with time, level and event, with the library's name, once."""
    assert all(list(line)[:3] == ["time", "level", "event"] for line in lines)
    warned = [line["logger"] for line in lines if line["event"].endswith("says [secret]")]
    assert warned == list(LIBRARIES)
    assert [line for line in lines if line.get("logger") == "uvicorn.access"] == []
    assert not any("never mind" in line["event"] for line in lines)


@pytest.mark.promise("V2")
def test_warnings_and_lost_tasks_are_lines(lines: list[dict[str, str]]) -> None:
    """What Python prints by itself is a line as well, its stack within it."""
    (warning,) = [line for line in lines if line.get("logger") == "py.warnings"]
    assert warning["level"] == "warning" and "this is old" in warning["event"]
    (lost,) = [line for line in lines if "never retrieved" in line["event"]]
    assert (lost["level"], lost["logger"]) == ("error", "asyncio")
    assert lost["error_type"] == "LookupError" and "LookupError" in lost["stack"]
    (failed,) = [line for line in lines if line["event"] == "it failed"]
    assert failed["error_type"] == "KeyError" and failed["stack"].startswith('  File "')


@pytest.mark.promise("V1")
def test_people_read_all_in_one_form() -> None:
    """As text each line begins alike, without colour where nobody sees it; stacks stand below."""
    output = written("text")
    beginning = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[(info|warning|error) *\] \S")
    texts = ("started", *(f"{name} says [secret]" for name in LIBRARIES), "it failed")
    for text in (*texts, "this is old", "never retrieved"):
        (line,) = [line for line in output.splitlines() if text in line]
        assert beginning.match(line), line
    assert "\x1b" not in output
    assert re.findall(r"(?m)^(\w+): \[withheld", output) == ["KeyError", "LookupError"]
    assert SECRET not in output


def shown(form: str, **variables: str) -> str:
    """The same on a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAK, form],
        cwd=ROOT / "template",
        env={**os.environ, "TERM": "xterm", **variables},
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while piece := os.read(master, 65_536):
            seen += piece
    except OSError:
        pass  # So ends a terminal whose last writer has gone.
    os.close(master)
    assert process.wait() == 0
    return seen.decode()


def test_only_a_terminal_sees_colour() -> None:
    """As text, unless NO_COLOR is set; JSON never."""
    assert "\x1b[31m" in shown("text") or "\x1b[1;31m" in shown("text")
    assert "\x1b" not in shown("text", NO_COLOR="1")
    assert "\x1b" not in shown("json")
