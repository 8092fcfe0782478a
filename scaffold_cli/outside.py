"""`scaffold check --url`: what can be seen of a running service from outside, without its code.

First everything is asked, then each item is judged by the answers. Without `probe` nothing that is
sent can become a call to a model: no body is JSON, and without a key it is to be refused unread.
What cannot be seen is said to be not seen; it is never a yes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.console import Console

from . import environment
from .check import Item, NotChecked, Report
from .errors import UsageError
from .visitor import Address, Answer, NoAnswer, Visitor, visiting

CHAT = "/v1/chat/completions"
NO_JSON = b"no JSON: this calls no model"
DECLARED_BYTES = 1_073_741_824
CALL_SECONDS = 120.0
"""A service gives an answer or says that it has none within 90 s, unless it is told otherwise."""
LONG_INPUT_TOKENS = 20_000
OUTPUT_TOKENS = 16
MOST_CALLS, FEWEST_CALLS = 4, 2
MAX_SHOWN = 200

_LIVE = ("/livez", "/readyz")
_CLOSED = ("/docs", "/openapi.json", "/metrics")
_TELLING = re.compile(r"\d|python|uvicorn|hypercorn|gunicorn|granian|daphne", re.IGNORECASE)
_SUM = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_STREAM_COST = re.compile(r"^: .*\bx-cost-usd=([0-9.]+)", re.MULTILINE)

WITH_KEY = "not seen without a key (--api-key-env)"
WITH_PROBE = "not seen without a model call (--probe)"
INSIDE = "not seen from outside"


class No(Exception):
    """It was seen not to be so."""


class NotSeen(Exception):
    """It could not be seen; that is no verdict."""


@dataclass(slots=True)
class Seen:
    """What was asked under which name, and what came of it."""

    address: Address
    request_id: str
    asked: dict[str, Answer | NoAnswer] = field(default_factory=dict)
    has_key: bool = False

    def answer(self, name: str) -> Answer:
        """Raises `NotSeen` for what was not asked, `No` where no answer came."""
        if name not in self.asked:
            raise NotSeen(WITH_PROBE if self.has_key or name in PROBES else WITH_KEY)
        answer = self.asked[name]
        if isinstance(answer, NoAnswer):
            raise No(f"{name}: {answer}")
        return answer

    @property
    def answers(self) -> dict[str, Answer]:
        return {name: answer for name, answer in self.asked.items() if isinstance(answer, Answer)}

    @property
    def of_the_service(self) -> list[Answer]:
        """Those that no proxy before it is likely to have given in its place."""
        return [
            answer
            for name, answer in self.answers.items()
            if answer.headers and (name not in (*_LIVE, *_CLOSED) or answer.status == 200)
        ]


PROBES = ("call", "repeat", "long", "stream")


def read_key(variable: str) -> str:
    """The key in the environment variable of this name. Raises `UsageError`, never quoting either:
    who mistakes the one for the other has put the key there."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            "--api-key-env takes the name of an environment variable that has a key in it, and"
            " there is none of the name that was given; the key itself is for no command line"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("the variable that --api-key-env names has no API key in it: set it anew")
    return key


def examine(url: str, key: str | None, console: Console, *, probe: bool) -> Report:
    """Ask the service at `url`, and judge it. Raises `NotChecked` where no such service answers,
    `UsageError` for a URL or a key that will not do."""
    address = Address.parse(url)
    if key is not None and not (address.is_encrypted or address.is_loopback):
        raise UsageError(
            "a key is not sent over plain HTTP: give an https:// URL, or reach the service through"
            " a tunnel that ends on this machine (ssh -L, kubectl port-forward)"
        )
    if probe:
        console.print(
            f"--probe makes {MOST_CALLS} model calls at most, {FEWEST_CALLS} where the guardrails"
            " hold; what they have cost is told at the end."
        )
    with environment.progress(f"Asking {address.url}", console):
        seen = asyncio.run(_look(address, key, probe))
    return _report(seen, key, probe)


# What is asked


async def _look(address: Address, key: str | None, probe: bool) -> Seen:
    seen = Seen(address, f"scaffold-check-{secrets.token_hex(8)}", has_key=key is not None)
    async with visiting(address) as visitor:
        await _ask_as_stranger(visitor, seen)
        if key is not None:
            await _ask_with_key(visitor, seen, key)
            if probe:
                await _call_models(visitor, seen, key)
    return seen


async def _ask_as_stranger(visitor: Visitor, seen: Seen) -> None:
    with_id = {"x-request-id": seen.request_id}
    try:
        seen.asked["/livez"] = await visitor.ask("GET", "/livez")
    except NoAnswer as reason:
        raise NotChecked(f"{seen.address.url}: {reason}; start it, or give another --url") from None
    await _ask(seen, "no key", visitor.ask("POST", CHAT, body=NO_JSON, headers=with_id))
    _require_service(seen)
    wrong = f"scaffold-check-{secrets.token_hex(16)}"
    await _ask(seen, "a wrong key", visitor.ask("POST", CHAT, body=NO_JSON, key=wrong))
    for path in ("/readyz", *_CLOSED):
        await _ask(seen, path, visitor.ask("GET", path))


def _require_service(seen: Seen) -> None:
    live, refused = seen.asked["/livez"], seen.asked["no key"]
    if isinstance(live, Answer) and live.document.get("status") == "alive":
        return
    if isinstance(refused, Answer) and str(refused.document.get("type")).startswith("urn:problem:"):
        return
    said = "; ".join(_harmless(str(answer)) for answer in (live, refused))
    redirects = [a for a in seen.answers.values() if 300 <= a.status < 400]
    remedy = (
        "it redirects, which is not followed: give the URL that it leads to"
        if redirects
        else "give its base URL, such as https://host"
    )
    raise NotChecked(f"{seen.address.url} is no service of this template ({said}): {remedy}")


async def _ask_with_key(visitor: Visitor, seen: Seen, key: str) -> None:
    await _ask(seen, "models", visitor.ask("GET", "/v1/models", key=key))
    models = seen.asked["models"]
    if isinstance(models, Answer) and models.status == 401:
        raise UsageError(
            "the service does not know the key in the variable that --api-key-env names (401):"
            " put one of its SERVICE_API_KEYS there"
        )
    await _ask(seen, "no JSON", visitor.ask("POST", CHAT, body=NO_JSON, key=key))
    await _ask(seen, "a large body", visitor.announce(CHAT, DECLARED_BYTES, key=key))
    nowhere = f"/v1/{secrets.token_hex(8)}"
    await _ask(seen, "no such route", visitor.ask("GET", nowhere, key=key))


async def _call_models(visitor: Visitor, seen: Seen, key: str) -> None:
    """As few as show something; none more once the first has failed."""
    mark = secrets.token_hex(8)  # else an earlier check's reply might be replayed
    once = {"idempotency-key": f"scaffold-check-{mark}"}

    async def call(name: str, content: str, headers: Mapping[str, str], **more: Any) -> None:
        messages = [{"role": "user", "content": content}]
        body = json.dumps({"messages": messages, "max_tokens": OUTPUT_TOKENS, **more}).encode()
        asking = visitor.ask(
            "POST", CHAT, key=key, body=body, headers=headers, seconds=CALL_SECONDS
        )
        await _ask(seen, name, asking)

    question = f"Answer with one word. ({mark})"
    await call("call", question, once)
    first = seen.asked["call"]
    if isinstance(first, NoAnswer) or first.status != 200:
        return
    await call("repeat", question, once)
    await call("long", f"{mark}{' word' * LONG_INPUT_TOKENS}", {})
    await call("stream", f"{question} Again.", {}, stream=True)


async def _ask(seen: Seen, name: str, asking: Any) -> None:
    try:
        seen.asked[name] = await asking
    except NoAnswer as reason:
        seen.asked[name] = reason


# How it is judged


def _encrypted(seen: Seen) -> str:
    if seen.address.is_encrypted:
        return "https, with a certificate that is trusted here"
    if seen.address.is_loopback:
        raise NotSeen("not seen from this machine, where no network lies in between")
    raise No("http: whoever is on the way reads keys and prompts; put TLS before it")


def _refused_without_key(seen: Seen) -> str:
    return _refused(seen.answer("no key"), 401)


def _refused_with_wrong_key(seen: Seen) -> str:
    return _refused(seen.answer("a wrong key"), 401)


def _documentation_closed(seen: Seen) -> str:
    return _closed(seen, "/docs", "/openapi.json")


def _metrics_closed(seen: Seen) -> str:
    return _closed(seen, "/metrics")


def _software_unnamed(seen: Seen) -> str:
    told = {
        f"{name}: {value}"
        for answer in seen.answers.values()
        for name in ("server", "x-powered-by")
        if (value := answer.headers.get(name))
    }
    telling = sorted(line for line in told if _TELLING.search(line) or line.startswith("x-"))
    if telling:
        raise No(f"{', '.join(telling)}: strangers need not know")
    return f"{', '.join(sorted(told)) or 'no Server header'} on {len(seen.answers)} responses"


def _request_ids(seen: Seen) -> str:
    for answer in seen.of_the_service:
        if not answer.headers.get("x-request-id"):
            raise No(f"{answer} came without X-Request-Id")
    given = seen.answer("no key").headers.get("x-request-id")
    if given != seen.request_id:
        raise No(f"X-Request-Id: {seen.request_id} came back as {given}")
    return f"on {len(seen.of_the_service)} responses; ours came back as it was"


def _problem_documents(seen: Seen) -> str:
    names = ("no key", "a wrong key", "no JSON", "no such route", "long")
    refusals = [a for n, a in seen.answers.items() if n in names and a.status >= 400]
    for answer in refusals:
        _require_problem(answer)
    if not refusals:
        raise NotSeen("not seen: nothing was refused")
    return f"application/problem+json with request_id and error: {_codes(refusals)}"


def _ready(seen: Seen) -> str:
    live, ready = seen.answer("/livez"), seen.answer("/readyz")
    if {live.status, ready.status} <= {401, 403, 404}:
        raise NotSeen(f"not seen: strangers do not get them ({live}; {ready})")
    for answer, status in ((live, "alive"), (ready, "ready")):
        if answer.status != 200 or answer.document.get("status") != status:
            raise No(f"{answer} {answer.document.get('status', '')}".rstrip())
    store = ready.document.get("store")
    if store != "reachable":
        raise No(f"ready, but its store is {store}: calls are refused")
    return "alive, ready, its store reachable"


def _answers(seen: Seen) -> str:
    answer = seen.answer("call")
    if answer.status != 200 or not answer.document.get("choices"):
        raise No(str(answer))
    return f"200 from {_header(answer, 'X-Provider')} in {answer.began_seconds:.1f} s"


def _streams(seen: Seen) -> str:
    _answered(seen)
    answer = seen.answer("stream")
    events = re.findall(r"^data: (.*)$", answer.text, re.MULTILINE)
    if answer.status != 200 or not answer.headers.get("content-type", "").startswith(
        "text/event-stream"
    ):
        raise No(str(answer))
    if not events or '"choices"' not in events[0]:
        raise No("it was opened and brought nothing")
    if events[-1] != "[DONE]":
        raise No("it began and broke off")
    return f"it began after {answer.began_seconds:.1f} s, and ended with [DONE]"


def _money_told(seen: Seen) -> str:
    answer = _answered(seen)
    names = ("X-Cost-USD", "X-Budget-Remaining-USD")
    return "; ".join(f"{name}: {_dollars(answer, name):f}" for name in names)


def _rate_told(seen: Seen) -> str:
    answer = _answered(seen)
    return "; ".join(
        f"{name}: {_header(answer, name)}" for name in ("RateLimit", "RateLimit-Policy")
    )


def _replayed(seen: Seen) -> str:
    _answered(seen)
    first, again = seen.answer("call"), seen.answer("repeat")
    if again.status != 200 or again.headers.get("idempotent-replayed") != "true":
        raise No(f"{again}, without Idempotent-Replayed: the model was called again")
    if first.document.get("choices") != again.document.get("choices"):
        raise No("the repeat got another reply")
    if cost := _dollars(again, "X-Cost-USD"):
        raise No(f"the repeat was charged again: X-Cost-USD: {cost:f}")
    return "the same reply, Idempotent-Replayed: true, X-Cost-USD: 0"


def _no_json_refused(seen: Seen) -> str:
    return _refused(seen.answer("no JSON"), 400, 422)


def _large_body_refused(seen: Seen) -> str:
    answer = seen.answer("a large body")
    if answer.status != 413:
        raise No(f"{answer}, to a declared body of {DECLARED_BYTES} bytes")
    return f"413 to a declared body of {DECLARED_BYTES} bytes, of which none was sent"


def _long_input_refused(seen: Seen) -> str:
    _answered(seen)
    answer = seen.answer("long")
    detail = str(answer.document.get("detail", ""))
    if answer.status != 413:
        raise No(f"{answer}: MAX_INPUT_TOKENS is higher, or nothing limits it")
    if not re.search(r"\d", detail):
        raise No(f"{answer}, and it names no limit")
    return f"413: {detail}"


def _inside(seen: Seen) -> str:
    raise NotSeen(INSIDE)


ITEMS: Sequence[tuple[str, str, Callable[[Seen], str]]] = (
    ("Access", "Is the way to it encrypted?", _encrypted),
    ("Access", "Is a call without a key refused?", _refused_without_key),
    ("Access", "Is a call with a wrong key refused?", _refused_with_wrong_key),
    ("Access", "Are /docs and /openapi.json closed to strangers?", _documentation_closed),
    ("Access", "Is /metrics closed to strangers?", _metrics_closed),
    ("Access", "Does it keep its software to itself?", _software_unnamed),
    ("1. Visibility", "Has each response its request id?", _request_ids),
    ("1. Visibility", "Are errors problem documents?", _problem_documents),
    ("1. Visibility", "Are requests logged, and does anybody hear of errors?", _inside),
    ("2. Env Vars", "Are variables validated, and keys not in the code?", _inside),
    ("3. Availability", "Is it alive and ready?", _ready),
    ("3. Availability", "Does a call get an answer?", _answers),
    ("3. Availability", "Does a stream begin?", _streams),
    ("3. Availability", "Are there timeouts, retries and a fallback?", _inside),
    ("4. Cost", "Does a reply tell its cost and what is left?", _money_told),
    ("4. Cost", "Does a reply tell the rate limit?", _rate_told),
    ("4. Cost", "Is a repeat replayed without a second charge?", _replayed),
    ("4. Cost", "Do rate limit and daily cost cap hold?", _inside),
    ("5. Tokens", "Is a body that is no JSON refused?", _no_json_refused),
    ("5. Tokens", "Is a body that is too large refused before it is read?", _large_body_refused),
    ("5. Tokens", f"Is an input of {LONG_INPUT_TOKENS} tokens refused?", _long_input_refused),
    ("5. Tokens", "Is the history managed?", _inside),
)


def _refused(answer: Answer, *statuses: int) -> str:
    if answer.status not in statuses:
        raise No(f"{answer}, and not {' or '.join(map(str, statuses))}")
    return f"{answer.status} {answer.code}".rstrip()


def _closed(seen: Seen, *paths: str) -> str:
    answers = [seen.answer(path) for path in paths]
    for answer in answers:
        if answer.status < 300:
            raise No(f"{answer}: ENVIRONMENT=production closes it")
        if answer.status < 400 or answer.status >= 500:
            raise NotSeen(f"not seen: {answer}")
    return ", ".join(f"{answer.request}: {answer.status}" for answer in answers)


def _require_problem(answer: Answer) -> None:
    document = answer.document
    missing = {"type", "title", "detail", "error"} - document.keys()
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise No(f"{answer} is no problem document")
    if missing:
        raise No(f"{answer} lacks {', '.join(sorted(missing))}")
    if document.get("status") != answer.status:
        raise No(f"{answer} says that its status is {document.get('status')}")
    if document.get("request_id") != answer.headers.get("x-request-id"):
        raise No(f"{answer} has another request_id than its header")


def _answered(seen: Seen) -> Answer:
    """The reply to the first call. Raises `NotSeen` without one: that is another item's no."""
    answer = seen.answer("call")
    if answer.status != 200:
        raise NotSeen(f"not seen: the first call got no answer ({answer})")
    return answer


def _header(answer: Answer, name: str) -> str:
    value = answer.headers.get(name.lower())
    if not value:
        raise No(f"{answer} came without {name}")
    return value


def _dollars(answer: Answer, name: str) -> Decimal:
    value = _header(answer, name)
    if not _SUM.fullmatch(value):
        raise No(f"{name} is no sum of dollars: {value}")
    return Decimal(value)


def _codes(answers: Iterable[Answer]) -> str:
    return ", ".join(dict.fromkeys(f"{answer.status} {answer.code}".rstrip() for answer in answers))


# What is said


def _report(seen: Seen, key: str | None, probe: bool) -> Report:
    items = tuple(_judged(seen, key, *item) for item in ITEMS)
    passed = sum(item.passed is True for item in items)
    still_open = sum(item.passed is False for item in items)
    not_seen = len(items) - passed - still_open
    verdict = f"{still_open or 'none'} open, {not_seen} not seen from outside"
    document: dict[str, object] = {
        "service": seen.address.url,
        "passed": passed,
        "not_seen": not_seen,
        "total": len(items),
        "verdict": verdict,
        "items": [_as_json(item) for item in items],
    }
    if probe:
        calls, cost = _spent(seen)
        document["probe"] = {"model_calls": calls, "cost_usd": f"{cost:f}"}
        verdict += f"; {calls} model calls cost ${cost:f}, as X-Cost-USD tells"
    return Report(items, verdict, document)


def _judged(
    seen: Seen, key: str | None, step: str, question: str, judge: Callable[[Seen], str]
) -> Item:
    passed: bool | None = True
    try:
        said = judge(seen)
    except No as reason:
        passed, said = False, str(reason)
    except NotSeen as reason:
        passed, said = None, str(reason)
    return Item(step, question, passed, _harmless(said.replace(key, "***") if key else said))


def _as_json(item: Item) -> dict[str, object]:
    said = "evidence" if item.passed else "reason"
    return {"step": item.step, "item": item.question, "passed": item.passed, said: item.seen}


def _spent(seen: Seen) -> tuple[int, Decimal]:
    """How many calls got an answer from a model, and what they say that they have cost."""
    answers = [a for name, a in seen.answers.items() if name in PROBES and a.status == 200]
    called = [a for a in answers if a.headers.get("idempotent-replayed") != "true"]
    told = [a.headers.get("x-cost-usd") or "".join(_STREAM_COST.findall(a.text)) for a in called]
    return len(called), sum((Decimal(cost) for cost in told if _SUM.fullmatch(cost)), Decimal())


def _harmless(text: str) -> str:
    """What a server said, without what moves a terminal's cursor, and in a line."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= MAX_SHOWN else f"{printable[:MAX_SHOWN]} ..."
