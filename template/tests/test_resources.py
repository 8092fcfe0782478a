"""Resources: how often a caller may ask, what may be spent, and what is never paid for twice."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from email.utils import parsedate_to_datetime

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox
from tests.asking import CHAT, answer, ask, ask_stream, calls, question
from tests.conftest import RATE_LIMIT, TIGHT, BadDay
from tests.running import Service, eventually

DEAR = Reply(text="Yes.", input_tokens=100, output_tokens=600)
"""In the service with short limits so much that its caller can afford no second long answer."""
DAY_SECONDS = 86_400


# The rate limit


def _remaining(response: httpx.Response) -> int:
    found = re.fullmatch(r'"default";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    assert found and 0 <= int(found[2]) <= 60, response.headers["ratelimit"]
    return int(found[1])


def _usd(response: httpx.Response, header: str) -> Decimal:
    """Dollars as they are written: plain digits."""
    assert re.fullmatch(r"\d+(\.\d+)?", response.headers[header]), response.headers[header]
    return Decimal(response.headers[header])


def test_each_answer_tells_where_the_caller_stands(client: httpx.Client) -> None:
    """`RateLimit` counts down and `RateLimit-Policy` names the limit, on JSON and on streams."""
    responses = [ask(client), ask_stream(client).response, ask(client)]
    expected = [RATE_LIMIT - 1, RATE_LIMIT - 2, RATE_LIMIT - 3]
    assert [_remaining(response) for response in responses] == expected
    policies = {response.headers["ratelimit-policy"] for response in responses}
    assert policies == {f'"default";q={RATE_LIMIT};w=60'}


def test_the_limit_is_exact_in_a_burst(client: httpx.Client, sandbox: Sandbox) -> None:
    """Of more requests at once than the window admits, exactly as many as it admits succeed."""
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: ask(client), range(RATE_LIMIT + 8)))
    statuses = [response.status_code for response in responses]
    assert (statuses.count(200), statuses.count(429)) == (RATE_LIMIT, 8)
    assert calls(sandbox) == RATE_LIMIT
    refused = next(response for response in responses if response.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert _remaining(refused) == 0
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_after_the_wait_a_request_is_admitted(tight: Service, key: str) -> None:
    """Waiting for `Retry-After` is enough: refusals meanwhile do not prolong it."""
    with tight.client(key) as client:

        def refusal() -> httpx.Response | None:
            response = ask(client)
            return response if response.status_code == 429 else None

        refused = eventually(refusal)
        free_at = time.monotonic() + int(refused.headers["retry-after"])
        for _ in range(5):
            ask(client)
        time.sleep(max(0.0, free_at - time.monotonic()))
        assert ask(client).status_code == 200


def test_a_refused_request_consumes_nothing(
    client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """Whatever a request is refused for, the caller has as many left as before it."""
    keyed = {"idempotency-key": "consumes-nothing"}
    sandbox.script(primary, [Fault(delay_seconds=0.4)])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, CHAT, json=question(), headers=keyed)
        eventually(lambda: sandbox.requests(primary))
        in_flight = client.post(CHAT, json=question(), headers=keyed)
        before = _remaining(running.result())
    refused = [
        in_flight,
        client.post(CHAT, json=question("Another?"), headers=keyed),
        client.post(CHAT, content=b"{"),
        client.post(CHAT, content=b" " * 2**21),
        ask(client, "many words " * 6000),
        ask(client, model="none"),
    ]
    assert [response.status_code for response in refused] == [409, 422, 400, 413, 413, 404]
    assert _remaining(ask(client)) == before - 1
    assert calls(sandbox) == 2


def test_a_wrong_key_takes_no_place(tight: Service, sandbox: Sandbox) -> None:
    """Who cannot say who it is has used up nothing, neither its address's place nor anyone's."""
    with tight.client("no-such-key") as stranger, tight.client(None) as neighbour:
        for client in (stranger, neighbour):
            client.headers["x-forwarded-for"] = "203.0.113.40"
        assert {ask(stranger).status_code for _ in range(10)} == {401}
        assert calls(sandbox) == 0
        admitted = ask(neighbour, max_tokens=10)
    limit = int(TIGHT["RATE_LIMIT_REQUESTS"])
    assert (admitted.status_code, _remaining(admitted)) == (200, limit - 1)


# Callers


def test_callers_do_not_share_a_limit(
    service: Service, client: httpx.Client, new_key: Callable[[], str]
) -> None:
    """What one caller uses up is not missing elsewhere."""
    ask(client)
    with service.client(new_key()) as other:
        assert _remaining(ask(other)) == RATE_LIMIT - 1


@pytest.mark.parametrize(
    ("forwarded", "name"),
    [
        ("203.0.113.7", "address:203.0.113.7"),
        ("198.51.100.1, 203.0.113.8", "address:203.0.113.8"),
        ("203.0.113.9, 127.0.0.1", "address:203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("nobody", "address:127.0.0.1"),
    ],
)
def test_a_caller_without_a_key_is_its_address(tight: Service, forwarded: str, name: str) -> None:
    """Behind a trusted proxy it is the last address that the proxy vouches for; what the caller
    wrote before it counts for nothing, and an IPv6 caller is its whole network."""
    with tight.client(None) as client:
        client.headers["x-forwarded-for"] = forwarded
        response = ask(client, f"Who is {forwarded}?", max_tokens=10)
    assert response.status_code == 200
    assert tight.line_of(response.headers["x-request-id"])["caller"] == name


# The budget


def test_each_answer_tells_its_cost_and_what_is_left(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """`X-Cost-USD` is what the request cost, and `X-Budget-Remaining-USD` what its caller may still
    spend today; a refusal tells what is left, too."""
    budget = Decimal(TIGHT["DAILY_BUDGET_PER_CALLER_USD"])
    sandbox.script(primary, [Reply(text="Yes.", input_tokens=20, output_tokens=5), DEAR])
    with tight.client(key) as client:
        first, second = ask(client, "A cheap one?"), ask(client, "A dear one?")
        refused = ask(client, "A long one?")
    assert _usd(first, "x-cost-usd") == Decimal("0.000025")
    assert _usd(first, "x-budget-remaining-usd") == budget - Decimal("0.000025")
    assert _usd(second, "x-cost-usd") == Decimal("0.0007")
    assert _usd(second, "x-budget-remaining-usd") == budget - Decimal("0.000725")
    assert refused.status_code == 429
    assert "x-cost-usd" not in refused.headers
    assert _usd(refused, "x-budget-remaining-usd") == budget - Decimal("0.000725")
    assert "has $0.000775 left" in refused.json()["detail"]


def test_a_stream_tells_its_cost_at_its_end(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """Its headers come before it is settled: a comment before the last event has the figures."""
    sandbox.script(primary, [Reply(text="a b", input_tokens=20, output_tokens=5, chunks=2)])
    with tight.client(key) as client:
        stream = ask_stream(client)
    assert "x-cost-usd" not in stream.response.headers
    assert stream.done and stream.text == "a b"
    *_, comment, done = stream.response.text.splitlines()[:-1]
    assert comment == ": x-cost-usd=0.000025; x-budget-remaining-usd=0.001475"
    assert done == "data: [DONE]"


def test_a_failure_tells_its_cost(tight: Service, key: str, sandbox: Sandbox, primary: str) -> None:
    """An attempt that may have been billed is on the bill of the request that failed."""
    sandbox.script(primary, [Fault(status=500)])
    with tight.client(key) as client:
        failed = ask(client, "Is anybody there?")
    assert failed.status_code == 503
    line = tight.line_of(failed.headers["x-request-id"])
    assert _usd(failed, "x-cost-usd") == Decimal(str(line["cost_usd"])) > 0


def test_a_caller_has_a_budget(
    tight: Service, key: str, sandbox: Sandbox, primary: str, new_key: Callable[[], str]
) -> None:
    """When a caller's budget cannot cover a call it is 429 before any provider is asked; what
    still fits is admitted, and other callers notice nothing."""
    sandbox.script(primary, [DEAR])
    with tight.client(key) as client:
        assert ask(client, "A dear one?").status_code == 200
        refused = ask(client, "A long one?")
        assert calls(sandbox) == 1
        assert ask(client, "A short one?", max_tokens=10).status_code == 200
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert 1 <= int(refused.headers["retry-after"]) <= DAY_SECONDS
    with tight.client(new_key()) as other:
        assert ask(other).status_code == 200


def test_callers_share_a_budget(bad_day: BadDay) -> None:
    """When the budget of all is used up it is 503 until midnight, and no provider is asked."""
    for refused in bad_day.refused:
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "daily_budget_exhausted"
        assert refused.headers["x-should-retry"] == "false"
        answered_at = parsedate_to_datetime(refused.headers["date"]).timestamp()
        midnight = answered_at + int(refused.headers["retry-after"])
        assert min(midnight % DAY_SECONDS, -midnight % DAY_SECONDS) <= 3
    assert bad_day.called_while_refused == 0


def test_calls_at_once_do_not_overspend(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """What a running call may cost is set aside: of three that fit only one by one, one runs."""
    sandbox.script(primary, [Fault(delay_seconds=0.2)], times=3)
    with tight.client(key) as client, ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(lambda number: ask(client, f"Call {number}?"), range(3)))
    assert sorted(response.status_code for response in responses) == [200, 429, 429]
    assert calls(sandbox) == 1


def test_what_a_call_did_not_use_is_given_back(tight: Service, key: str) -> None:
    """A call is charged what it cost, so that the next one fits again."""
    with tight.client(key) as client:
        assert [ask(client, f"Call {number}?").status_code for number in range(3)] == [200] * 3


def test_unknown_cost_is_not_given_back(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """An attempt that may have been billed is charged in full, and no further one is begun that
    the budget cannot cover."""
    sandbox.script(primary, [Fault(status=500)])
    with tight.client(key) as client:
        failed = ask(client, "Is anybody there?")
        assert failed.status_code == 503
        assert calls(sandbox) == 1
        assert ask(client, "And now?").json()["error"]["code"] == "insufficient_quota"
    assert tight.line_of(failed.headers["x-request-id"])["cost_usd"] > 0.001


def test_a_refusal_by_the_provider_costs_nothing(
    tight: Service, key: str, sandbox: Sandbox
) -> None:
    """A provider that refuses has not billed: the whole budget is there for the next call."""
    for vendor in sandbox.vendors:
        sandbox.script(vendor, [Fault(status=529)])
    with tight.client(key) as client:
        refused = ask(client, "Is anybody there?")
        assert refused.status_code == 503
        assert ask(client, "And now?").status_code == 200
    assert tight.line_of(refused.headers["x-request-id"])["cost_usd"] == 0


def test_a_broken_stream_is_paid_for(
    tight: Service, key: str, sandbox: Sandbox, primary: str
) -> None:
    """What was emitted before the end is billed, and so is the input, though no usage came."""
    sandbox.script(primary, [Fault(action="end", after_chunks=4)])
    with tight.client(key) as client:
        stream = ask_stream(client)
    line = tight.line_of(stream.response.headers["x-request-id"])
    assert stream.error is not None and line["outcome"] == "failed"
    assert line["cost_usd"] >= 8 / 1_000_000


def test_a_left_call_is_paid_by_its_usage(
    service: Service, client: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """A JSON call whose caller has gone is billed what it cost, neither nothing nor its limit."""
    reply = Reply(text="Too late.", input_tokens=11, output_tokens=7)
    sandbox.script(primary, [Fault(delay_seconds=0.3, reply=reply)])
    client.headers["x-request-id"] = "left-and-paid"
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=question(), timeout=0.1)
    line = service.line_of("left-and-paid")
    assert (line["input_tokens"], line["output_tokens"]) == (11, 7)
    assert line["cost_usd"] > 0


# Idempotency


@pytest.fixture
def keyed(client: httpx.Client, key: str) -> httpx.Client:
    """A caller who sends one `Idempotency-Key` with every request."""
    client.headers["idempotency-key"] = f"idempotency-{key}"
    return client


def _is_replay(response: httpx.Response) -> bool:
    assert response.status_code == 200
    return bool(response.headers.get("idempotent-replayed") == "true")


def test_duplicates_at_once_make_one_call(
    keyed: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """While a request runs its duplicates are told to wait, and then they get its reply."""
    sandbox.script(primary, [Fault(delay_seconds=0.4)])
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: ask(keyed), range(8)))
    waiting = [response for response in responses if response.status_code == 409]
    assert [response.status_code for response in responses if response not in waiting] == [200]
    for response in waiting:
        assert response.json()["error"]["code"] == "request_in_flight"
        assert int(response.headers["retry-after"]) >= 1
    assert _is_replay(ask(keyed))
    assert calls(sandbox) == 1


def test_a_running_stream_is_in_flight(keyed: httpx.Client, sandbox: Sandbox, primary: str) -> None:
    """A stream and a JSON call of the same request exclude each other, and share the reply."""
    sandbox.script(primary, [Reply(text="a b c", chunks=3, chunk_delay_seconds=0.1)])
    with keyed.stream("POST", CHAT, json=question(stream=True)) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert ask(keyed).status_code == 409
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    repeat = eventually(lambda: next((r for r in [ask(keyed)] if r.status_code == 200), None))
    assert _is_replay(repeat) and answer(repeat) == "a b c"
    assert calls(sandbox) == 1


def test_a_key_belongs_to_one_body(keyed: httpx.Client, sandbox: Sandbox) -> None:
    """Another request under the same key is 422, for it would get the wrong reply."""
    ask(keyed, "What is a guardrail?")
    refused = ask(keyed, "What is a railing?")
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert calls(sandbox) == 1


def test_a_bodys_spelling_does_not_matter(keyed: httpx.Client, sandbox: Sandbox) -> None:
    """The same JSON in another order, spacing and escaping is the same request."""
    body = {**question("Grüße?"), "stop": ["END"], "max_tokens": 9}
    keyed.post(CHAT, json=body)
    backwards = json.dumps(dict(reversed(body.items())), indent=4, ensure_ascii=True)
    assert _is_replay(keyed.post(CHAT, content=backwards))
    assert calls(sandbox) == 1


def test_callers_never_share_replies(
    service: Service, keyed: httpx.Client, sandbox: Sandbox, new_key: Callable[[], str]
) -> None:
    """The same key and body of another caller are another request."""
    ask(keyed)
    idempotency_key = keyed.headers["idempotency-key"]
    with service.client(new_key(), **{"idempotency-key": idempotency_key}) as other:
        assert not _is_replay(ask(other))
    assert calls(sandbox) == 2


def test_a_replay_counts_toward_the_rate_limit(keyed: httpx.Client) -> None:
    """Replays are requests like others where the window is concerned."""
    assert [_remaining(ask(keyed)) for _ in range(3)] == [
        RATE_LIMIT - 1,
        RATE_LIMIT - 2,
        RATE_LIMIT - 3,
    ]


def test_a_replay_costs_nothing(tight: Service, key: str, sandbox: Sandbox, primary: str) -> None:
    """A caller whose budget is used up still gets what was paid for."""
    sandbox.script(primary, [DEAR])
    with tight.client(key, **{"idempotency-key": "paid-already"}) as client:
        ask(client)
        del client.headers["idempotency-key"]
        assert ask(client, "Another?").status_code == 429
        client.headers["idempotency-key"] = "paid-already"
        replay = ask(client)
        assert _is_replay(replay)
        assert _usd(replay, "x-cost-usd") == 0


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_a_failure_frees_the_key(keyed: httpx.Client, sandbox: Sandbox, stream: bool) -> None:
    """Neither a 503 nor a 400 is kept: the repeat runs anew."""
    for fault in (Fault(error="quota_exhausted"), Fault(error="content_policy")):
        sandbox.reset()
        for vendor in sandbox.vendors:
            sandbox.script(vendor, [fault])
        assert ask(keyed, stream=stream).status_code in (400, 503)
    sandbox.reset()
    assert not _is_replay(ask(keyed, stream=stream))
    assert calls(sandbox) == 1


@pytest.mark.usefixtures("mended")
def test_a_broken_stream_is_not_kept(keyed: httpx.Client, sandbox: Sandbox, primary: str) -> None:
    """Half a reply is none: the repeat runs anew and is whole."""
    sandbox.script(primary, [Fault(action="end", after_chunks=3)])
    assert ask_stream(keyed).error is not None
    repeat = ask_stream(keyed)
    assert not _is_replay(repeat.response) and repeat.done
    assert calls(sandbox) == 2


def test_a_reply_too_large_to_keep_is_said_to_be(
    keyed: httpx.Client, sandbox: Sandbox, primary: str
) -> None:
    """Its repeat is refused rather than paid for a second time."""
    sandbox.script(primary, [Reply(text="x" * 300_000)])
    assert len(answer(ask(keyed))) == 300_000
    refused = ask(keyed)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "reply_not_stored"
    assert refused.headers["x-should-retry"] == "false"
    assert calls(sandbox) == 1


@pytest.mark.parametrize("value", ["", "k" * 256], ids=["empty", "long"])
def test_a_bad_key_is_refused(client: httpx.Client, sandbox: Sandbox, value: str) -> None:
    """A key that cannot be kept is 400, not ignored."""
    refused = client.post(CHAT, json=question(), headers={"idempotency-key": value})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert calls(sandbox) == 0


def test_regenerating_regenerates(client: httpx.Client, sandbox: Sandbox) -> None:
    """Without a key the same question is asked anew each time."""
    assert not any(_is_replay(ask(client)) for _ in range(2))
    assert calls(sandbox) == 2


def test_a_declared_retry_needs_no_key(client: httpx.Client, sandbox: Sandbox) -> None:
    """Of a request that an SDK sends again after a timeout, only one is paid for."""
    assert not _is_replay(client.post(CHAT, json=question(), headers=_retry(0)))
    assert _is_replay(client.post(CHAT, json=question(), headers=_retry(1)))
    assert _is_replay(client.post(CHAT, json=question(), headers=_retry(2)))
    assert calls(sandbox) == 1


def test_declared_retries_share_a_reply(client: httpx.Client, sandbox: Sandbox) -> None:
    """Retries of one request are one call; a retry of another body is another."""
    assert not _is_replay(client.post(CHAT, json=question(), headers=_retry(1)))
    assert _is_replay(client.post(CHAT, json=question(), headers=_retry(2)))
    assert not _is_replay(client.post(CHAT, json=question("Another?"), headers=_retry(1)))
    assert calls(sandbox) == 2


def test_only_a_count_declares_a_retry(client: httpx.Client, sandbox: Sandbox) -> None:
    """A retry counts from one, in as many digits as somebody likes; all else declares nothing."""
    others = ["0", "0" * 5_000, "-1", "1.5", "many", ""]
    for count in others:
        assert not _is_replay(client.post(CHAT, json=question(), headers=_retry(count)))
    assert calls(sandbox) == len(others)
    for count in ("01", "1" * 5_000):
        assert _is_replay(client.post(CHAT, json=question(), headers=_retry(count)))
    assert calls(sandbox) == len(others)


def test_every_equal_body_may_stand_for_a_key(tight: Service, key: str, sandbox: Sandbox) -> None:
    """With `IDEMPOTENCY_FROM_BODY=always` the same question is answered once for each caller who
    has a key; callers without one are too alike for that."""
    with tight.client(key) as client:
        assert not _is_replay(ask(client, max_tokens=10))
        assert _is_replay(ask(client, max_tokens=10))
    assert calls(sandbox) == 1
    with tight.client(None) as stranger:
        stranger.headers["x-forwarded-for"] = "203.0.113.77"
        assert not any(_is_replay(ask(stranger, max_tokens=10)) for _ in range(2))
    assert calls(sandbox) == 3


def _retry(count: int | str) -> dict[str, str]:
    return {"x-stainless-retry-count": str(count)}
