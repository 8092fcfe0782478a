"""The store fails under a service that is running: callers are told in time, nobody is asked, and
when it is back all goes on without a restart."""

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

import httpx
import pytest

from sandbox.faults import Fault
from sandbox.server import Sandbox

from ..service.asking import body, calls
from ..service.serving import Service, eventually
from ..stores import SHARED_STORES
from .conftest import Contender
from .report import Outage, TellOutage

CHAT = "/v1/chat/completions"
BOUND_SECONDS = 5.0
"""For the answer to a request that the store cannot decide on."""

Begin = Callable[[Service, ExitStack], AbstractContextManager[None]]
"""An outage, which ends with the block; what the store needs from then on is on the stack."""


def _module(storage: str) -> object:
    return importlib.import_module(f"tests.resources.outages_{storage}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    argument, named = (
        ("begin", "OUTAGES") if "begin" in metafunc.fixturenames else ("lose", "LOSSES")
    )
    shapes = [
        pytest.param(storage, shape, id=f"{storage}-{name.replace(' ', '-')}")
        for storage in SHARED_STORES
        for name, shape in getattr(_module(storage), named, {}).items()
    ]
    metafunc.parametrize(("storage", argument), shapes)


def _contender(
    contenders: Callable[[str], Contender], storage: str, begin: Begin | None = None
) -> Contender:
    contender, module = contenders(storage), _module(storage)
    return replace(
        contender,
        project=replace(contender.project, prepare=getattr(module, "prepare", None)),
        new_place=getattr(module, "PLACES", {}).get(
            begin, getattr(module, "place", contender.new_place)
        ),
    )


def _transitions(service: Service) -> list[str]:
    return [line["event"] for line in service.lines("store_unreachable", "store_reachable")]


def _ask(service: Service, key: str, number: int = 0) -> httpx.Response:
    return service.http(key).post(CHAT, json=body(f"Question {number}?"))


@pytest.mark.promise("A9")
def test_callers_are_told_in_time(
    contenders: Callable[[str], Contender],
    sandbox: Sandbox,
    key: str,
    tell_outage: TellOutage,
    storage: str,
    begin: Begin,
    request: pytest.FixtureRequest,
) -> None:
    """503 with `Retry-After` within bounds, no call to a provider, one line for each transition;
    the probes answer meanwhile, and the first request after it is served."""
    contender = _contender(contenders, storage, begin)
    with ExitStack() as stack, contender.serve(WORKERS="1") as service:
        assert _ask(service, key).status_code == 200
        with begin(service, stack):
            asked = calls(sandbox)
            known = len(_transitions(service))
            with ThreadPoolExecutor(8) as pool:
                refused = list(pool.map(lambda number: _ask(service, key, number), range(24)))
            slowest = max(response.elapsed.total_seconds() for response in refused)
            for response in refused:
                assert response.status_code == 503, response.text
                assert response.json()["error"]["code"] == "store_unavailable"
                assert int(response.headers["retry-after"]) >= 1
            assert slowest < BOUND_SECONDS
            assert calls(sandbox) == asked
            assert service.http().get("/livez").status_code == 200
            ready = service.http().get("/readyz")
            assert (ready.status_code, ready.json()["store"]) == (200, "unreachable")
            eventually(lambda: _transitions(service))
            assert _transitions(service) == ["store_unreachable"]
            assert known <= 1
        began = time.monotonic()
        eventually(lambda: _ask(service, key).status_code == 200)
        recovered = time.monotonic() - began
        eventually(lambda: len(_transitions(service)) == 2)
        assert _transitions(service) == ["store_unreachable", "store_reachable"]
        (gone,) = service.lines("store_unreachable")
        assert gone["reason"]
    shape = request.node.callspec.id.removeprefix(f"{storage}-")
    tell_outage(shape, storage, Outage(len(refused), slowest, recovered))


@pytest.mark.promise("A9", "R4")
def test_a_call_under_way_is_answered_and_settled(
    contenders: Callable[[str], Contender],
    sandbox: Sandbox,
    key: str,
    storage: str,
    begin: Begin,
) -> None:
    """What was admitted before the outage is answered in it and settled after it, once; of what the
    store has lost nothing is left, and the next call is like a first one."""
    contender = _contender(contenders, storage, begin)
    with (
        ExitStack() as stack,
        contender.serve(WORKERS="1") as service,
        ThreadPoolExecutor(1) as pool,
    ):
        client = service.http(key, **{"idempotency-key": "one-payment"})
        sandbox.script("openai", [Fault(delay_seconds=4)])
        answer = pool.submit(client.post, CHAT, json=body())
        eventually(lambda: calls(sandbox))
        with begin(service, stack):
            reply = answer.result()
            assert reply.status_code == 200
        cost = round(float(reply.headers["x-cost-usd"]) * 1e9)
        if begin in getattr(_module(storage), "LOSES_DATA", ()):
            eventually(lambda: client.post(CHAT, json=body()).status_code == 200)
            assert calls(sandbox) == 2
        else:
            eventually(lambda: contender.money(service).settled)
            repeat = eventually(lambda: _replay(client))
            assert repeat is not None
            assert repeat.json()["choices"] == reply.json()["choices"]
            assert calls(sandbox) == 1
        assert contender.settled_money(service).settled == cost > 0


@pytest.mark.promise("A9")
def test_what_the_store_has_lost_is_made_again(
    contenders: Callable[[str], Contender],
    sandbox: Sandbox,
    key: str,
    storage: str,
    lose: Callable[[Service], None],
) -> None:
    """Without its data, its scripts or its tables the store goes on from nothing: no request is
    refused for it, and no restart is needed; a call under way meanwhile is answered."""
    contender = _contender(contenders, storage)
    with contender.serve(WORKERS="1") as service, ThreadPoolExecutor(1) as pool:
        assert _ask(service, key).status_code == 200
        sandbox.script("openai", [Fault(delay_seconds=0.5)])
        under_way = pool.submit(_ask, service, key)
        eventually(lambda: calls(sandbox) == 2)
        lose(service)
        assert under_way.result().status_code == 200
        replies = [_ask(service, key, number) for number in range(3)]
        assert [reply.status_code for reply in replies] == [200] * 3
        assert _transitions(service) == []
        contender.settled_money(service)


def _replay(client: httpx.Client) -> httpx.Response | None:
    response = client.post(CHAT, json=body())
    return response if response.headers.get("idempotent-replayed") == "true" else None
