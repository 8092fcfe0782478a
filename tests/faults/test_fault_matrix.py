"""Each shape of failure, at each kind of provider, for a whole reply and for a stream, on real
sockets: on the wire, at the caller, in the log, in the books and at the breaker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from sandbox.server import Sandbox

from ..matrix.combinations import read_axes
from ..rendering import render, set_policy, take_snapshot
from ..service.serving import Project
from .lanes import BOUND_SECONDS, LIMITS, POLICY, Lane
from .report import PROPERTY
from .shapes import SHAPES, Shape

PROVIDERS = next(axis.values for axis in read_axes() if axis.multiple)

# One process has the lanes; two would have them twice.
pytestmark = pytest.mark.xdist_group("fault matrix")


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lane]]:
    """A service for each provider and kind of reply, so that all are tried at once."""
    root = tmp_path_factory.mktemp("faults") / "service"
    render(take_snapshot(tmp_path_factory.mktemp("template")), root, {"providers": [*PROVIDERS]})
    set_policy(root, POLICY)
    kinds = [(vendor, streamed) for vendor in PROVIDERS for streamed in (False, True)]

    def start(kind: tuple[str, bool]) -> Lane:
        sandbox = stack.enter_context(Sandbox.in_thread())
        prices = {
            f"{vendor.upper()}_{direction}_USD_PER_MTOK": "1"
            for vendor in PROVIDERS
            for direction in ("INPUT", "OUTPUT")
        }
        store = tmp_path_factory.mktemp("store") / "service.db"
        project = Project(root, {**sandbox.environment(), **prices, **LIMITS}, store)
        lane = Lane(*kind, project, sandbox, stack.enter_context(project.serve()))
        lane.prepare()
        return lane

    with ExitStack() as stack, ThreadPoolExecutor(len(kinds)) as pool:
        yield list(pool.map(start, kinds))


@pytest.mark.promise("A1", "A2", "A3", "A4", "A5", "A7")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_what_becomes_of_a_failure(
    shape: Shape, lanes: list[Lane], record_property: Callable[[str, object], None]
) -> None:
    """It is retried, left to the next, told, charged and counted as the table says, in time."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        tried = list(pool.map(lambda lane: lane.try_(shape), lanes))
    wrong = {}
    for lane, seen in zip(lanes, tried, strict=True):
        expected = shape.outcome(lane.vendor, lane.streamed)
        if seen.outcome != expected or seen.complaints:
            said = [] if seen.outcome == expected else [f"{seen.outcome}; not {expected}"]
            wrong[lane.name] = "; ".join([*said, *seen.complaints])
    row = {
        "shape": shape.name,
        "whole": str(shape.whole),
        "otherwise": shape.otherwise(),
        "within_seconds": BOUND_SECONDS,
        "cells": {lane.name: lane.name not in wrong for lane in lanes},
    }
    record_property(PROPERTY, row)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
