"""`python -m sandbox` in a process of its own, with a service that only tells what it was given."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = Path(__file__).parents[2] / "template"
SERVICE = """
import json, os, pathlib, time, urllib.request

def main(argv=None):
    told = dict(os.environ) | {"argv": argv}
    told["folder_exists"] = pathlib.Path(os.environ["SQLITE_PATH"]).parent.is_dir()
    url = os.environ["ANTHROPIC_BASE_URL"].replace("/anthropic", "/_sandbox/requests")
    told["sandbox_status"] = urllib.request.urlopen(url).status
    print("TOLD", json.dumps(told), flush=True)
    while "WAIT" in os.environ:
        time.sleep(0.01)
    return 3
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "app" / "__main__.py").write_text(SERVICE)
    return tmp_path


def start(service: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TEMPLATE), **variables}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "sandbox"],
        cwd=service,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def told_by(output: str) -> dict[str, Any]:
    line = next(line for line in output.splitlines() if line.startswith("TOLD "))
    told: dict[str, Any] = json.loads(line.removeprefix("TOLD "))
    return told


def test_runs_the_service(service: Path) -> None:
    """The service gets all that it needs, and its exit status is the sandbox's."""
    process = start(service)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (3, "")
    told = told_by(output)
    assert told["ENVIRONMENT"] == "development"
    assert told["SERVICE_API_KEYS"] == "demo:demo-key"
    assert told["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
    assert told["ANTHROPIC_API_KEY"].startswith("sandbox-")
    assert told["folder_exists"] is True
    assert told["sandbox_status"] == 200
    assert not Path(told["SQLITE_PATH"]).parent.exists()


def test_introduces_itself(service: Path) -> None:
    """A person is told where things are and can paste the commands."""
    output, _ = start(service, PORT="9999").communicate(timeout=20)
    assert (
        "curl http://127.0.0.1:9999/v1/chat/completions -H 'Authorization: Bearer demo-key'"
        in output
    )
    assert '/_sandbox/faults -d \'{"vendor": "anthropic"' in output


def test_no_real_key_comes_by_a_file(service: Path) -> None:
    """What the sandbox sets takes the place of the files that secrets may stand in, too."""
    named = {f"{name}_FILE": "/run/mine" for name in ("ANTHROPIC_API_KEY", "SERVICE_API_KEYS")}
    output, _ = start(service, **named).communicate(timeout=20)
    assert named.keys() & told_by(output).keys() == set()


def test_keeps_what_is_set(service: Path) -> None:
    """What the environment holds stays, but no real key is sent to a stand-in."""
    variables = {
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "OPENAI_API_KEY": "mine",
        "ANTHROPIC_API_KEY": "a-real-key",
        "SERVICE_API_KEYS": "me:my-own-key",
        "SQLITE_PATH": str(service / "mine.db"),
    }
    output, _ = start(service, **variables).communicate(timeout=20)
    told = told_by(output)
    changed = {name for name, value in variables.items() if told[name] != value}
    assert changed == {"ANTHROPIC_API_KEY"}
    introduction = output.split("TOLD")[0]
    assert "my-own-key" not in introduction
    assert "<a key of SERVICE_API_KEYS>" in introduction


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_ends_cleanly(service: Path, number: signal.Signals, status: int) -> None:
    """Ctrl-C and SIGTERM end the service and the stand-ins without a traceback."""
    process = start(service, WAIT="1")
    assert process.stdout is not None
    output = ""
    while "TOLD" not in output:
        output = process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (status, "")
    assert not Path(told_by(output)["SQLITE_PATH"]).parent.exists()


def test_refuses_production(service: Path) -> None:
    """In production nothing starts: one line, status 2."""
    process = start(service, ENVIRONMENT="Production")
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert output == ""
    assert errors == "The sandbox does not run with ENVIRONMENT=production.\n"
