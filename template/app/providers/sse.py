"""Server-sent events out of bytes, by the letter of the WHATWG's HTML standard, section 9.2.

Lines end at CR, LF or CRLF and nowhere else: text may hold U+2028 and the like, at which
`str.splitlines` (and httpx's `iter_lines`) would cut it. `id` and `retry` are for reconnecting
clients, which this is not.
"""

from collections.abc import Iterator
from typing import Final

from .base import ServerSentEvent

_BOM: Final = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event, or a line, goes beyond the limit."""


class EventParser:
    """Feed it the body as it comes, cut anywhere. An event that the end cuts off is dropped."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # begun, not ended
        self._event = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that `chunk` completes. Raises `EventTooLarge`."""
        if not chunk:
            return
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        # `bytes.splitlines` knows CR, LF and CRLF only, unlike that of `str`.
        for piece in chunk.splitlines(keepends=True):
            self._line += piece
            self._check_size()
            if piece.endswith((b"\r", b"\n")):
                line = bytes(self._line).rstrip(b"\r\n")
                self._line.clear()
                event = self._read(line)
                if event is not None:
                    yield event

    def _check_size(self) -> None:
        if self._data_bytes + len(self._line) > self._max_event_bytes:
            raise EventTooLarge

    def _read(self, line: bytes) -> ServerSentEvent | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif field == b"event":
            self._event = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event, self._data
        self._event, self._data, self._data_bytes = b"", [], 0
        if not data:
            return None
        return ServerSentEvent(
            event=event.decode("utf-8", "replace") or "message",
            data=b"\n".join(data).decode("utf-8", "replace"),
        )
