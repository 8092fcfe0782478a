"""The shape of each fault on the wire, seen by a socket or by httpx."""

import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from sandbox.vendors import discover

Eventually = Callable[[Callable[[], bool]], None]
Raw = Callable[[bytes], socket.socket]

MODEL = "gemini-3.5-flash-lite"
PATHS = {
    "openai": "/openai/v1/chat/completions",
    "anthropic": "/anthropic/v1/messages",
    "gemini": f"/gemini/v1beta/models/{MODEL}:generateContent",
    "openai_compatible": "/openai_compatible/v1/chat/completions",
}
STREAM_PATHS = PATHS | {
    "gemini": f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
}
TEN = Reply(chunks=10)


def test_each_vendor_is_here() -> None:
    """A new one has its path above, and with it all that follows."""
    assert PATHS.keys() == discover().keys()


@pytest.fixture(params=list(PATHS))
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Client:
    """Speaks to all vendors: of the headers of the one none bothers another, save its key."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client) -> None:
        variables = sandbox.environment()
        self._http = http
        self._url = sandbox.url
        self._keys = {vendor: variables[f"{vendor.upper()}_API_KEY"] for vendor in PATHS}
        self._headers = {
            "x-api-key": variables["ANTHROPIC_API_KEY"],
            "anthropic-version": "2026-10-21",
            "x-goog-api-key": variables["GEMINI_API_KEY"],
        }

    def stream(
        self, vendor: str, timeout: float = 5, stream: bool = True
    ) -> AbstractContextManager[httpx.Response]:
        content = body(stream) | ({"max_tokens": 100} if vendor == "anthropic" else {})
        if vendor == "gemini":
            content = {"contents": [{"parts": [{"text": "Hello"}]}]}
        url = self._url + (STREAM_PATHS if stream else PATHS)[vendor]
        headers = {**self._headers, "authorization": f"Bearer {self._keys[vendor]}"}
        return self._http.stream("POST", url, json=content, headers=headers, timeout=timeout)

    def post(self, vendor: str) -> httpx.Response:
        with self.stream(vendor, stream=False) as response:
            response.read()
        return response


@pytest.fixture
def client(sandbox: Sandbox, http: httpx.Client) -> Client:
    return Client(sandbox, http)


def body(stream: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    extra = {"stream": True} if stream else {}
    return {"model": "claude-sonnet-5", "messages": messages, **extra}


def raw_post(sandbox: Sandbox, stream: bool = False) -> bytes:
    content = json.dumps(body(stream)).encode()
    key = sandbox.environment()["OPENAI_API_KEY"]
    head = f"POST {PATHS['openai']} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def text_of(response: httpx.Response) -> str:
    """Vendors end their lines in two ways."""
    return response.read().decode().replace("\r\n", "\n")


def message_of(response: httpx.Response) -> str:
    """Most vendors wrap what they say."""
    body = response.json()
    return str(body.get("error", body)["message"])


def words_in(text: str) -> list[str]:
    return [f"word{n}" for n in range(1, 11) if f'word{n}"' in text]


def test_faults_are_taken_in_order(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """Each request takes one fault, and then all is normal again."""
    sandbox.script(vendor, [Fault(status=500), Fault(status=429)])
    assert [client.post(vendor).status_code for _ in range(3)] == [500, 429, 200]
    assert [item.status for item in sandbox.requests(vendor)] == [500, 429, 200]


def test_vendors_do_not_share_faults(sandbox: Sandbox, client: Client) -> None:
    """A fault of one vendor leaves the other alone."""
    sandbox.script("openai", [Fault(status=500)])
    assert client.post("anthropic").status_code == 200
    assert client.post("openai").status_code == 500


def test_whose_answers_were_set_is_told(sandbox: Sandbox, client: Client) -> None:
    """Also when they were all given, up to the next reset; to answer as ever is no such thing."""
    client.post("anthropic")
    assert not sandbox.scripted
    sandbox.script("openai", [Fault(status=503)])
    client.post("openai")
    assert list(sandbox.scripted) == ["openai"]
    sandbox.reset()
    assert not sandbox.scripted


def test_faults_repeat(sandbox: Sandbox, client: Client) -> None:
    """A list is repeated as often as told, or until the reset."""
    sandbox.script("openai", [Fault(status=500)], times=2)
    sandbox.script("openai", [Fault(status=503), Fault(status=429)], times=None)
    statuses = [client.post("openai").status_code for _ in range(6)]
    assert statuses == [500, 500, 503, 429, 503, 429]
    sandbox.reset()
    assert client.post("openai").status_code == 200


def test_headers_and_message(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """Headers, message and status of an error can be set."""
    fault = Fault(error="overloaded", status=503, message="Busy", headers={"retry-after": "7"})
    sandbox.script(vendor, [fault])
    response = client.post(vendor)
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert message_of(response) == "Busy"


def test_delay(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A delay comes before the first byte."""
    sandbox.script(vendor, [Fault(delay_seconds=0.1)])
    started = time.monotonic()
    with client.stream(vendor) as response:
        assert time.monotonic() - started >= 0.1
        assert response.status_code == 200


def test_silence(sandbox: Sandbox, raw: Raw, eventually: Eventually) -> None:
    """The request is accepted and read, and nothing comes back."""
    sandbox.script("openai", [Fault(action="stall")])
    connection = raw(raw_post(sandbox))
    eventually(lambda: bool(sandbox.requests("openai")))
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    (request,) = sandbox.requests("openai")
    assert (request.status, request.complete, request.client_gone) == (None, False, False)
    connection.close()
    eventually(lambda: request.client_gone)


def test_reset_before_the_headers(sandbox: Sandbox, raw: Raw) -> None:
    """The connection ends with RST, not with a close."""
    sandbox.script("openai", [Fault(action="reset")])
    with pytest.raises(ConnectionResetError):
        raw(raw_post(sandbox)).recv(1)


def test_close_before_the_headers(sandbox: Sandbox, raw: Raw) -> None:
    """The connection is closed in good order without an answer."""
    sandbox.script("openai", [Fault(action="close")])
    assert read_all(raw(raw_post(sandbox))) == b""


def test_headers_then_silence(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """The headers come, the body does not."""
    sandbox.script(vendor, [Fault(action="stall", after_chunks=0)], times=2)
    for stream in (False, True):
        with client.stream(vendor, timeout=0.3, stream=stream) as response:
            assert response.status_code == 200
            with pytest.raises(httpx.ReadTimeout):
                response.read()


def test_stall_within_a_stream(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """Some chunks come, and then nothing more."""
    sandbox.script(vendor, [Fault(action="stall", after_chunks=4, reply=TEN)])
    received = ""
    with (
        client.stream(vendor, timeout=0.3) as response,
        pytest.raises(httpx.ReadTimeout),
    ):
        for text in response.iter_text():
            received += text
    assert len(words_in(received)) == 4


def test_drip(sandbox: Sandbox, raw: Raw) -> None:
    """The body comes byte by byte, each in its own time."""
    sandbox.script("openai", [Fault(status=500, body="abcd", drip_seconds=0.03)])
    connection = raw(raw_post(sandbox))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    started = time.monotonic()
    assert [connection.recv(10) for _ in range(4)] == [b"a", b"b", b"c", b"d"]
    assert time.monotonic() - started >= 0.09


def test_reset_within_the_body(sandbox: Sandbox, raw: Raw) -> None:
    """What was sent before a reset still arrives."""
    for stream in (True, False):
        sandbox.script("openai", [Fault(action="reset", after_chunks=4, reply=TEN)])
        connection = raw(raw_post(sandbox, stream))
        received = b""
        with pytest.raises(ConnectionResetError):
            while data := connection.recv(65536):
                received += data
        assert received.startswith(b"HTTP/1.1 200")
        assert len(words_in(received.decode())) == (4 if stream else 0)


def test_cut_with_a_whole_body(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A cut stream can look whole to HTTP: only the vendor's own end is missing."""
    sandbox.script(vendor, [Fault(action="end", after_chunks=4, reply=TEN)])
    with client.stream(vendor) as response:
        received = text_of(response)
    assert len(words_in(received)) == 4
    assert received.endswith("\n\n")
    assert "[DONE]" not in received
    assert "message_stop" not in received
    assert 'finish_reason":"' not in received
    assert "finishReason" not in received


def test_cut_without_an_end(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A closed connection leaves the body open, in JSON too."""
    sandbox.script(vendor, [Fault(action="close", after_chunks=4, reply=TEN)], times=2)
    with client.stream(vendor) as response, pytest.raises(httpx.RemoteProtocolError):
        response.read()
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(vendor)


def test_truncated_json(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A whole HTTP body can hold half a JSON document."""
    sandbox.script(vendor, [Fault(action="end", after_chunks=3)])
    response = client.post(vendor)
    assert response.status_code == 200
    assert len(response.content) == int(response.headers["content-length"]) == 48
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        response.json()


def test_malformed_event(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """One event is not JSON; those around it are, and the stream has its end."""
    sandbox.script(vendor, [Fault(action="garble", after_chunks=4, reply=TEN)])
    with client.stream(vendor) as response:
        received = text_of(response)
    whole, broken = [], 0
    events = received.strip().split("\n\n")
    for event in (event for event in events if not event.startswith(":")):
        data = event.split("data: ")[-1]
        try:
            assert data == "[DONE]" or json.loads(data)
            whole.append(data)
        except ValueError:
            broken += 1
    assert broken == 1
    assert words_in("".join(whole)) == [f"word{n}" for n in range(1, 11) if n != 5]
    assert any(end in received for end in ("[DONE]", "message_stop", "finishReason"))


def test_error_event(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """The error comes inside the 200, in the stream or in place of the JSON."""
    sandbox.script(
        vendor,
        [Fault(action="error_event", error="overloaded", after_chunks=4, reply=TEN)],
        times=2,
    )
    with client.stream(vendor) as response:
        received = response.read().decode()
    assert response.status_code == 200
    assert len(words_in(received)) == 4
    assert "overloaded" in received.lower()
    response = client.post(vendor)
    assert response.status_code == 200
    assert "overloaded" in message_of(response).lower()


def test_html_page(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A proxy's page has neither the vendor's format nor its content type."""
    sandbox.script(vendor, [Fault(html=True), Fault(html=True, status=200)])
    for status in (502, 200):
        response = client.post(vendor)
        assert response.status_code == status
        assert response.headers["content-type"] == "text/html"
        assert response.text.startswith("<html>")


def test_wrong_content_type(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A good body under a wrong content type."""
    sandbox.script(vendor, [Fault(content_type="text/plain")], times=2)
    assert client.post(vendor).headers["content-type"] == "text/plain"
    with client.stream(vendor) as response:
        assert response.headers["content-type"] == "text/plain"
        assert b"data: {" in response.read()


def test_body_of_ones_own(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """Any body can take the place of the vendor's."""
    sandbox.script(vendor, [Fault(body='{"choices": []}')])
    assert client.post(vendor).json() == {"choices": []}


@pytest.mark.parametrize("stream", [False, True])
def test_endless_body(
    sandbox: Sandbox, client: Client, vendor: str, stream: bool, eventually: Eventually
) -> None:
    """A body goes on for as long as somebody reads it."""
    sandbox.script(vendor, [Fault(action="endless", after_chunks=2, reply=TEN)])
    with client.stream(vendor, stream=stream) as response:
        received = "".join(islice(response.iter_text(), 30))
    assert len(received) > 1000
    (request,) = sandbox.requests(vendor)
    eventually(lambda: request.client_gone)


def test_pace(sandbox: Sandbox, client: Client, vendor: str) -> None:
    """A pause comes before each chunk of the model's output."""
    sandbox.script(vendor, [Reply(chunks=5, chunk_delay_seconds=0.02)])
    started = time.monotonic()
    with client.stream(vendor) as response:
        response.read()
    assert time.monotonic() - started >= 0.1


def test_client_that_leaves(sandbox: Sandbox, client: Client, eventually: Eventually) -> None:
    """A client that leaves a stream is noticed; one that hears the end has not left."""
    sandbox.script("openai", [Reply(chunks=100, chunk_delay_seconds=0.01)])
    with client.stream("openai") as response:
        next(response.iter_bytes())
    assert client.post("openai").status_code == 200
    left, heard = sandbox.requests("openai")
    eventually(lambda: left.client_gone)
    assert (left.complete, heard.complete, heard.client_gone) == (False, True, False)


def test_client_that_resets(sandbox: Sandbox, raw: Raw, eventually: Eventually) -> None:
    """A client that leaves with RST is noticed as well."""
    sandbox.script("openai", [Fault(delay_seconds=60)])
    connection = raw(raw_post(sandbox))
    eventually(lambda: bool(sandbox.requests("openai")))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    eventually(lambda: sandbox.requests("openai")[0].client_gone)


def test_connections_are_kept_alive(sandbox: Sandbox, raw: Raw) -> None:
    """One connection carries many requests, of which one may come early."""
    connection = raw(raw_post(sandbox) * 2)
    received = b""
    while received.count(b"HTTP/1.1 200") < 2 or not received.endswith(b"}"):
        received += connection.recv(65536)
    assert len(sandbox.requests("openai")) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 99},
        {"delay_seconds": -1},
        {"after_chunks": -1},
        {"action": "explode"},
        {"error": "no_such_error"},
        {"reply": {"chunks": 0}},
        {"colour": "red"},
    ],
)
def test_impossible_faults(wrong: dict[str, Any]) -> None:
    """A fault that means nothing is refused where it is written."""
    with pytest.raises(ValidationError):
        Fault(**wrong)
