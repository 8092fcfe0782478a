"""The sandbox as a server: control from other processes, what it records, start and end."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox
from sandbox.vendors import discover

BODY = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hello"}]}


def chat(sandbox: Sandbox, http: httpx.Client, key: str | None = None) -> httpx.Response:
    variables = sandbox.environment()
    headers = {"authorization": f"Bearer {key or variables['OPENAI_API_KEY']}"}
    url = f"{variables['OPENAI_BASE_URL']}/chat/completions"
    return http.post(url, json=BODY, headers=headers | {"x-request-id": "abc"})


def test_faults_by_http(sandbox: Sandbox, http: httpx.Client) -> None:
    """Another process scripts faults, reads what arrived, and resets."""
    script = {
        "vendor": "openai",
        "faults": [
            {"status": 429, "headers": {"retry-after": "1"}},
            {"reply": {"text": "Yes", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}},
        ],
    }
    assert http.post(f"{sandbox.url}/_sandbox/faults", json=script).status_code == 200
    assert chat(sandbox, http).headers["retry-after"] == "1"
    assert chat(sandbox, http).json()["choices"][0]["message"]["content"] == "Yes"
    received = http.get(f"{sandbox.url}/_sandbox/requests").json()
    assert received["anthropic"] == {"count": 0, "requests": []}
    assert received["openai"]["count"] == 2
    assert received["openai"]["requests"][0]["status"] == 429
    assert http.delete(f"{sandbox.url}/_sandbox").status_code == 200
    assert http.get(f"{sandbox.url}/_sandbox/requests").json()["openai"]["count"] == 0


def test_faults_by_http_forever(sandbox: Sandbox, http: httpx.Client) -> None:
    """`times: null` lasts until the reset."""
    script = {"vendor": "openai", "faults": [{"status": 500}], "times": None}
    http.post(f"{sandbox.url}/_sandbox/faults", json=script)
    assert [chat(sandbox, http).status_code for _ in range(3)] == [500, 500, 500]
    http.delete(f"{sandbox.url}/_sandbox")
    assert chat(sandbox, http).status_code == 200


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"nonsense", "body: Invalid JSON"),
        (b"[]", "body: Input should be an object"),
        (b'{"vendor": "openai"}', "faults: Field required"),
        (
            b'{"vendor": "acme", "faults": []}',
            f"no vendor 'acme'; there are {', '.join(discover())}",
        ),
        (b'{"vendor": "openai", "faults": [{"status": "x"}]}', "faults.0.status: "),
        (b'{"vendor": "openai", "faults": [{"sleep": 1}]}', "faults.0.sleep: Unexpected"),
        (b'{"vendor": "openai", "faults": [], "times": 0}', "times: "),
    ],
)
def test_bad_scripts(sandbox: Sandbox, http: httpx.Client, content: bytes, complaint: str) -> None:
    """A script that means nothing is a 400 that says what is wrong with it."""
    response = http.post(f"{sandbox.url}/_sandbox/faults", content=content)
    assert response.status_code == 400
    assert complaint in response.json()["error"]


def test_unknown_path(sandbox: Sandbox, http: httpx.Client) -> None:
    """Elsewhere the sandbox says what there is."""
    response = http.get(f"{sandbox.url}/v1/models")
    assert response.status_code == 404
    assert "/openai/v1" in response.json()["error"]
    assert "/_sandbox/faults" in response.json()["error"]


def test_unknown_path_of_a_vendor(openai_client: openai.OpenAI) -> None:
    """Below a vendor's prefix the vendor's own 404 answers."""
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        openai_client.get("/nowhere", cast_to=object)


def test_record_of_a_request(sandbox: Sandbox, http: httpx.Client) -> None:
    """What arrived is kept, but a key only as whose it was."""
    chat(sandbox, http)
    chat(sandbox, http, key="sk-a-real-secret")
    first, second = sandbox.requests("openai")
    assert first.body == BODY
    assert (first.method, first.path) == ("POST", "/chat/completions")
    assert first.headers["x-request-id"] == "abc"
    assert first.headers["authorization"] == "the sandbox's key"
    assert second.headers["authorization"] == "another key"
    assert first.arrived_at_seconds <= second.arrived_at_seconds
    record = http.get(f"{sandbox.url}/_sandbox/requests").text
    assert "sk-a-real-secret" not in record
    assert sandbox.environment()["OPENAI_API_KEY"] not in record
    assert json.loads(record)["openai"]["requests"][0]["body"] == BODY


def test_environment(sandbox: Sandbox) -> None:
    """The variables point at the stand-ins, save for a vendor that has its own base URL."""
    assert sandbox.environment() == {
        "ANTHROPIC_API_KEY": sandbox.environment()["ANTHROPIC_API_KEY"],
        "ANTHROPIC_BASE_URL": f"{sandbox.url}/anthropic",
        "GEMINI_API_KEY": sandbox.environment()["GEMINI_API_KEY"],
        "GEMINI_BASE_URL": f"{sandbox.url}/gemini",
        "OPENAI_API_KEY": sandbox.environment()["OPENAI_API_KEY"],
        "OPENAI_BASE_URL": f"{sandbox.url}/openai/v1",
        "OPENAI_COMPATIBLE_API_KEY": sandbox.environment()["OPENAI_COMPATIBLE_API_KEY"],
        "OPENAI_COMPATIBLE_BASE_URL": f"{sandbox.url}/openai_compatible/v1",
        "OPENAI_COMPATIBLE_INPUT_USD_PER_MTOK": "0.5",
        "OPENAI_COMPATIBLE_MODEL": "sandbox/some-model:8b",
        "OPENAI_COMPATIBLE_OUTPUT_USD_PER_MTOK": "1.5",
    }
    given = {
        "OPENAI_BASE_URL": "http://elsewhere",
        "OPENAI_COMPATIBLE_BASE_URL": "http://here",
        "GEMINI_BASE_URL": "http://there",
        "ANTHROPIC_API_KEY": "real",
    }
    assert sorted(sandbox.environment(given)) == ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"]


def test_many_at_once(sandbox: Sandbox, http: httpx.Client) -> None:
    """Simultaneous requests take each fault exactly once."""
    sandbox.script("openai", [Fault(status=500)] * 30)
    with ThreadPoolExecutor(20) as pool:
        statuses = [item.status_code for item in pool.map(lambda _: chat(sandbox, http), range(60))]
    assert sorted(statuses) == [200] * 30 + [500] * 30
    assert len(sandbox.requests("openai")) == 60


def test_unknown_vendor(sandbox: Sandbox) -> None:
    """A misspelt vendor is an error at once."""
    with pytest.raises(ValueError, match="no vendor 'opanai'"):
        sandbox.script("opanai", [])
    with pytest.raises(ValueError, match="no vendor"):
        sandbox.requests("opanai")


def test_end_drops_stalled_connections(http: httpx.Client) -> None:
    """A sandbox ends at once, whatever hangs on it, and listens no more."""
    with ThreadPoolExecutor(1) as pool:
        with Sandbox.in_thread() as sandbox:
            sandbox.script("openai", [Fault(action="stall")])
            stalled = pool.submit(chat, sandbox, http)
            while not sandbox.requests("openai"):
                time.sleep(0.001)
        with pytest.raises(httpx.TransportError):
            stalled.result(5)
    with pytest.raises(httpx.ConnectError):
        chat(sandbox, http)


def test_taken_port(sandbox: Sandbox) -> None:
    """A port that is taken is an error, and leaves no thread behind."""
    before = threading.active_count()
    taken = Sandbox.in_thread(port=int(sandbox.url.rsplit(":", 1)[1]))
    with pytest.raises(OSError, match="in use"), taken:
        pass
    assert threading.active_count() == before


def test_async_use() -> None:
    """Within an event loop a sandbox is started and closed."""

    async def use() -> None:
        sandbox = Sandbox()
        await sandbox.start()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{sandbox.url}/_sandbox/requests")).status_code == 200
            await sandbox.close()
            with pytest.raises(httpx.TransportError):
                await client.get(f"{sandbox.url}/_sandbox/requests")

    asyncio.run(use())
