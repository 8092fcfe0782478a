"""What is read of wrk, and what a program and its children take."""

import subprocess
import sys

import pytest

from benchmarks.guardrails import load, usage
from benchmarks.guardrails.load import Callers, LoadFailed, Measured

TOLD = """\
Running 2s test @ http://127.0.0.1:8000/v1/chat/completions
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    41.42ms   30.24ms 185.24ms   70.13%
    Req/Sec   311.20     76.10   450.00     65.00%
  610 requests in 2.01s, 512.40KB read
Requests/sec:    303.32
Transfer/sec:    254.79KB
"""
FIGURES = (
    '{{"requests": {requests}, "duration_us": 2011089, "p50_us": 41990, "p99_us": 185239,'
    ' "not_ok": {not_ok}, "broken": {broken}}}\n'
)


def told(requests: int = 610, not_ok: int = 0, broken: int = 0) -> str:
    return TOLD + FIGURES.format(requests=requests, not_ok=not_ok, broken=broken)


def test_figures_are_read_from_the_scripts_line() -> None:
    assert load.parse(told()) == Measured(610, 2.011089, 41.990, 185.239)


@pytest.mark.parametrize(("not_ok", "broken"), [(1, 0), (0, 1)])
def test_a_single_refusal_or_break_spoils_the_figures(not_ok: int, broken: int) -> None:
    """A service that refuses is quick."""
    with pytest.raises(LoadFailed, match=f"Of 610 .* {not_ok} were refused and {broken} were"):
        load.parse(told(not_ok=not_ok, broken=broken))


def test_no_request_is_no_figure() -> None:
    with pytest.raises(LoadFailed, match="Of 0 requests"):
        load.parse(told(requests=0))


def test_what_wrk_says_instead_of_figures_is_told() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:8000 Connection refused\n")


def test_callers_have_keys_of_their_own_and_share_what_else_they_say() -> None:
    callers = Callers(("one", "two"), {"X-Host": "http://127.0.0.1:80", "X-Kind": "a"})

    assert callers.arguments("p-") == ["one,two", "p-", "X-Host: http://127.0.0.1:80", "X-Kind: a"]
    first = callers.first()
    assert (first["authorization"], first["X-Kind"]) == ("Bearer one", "a")
    assert first["idempotency-key"] != callers.first()["idempotency-key"]


def test_a_service_knows_the_callers_that_ask_it() -> None:
    """As `SERVICE_API_KEYS` has them: a name and a key each."""
    known = dict(entry.split(":") for entry in load.callers().split(","))

    assert list(known.values()) == Callers().arguments("")[0].split(",")
    assert len(known) == 16


def test_without_wrk_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(LoadFailed, match="apt-get install wrk"):
        load.find_wrk()


def test_the_time_of_children_counts_also_when_they_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < {}: pass"
    child = f"{burn.format(0.1)}\nprint(flush=True); input()"
    program = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {burn.format(0.1)!r}])\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = usage.cpu_seconds(process.pid)
        process.communicate(b"\n")

    assert seconds >= 0.19  # the system counts in hundredths


@pytest.mark.skipif(not usage.cores(), reason="this system binds no process to cores")
def test_a_program_is_bound_to_the_cores_of_its_block() -> None:
    before = usage.cores()
    ask = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    with usage.bound_to(before[-1:]):
        told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout

    assert told.strip() == str(before[-1:])
    assert usage.cores() == before
