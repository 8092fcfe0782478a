"""Drives marked secrets and prompts through a service, by every way a request can go wrong."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import quote

import httpx

from sandbox.faults import Action, Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from sandbox.vendors import ErrorName

from ..service.serving import WITHOUT_TLS, Service, eventually

CHAT = "/v1/chat/completions"

PROMPT = "quetzal"
"""In each prompt, in each of its lines."""
SECRET = "heron"
"""In each secret that may be chosen."""

PLAIN = "the quetzal sleeps at noon"
QUOTED = (
    "a quetzal \"says\":\n'quetzal' \\ and\tquetzal\u2013\u9ce5 <quetzal> & \u00e9\u00e8 quetzal"
)
IMAGE = f"data:image/png;base64,{PROMPT * 4}"

CALLERS = 120
REQUESTS = 8
"""Of one caller, before another takes its turn: below the limit, and within its budget."""
LAST_KEY = f"{SECRET}-key-of-caller{CALLERS - 1}"
METRICS_TOKEN = f"{SECRET}-token-of-prometheus"
ODD_KEY = f'{SECRET}-"odd"\\key/+ of <one>&'
RATE_LIMIT = 12
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)

LIMITS = {
    "SERVICE_API_KEYS": ",".join(
        [*(f"caller{n}:{SECRET}-key-of-caller{n}" for n in range(CALLERS)), f"odd:{ODD_KEY}"]
    ),
    "METRICS_TOKEN": METRICS_TOKEN,
    "RATE_LIMIT_REQUESTS": str(RATE_LIMIT),
    "DAILY_BUDGET_PER_CALLER_USD": "0.5",
    "MAX_OUTPUT_TOKENS": "1000",
    "MAX_INPUT_TOKENS": "8000",
    "MAX_BODY_BYTES": "200000",
    "FIRST_BYTE_TIMEOUT_SECONDS": "0.4",
    "IDLE_TIMEOUT_SECONDS": "0.4",
    "DEADLINE_SECONDS": "1.5",
    "STREAM_MAX_SECONDS": "0.8",
    "GRACE_PERIOD_SECONDS": "0.3",
    "MAX_ATTEMPTS": "1",
}

# What an owner may set: each failure opens the breaker, the next call finds out at once, and each
# alert is told.
POLICY = {
    "BREAKER_FAILURES": "1",
    "BREAKER_COOL_DOWN_SECONDS": "0.0",
    "MAX_STORED_REPLY_BYTES": "1_000",
    "ALERT_COOL_DOWN_SECONDS": "0.0",
    "ALERT_QUEUE": "10_000",
}


def faults(key: str) -> Iterator[Fault]:
    """Every kind there is; each says what the vendor knows, the prompt and its key."""
    said = f"{PLAIN} {QUOTED} {key}"
    reply = Reply(text=f"one two {PLAIN} three four five", chunks=8)
    yield Fault(reply=reply)
    for error in get_args(ErrorName):
        yield Fault(error=error, message=said)
    for status in STATUSES:
        yield Fault(status=status, message=said)
    for action in get_args(Action):
        for after in (None, 3):
            yield Fault(
                action=action,
                after_chunks=after,
                error="server_error" if action == "error_event" else None,
                message=said,
                drip_seconds=0.01 if action == "endless" else None,
                reply=reply,
            )
    yield Fault(html=True)
    yield Fault(status=502, body=f"<p>{said}", content_type="text/html")
    yield Fault(body=json.dumps({PLAIN: key, QUOTED: [key]}))
    yield Fault(body=said)
    yield Fault(status=429, headers={"retry-after": PLAIN, "x-note": f"{PLAIN} {key}"})
    yield Fault(status=302, body=said, headers={"location": f"/?key={key}&q={PROMPT}"})
    yield Fault(drip_seconds=0.1, reply=reply)


def question(text: str = PLAIN, **parameters: Any) -> dict[str, Any]:
    """A conversation with marks wherever a caller may put text."""
    arguments = json.dumps({"city": QUOTED, "why": PLAIN})
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    schema = {"type": "object", "properties": {"city": {"type": "string", "description": PLAIN}}}
    look = {"name": "look", "description": QUOTED, "parameters": schema}
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    return {
        "messages": [
            {"role": "system", "content": PLAIN},
            {"role": "user", "content": [{"type": "text", "text": QUOTED}, image]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": QUOTED},
            {"role": "user", "content": text},
        ],
        "tools": [{"type": "function", "function": look}],
        "max_tokens": 16,
        **parameters,
    }


@dataclass(slots=True)
class Driver:
    """A caller of many names. It keeps what it was answered, and under which codes."""

    service: Service
    sandbox: Sandbox
    answers: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        key = key or f"{SECRET}-key-of-caller{next(self._numbers) // REQUESTS}"
        headers = {"authorization": f"Bearer {key}", **headers}
        return httpx.Client(base_url=self.service.url, headers=headers, timeout=20, **WITHOUT_TLS)

    def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """From a caller that nobody was before."""
        key = arguments.pop("key", None)
        with self.client(key) as client:
            try:
                response = client.request(method, path, **arguments)
            except httpx.TransportError:
                # The service has broken it off, as it does with its own streams.
                return httpx.Response(500)
        self._keep(response)
        return response

    def ask(self, text: str = PLAIN, key: str | None = None, **parameters: Any) -> httpx.Response:
        return self.send("POST", CHAT, key=key, json=question(text, **parameters))

    def metrics(self) -> str:
        with self.client(METRICS_TOKEN) as client:
            return client.get("/metrics").text

    def other(self) -> str:
        """What another caller is answered, who has said nothing that is marked."""
        with self.client() as client:
            plain = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 16}
            headers = {"idempotency-key": "of-everyone"}
            answers = [client.post(CHAT, json=plain, headers=headers) for _ in range(2)]
            answers += [client.get(path) for path in ("/v1/models", "/readyz", "/openapi.json")]
        return "\n".join(answer.text for answer in answers)

    def _keep(self, response: httpx.Response) -> None:
        self.answers.append(f"{response.text}\n{response.headers!r}")
        for line in response.text.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                self.codes.add(json.loads(line.removeprefix("data: "))["error"]["code"])

    # The ways

    def vendors_fail(self, kinds: Callable[[str], Iterator[Fault]]) -> None:
        """Each vendor in every way, for a whole reply and for a stream; all at once."""

        def fail(vendor: str) -> None:
            key = self.service.environment.get(f"{vendor.upper()}_API_KEY", "")
            model = self._model_of(vendor)
            for fault, stream in itertools.product(kinds(key), (False, True)):
                before = len(self.sandbox.requests(vendor))
                self.sandbox.script(vendor, [fault])
                self.ask(model=model, stream=stream)
                assert len(self.sandbox.requests(vendor)) == before + 1, fault

        with ThreadPoolExecutor(len(self.sandbox.vendors)) as pool:
            list(pool.map(fail, self.sandbox.vendors))

    def nobody_answers(self) -> None:
        for vendor in self.sandbox.vendors:
            self.sandbox.script(vendor, [Fault(status=529, message=QUOTED)])
        self.ask()

    def requests_are_refused(self) -> None:
        """Each class of refusal that needs no failure."""
        for text in (PLAIN, QUOTED):
            self.ask(text, temperature=text)
            self.ask(text, model=text)
            self.ask(text, **{text: text})
            self.ask(text, logit_bias={text: 1})
            self.ask(text * 10_000)
            self.ask(f"{text} " * 2_000)
            self.send("POST", CHAT, json=text)
            self.send("POST", CHAT, json=[{text: text}])
            self.send("POST", CHAT, content=f'{{"{text}'.encode())
            self.send("POST", CHAT, content=b"\xff\xfe" + text.encode())
            self.send("POST", CHAT, data={"q": text})
            self.send("GET", f"/{quote(text)}", params={text: text})
            self.send("PUT", CHAT, json=question(text))
            self.send("POST", CHAT, json=question(text), key=f"{SECRET}-wrong-key {PROMPT}")
            self.send("GET", "/metrics", key=f"{SECRET}-wrong-token")
        # The budget of one caller, and the limit of one more.
        self.ask(max_tokens=1000)
        with self.client(LAST_KEY) as client:
            for _ in range(RATE_LIMIT + 1):
                self._keep(client.post(CHAT, json=question()))

    def keys_are_reused(self) -> None:
        """While the first is under way, with another body, and with a reply too large to keep."""
        vendor = self.sandbox.vendors[0]
        model = self._model_of(vendor)
        headers = {"idempotency-key": f"{PROMPT}-key"}
        self.sandbox.script(vendor, [Fault(delay_seconds=0.3, reply=Reply(text=PLAIN * 200))])
        body = question(model=model, max_tokens=400)
        with self.client(**headers) as client, ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, CHAT, json=body)
            time.sleep(0.1)
            self._keep(client.post(CHAT, json=body))
            self._keep(first.result())
            self._keep(client.post(CHAT, json=body))
            self._keep(client.post(CHAT, json=question(QUOTED, model=model)))

    def callers_leave(self) -> None:
        """A call, a stream, and in the middle of the body."""
        vendor = self.sandbox.vendors[0]
        model = self._model_of(vendor)
        slow = Reply(text=f"{PLAIN} " * 20, chunks=50, chunk_delay_seconds=0.01)
        self.sandbox.script(vendor, [Fault(delay_seconds=0.3), Fault(reply=slow)])
        with self.client() as client, suppress(httpx.TimeoutException):
            client.post(CHAT, json=question(model=model), timeout=0.1)
        with (
            self.client() as client,
            client.stream("POST", CHAT, json=question(model=model, stream=True)) as response,
        ):
            next(response.iter_lines())

        def half() -> Iterator[bytes]:
            yield json.dumps(question()).encode()[:200]
            raise OSError("gone")

        with self.client() as client, suppress(OSError):
            client.post(CHAT, content=half(), headers={"content-length": "5000"})

    def owners_routes_crash(self) -> None:
        for text in (PLAIN, QUOTED):
            for kind in ("raise", "logged", "behind", "later"):
                self.send("POST", f"/bugs/{kind}", json={"text": text})
            self.send("POST", "/halves", json={"text": text})
            self.send("POST", "/bugs/raise", json={"text": text, "number": text})
            self.send("POST", "/raw/raise", content=text.encode())
            self.send("POST", "/raw/logged", data={"text": text})
            self.send("POST", "/raw/raise", json=question(text))
            self.send("GET", f"/paths/{quote(text.splitlines()[-1], safe='')}", params={"q": text})
        self.send("POST", "/bugs/raise", json={"text": PLAIN}, key=ODD_KEY)
        time.sleep(0.4)

    def budget_is_spent(self) -> None:
        """Attempts of which nobody knows what they cost take all that is left."""
        for vendor in self.sandbox.vendors:
            self.sandbox.script(vendor, [Fault(status=500)], times=None)
        for number in range(2, 12):
            self.ask(max_tokens=450, key=f"{SECRET}-key-of-caller{CALLERS - number}")
        self.sandbox.reset()

    def store_is_gone(self, end: Callable[[], None]) -> None:
        end()
        for stream in (False, True):
            self.ask(stream=stream)
            self.ask(QUOTED, stream=stream)
        self.send("POST", "/bugs/raise", json={"text": PLAIN})

    def service_ends(self) -> None:
        """While a call is under way that is not done in time."""
        vendor = self.sandbox.vendors[0]
        model = self._model_of(vendor)
        self.sandbox.reset()
        self.sandbox.script(vendor, [Fault(action="stall", after_chunks=0)])
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(self.ask, model=model)
            eventually(lambda: self.sandbox.requests(vendor))
            time.sleep(0.05)
            self.service.signal(signal.SIGTERM)
            last.result()
        eventually(lambda: self.service.process.poll() is not None)

    def _model_of(self, vendor: str) -> str:
        with self.client() as client:
            ids: list[str] = [model["id"] for model in client.get("/v1/models").json()["data"]]
        return next(name for name in ids if name.startswith(f"{vendor}/"))
