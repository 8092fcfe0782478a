"""Server-sent events are read by the letter of the WHATWG's standard, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.base import ServerSentEvent
from app.providers.sse import EventParser, EventTooLarge


def parse(*chunks: bytes, max_event_bytes: int = 1_000) -> list[tuple[str, str]]:
    parser = EventParser(max_event_bytes)
    events: list[ServerSentEvent] = [e for chunk in chunks for e in parser.feed(chunk)]
    return [(event.event, event.data) for event in events]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [("message", "a")]),
        (b"data:a\r\rdata: b\r\n\r\n", [("message", "a"), ("message", "b")]),
        (b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb")]),
        (b"event: ping\ndata: {}\n\ndata: x\n\n", [("ping", "{}"), ("message", "x")]),
        (b"data\n\n", [("message", "")]),
        (b"data:\ndata:\n\n", [("message", "\n")]),
        (b"data:  two blanks\n\n", [("message", " two blanks")]),
        (b": comment\n:\n\ndata: a\n\n", [("message", "a")]),
        (b"event: nothing\n\ndata: a\n\n", [("message", "a")]),
        (b"id: 7\nretry: 10\nnonsense: x\ndata: a\n\n", [("message", "a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", "a")]),
        ("data: a\u2028b\x85c\x0bd\n\n".encode(), [("message", "a\u2028b\x85c\x0bd")]),
        (b"data: \xff\n\n", [("message", "\ufffd")]),
        (b"data: cut off\n", []),
        (b"data: a\n\ndata: cut off", [("message", "a")]),
        (b"\n\n\n", []),
    ],
)
def test_the_standard_holds(stream: bytes, events: list[tuple[str, str]]) -> None:
    """Line ends, comments, fields, BOM, UTF-8 and the end of the stream, in one piece and byte by
    byte."""
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events


@given(
    st.lists(
        st.sampled_from(
            [
                b"data",
                b":",
                b" ",
                b"\r",
                b"\n",
                b"\r\n",
                "é\u2028".encode(),
                b"event",
                b"\xef\xbb\xbf",
            ]
        )
    ).map(b"".join),
    st.sets(st.integers(0, 60)),
)
def test_cuts_change_nothing(stream: bytes, cuts: set[int]) -> None:
    """Where the network cuts a stream makes no difference to its events."""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    assert parse(*(stream[a:b] for a, b in pairwise(edges))) == parse(stream)


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 200, b"data: x\n" * 50, b": " + b"x" * 200, b"x" * 200]
)
def test_an_event_has_a_limit(stream: bytes) -> None:
    """An event that grows beyond the limit is refused before it ends."""
    with pytest.raises(EventTooLarge):
        parse(stream, max_event_bytes=100)


def test_many_events_within_the_limit_are_fine() -> None:
    """The limit is one event's, not the stream's."""
    assert len(parse(b"data: x\n\n" * 500, max_event_bytes=20)) == 500
