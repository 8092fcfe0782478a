"""Two processes on one store are replaced one after the other, while callers keep asking."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from .asking import body, calls
from .proxy import Instance, Proxy
from .serving import WITHOUT_TLS, Project, Service, eventually

STREAMING = 4
ASKING = 6
"""Callers at a time, of whom each waits for a stream or for a short answer."""
POLL_SECONDS = 0.5
"""Short answers come so often that many fall between two polls."""
SETTINGS = {
    "RATE_LIMIT_REQUESTS": "100000",
    "OPENAI_INPUT_USD_PER_MTOK": "1",
    "OPENAI_OUTPUT_USD_PER_MTOK": "2",
    # Some polls long, and ends between two of them.
    "SHUTDOWN_DELAY_SECONDS": "2.2",
}
# A stream takes 4 seconds, and so outlasts the delay.
REPLY = Reply(chunks=20, chunk_delay_seconds=0.2, input_tokens=100, output_tokens=20)
PRICE_NANO_USD = 100 * 1_000 + 20 * 2_000


@pytest.mark.promise("A8")
def test_a_rolling_restart_loses_no_request(project: Project, sandbox: Sandbox) -> None:
    """Under steady load, behind a proxy that obeys `/readyz`, every request is answered whole and
    asked of the provider once; nothing stays reserved, and everything is charged."""
    sandbox.script("openai", [Fault(delay_seconds=0.1, reply=REPLY)], times=None)
    with ExitStack() as stack, Proxy.in_thread(POLL_SECONDS) as proxy:

        def start() -> tuple[Service, Instance]:
            service = stack.enter_context(project.serve(**SETTINGS))
            instance = proxy.add(service.url)
            eventually(lambda: instance.ready)
            return service, instance

        replaced = [start(), start()]
        with steady_load(proxy) as answers:
            for service, instance in replaced:
                wait_for_answers(instance)
                wait_for_poll(instance)
                service.signal(signal.SIGTERM)
                assert service.process.wait(30) == 0
                proxy.remove(instance)
                _, successor = start()
                wait_for_answers(successor)
        assert Counter(answers) == {"whole": len(answers)}
        assert all(answered_after_the_signal(service) for service, _ in replaced)
        assert calls(sandbox) == len(answers)
        books = replaced[0][0].books
    assert books.balanced
    assert (books.open_operations, books.running_claims) == (0, 0)
    assert not any(reserved for _, reserved in books.counter.values())
    assert books.charged_nano_usd == len(answers) * PRICE_NANO_USD


def wait_for_answers(instance: Instance) -> None:
    so_far = instance.answered
    eventually(lambda: instance.answered >= so_far + ASKING + STREAMING, 30)


def wait_for_poll(instance: Instance) -> None:
    """After it the proxy believes for longest that the instance is ready."""
    so_far = instance.polls
    eventually(lambda: instance.polls > so_far)


@contextmanager
def steady_load(proxy: Proxy) -> Iterator[list[str]]:
    """Callers that ask again as soon as they have their answer. What they made of all their answers
    is in the list once the block has ended."""
    answers: list[str] = []
    enough = threading.Event()
    with ThreadPoolExecutor(ASKING + STREAMING) as pool:
        asking = [
            pool.submit(ask_steadily, proxy.url, number, number < STREAMING, enough)
            for number in range(ASKING + STREAMING)
        ]
        try:
            yield answers
        finally:
            enough.set()
        answers += answers_of(asking)


def answers_of(asking: list[Future[list[str]]]) -> Iterator[str]:
    for future in asking:
        yield from future.result()


def ask_steadily(url: str, number: int, stream: bool, enough: threading.Event) -> list[str]:
    headers = {"authorization": f"Bearer key-of-caller{number}", "connection": "close"}
    answers = []
    with httpx.Client(base_url=url, headers=headers, timeout=60, **WITHOUT_TLS) as client:
        while not enough.is_set():
            answers.append(ask(client, stream))
    return answers


def ask(client: httpx.Client, stream: bool) -> str:
    """`whole`, or what was wrong with the answer."""
    try:
        response = client.post("/v1/chat/completions", json=body(stream=stream))
    except httpx.HTTPError as error:
        return repr(error)
    text = response.text
    whole = "word20" in text and (not stream or text.endswith("data: [DONE]\n\n"))
    return "whole" if response.is_success and whole else f"{response.status_code}: {text[-300:]}"


def answered_after_the_signal(service: Service) -> int:
    """The model calls whose line came after the one that says that the service is to stop."""
    events = service.lines("stopping", "request")
    (stopping,) = (at for at, line in enumerate(events) if line["event"] == "stopping")
    return sum(line.get("provider") is not None for line in events[stopping:])
