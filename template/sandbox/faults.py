"""Scripted answers: what goes wrong with one request to a stand-in, and where.

The same members, as JSON, are what `POST /_sandbox/faults` takes.

    Fault(status=500)                               an error in the vendor's own format
    Fault(status=429, headers={"retry-after": "2"})
    Fault(error="quota_exhausted")                  the same by name
    Fault(html=True)                                a proxy's error page
    Fault(delay_seconds=3)                          a late first byte
    Fault(drip_seconds=1)                           one byte a second
    Fault(action="stall")                           accepted, then silent
    Fault(action="stall", after_chunks=0)           headers, then silent
    Fault(action="end", after_chunks=40)            cut short, though whole to HTTP
    Fault(reply=Reply(text="Yes"))                  no fault at all: only another reply
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from sandbox.model import NO_EXTRA, Reply
from sandbox.vendors import Answer, ErrorName, Piece, Request, Vendor, VendorError, find_error

Ending = Literal["end", "close", "reset", "stall", "endless"]
Action = Literal[Ending, "garble", "error_event"]

HTML_PAGE = "<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"
JSON_CHUNK_BYTES = 16


@dataclass(frozen=True, slots=True, config=NO_EXTRA)
class Fault:
    """One scripted answer. Without `status`, `error`, `html` or `body` it is the vendor's usual.

    `action` happens after that many chunks: pieces of the model's output in a stream, of 16 bytes
    in any other body. Without `after_chunks` it happens at once; `stall`, `reset` and `close` even
    before the headers. `end` finishes the body as if it were whole, `close` drops the connection
    instead, `reset` drops it with RST, `stall` says nothing more, `endless` never stops, `garble`
    sends one piece that cannot be parsed and goes on, `error_event` sends the vendor's error
    inside the 200.
    """

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    error: ErrorName | None = None
    message: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: str | None = None
    content_type: str | None = None
    html: bool = False
    delay_seconds: NonNegativeFloat = 0.0
    drip_seconds: NonNegativeFloat | None = None
    action: Action | None = None
    after_chunks: NonNegativeInt | None = None
    reply: Reply = Reply()

    @property
    def precedes_headers(self) -> bool:
        return self.after_chunks is None and self.action in ("stall", "reset", "close")


def scripted_answer(fault: Fault, vendor: Vendor, request: Request) -> tuple[Answer, Ending]:
    """What is sent, and what follows the last byte of it."""
    whole = _whole_answer(fault, vendor, request)
    pieces, ending = _broken_off(whole, fault, vendor, request)
    headers = {**whole.headers, **fault.headers}
    return Answer(whole.status, fault.content_type or whole.content_type, pieces, headers), ending


def _whole_answer(fault: Fault, vendor: Vendor, request: Request) -> Answer:
    if fault.html:
        return Answer(fault.status or 502, "text/html", (Piece(HTML_PAGE.encode()),))
    if fault.body is not None:
        return Answer(fault.status or 200, "application/json", (Piece(fault.body.encode()),))
    if (fault.status or fault.error) and fault.action != "error_event":
        return vendor.error_answer(_error(fault, vendor), request)
    try:
        return vendor.answer(request, fault.reply)
    except VendorError as error:
        return vendor.error_answer(error, request)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"The request does not fit the format: {error!r}"
        return vendor.error_answer(find_error(vendor, "invalid_request", None, message), request)


def _broken_off(
    whole: Answer, fault: Fault, vendor: Vendor, request: Request
) -> tuple[tuple[Piece, ...], Ending]:
    pieces = whole.pieces if whole.is_stream or not fault.action else _cut(whole.pieces)
    at = _index_behind(pieces, fault.after_chunks or 0)
    match fault.action:
        case None:
            return pieces, "end"
        case "error_event" if whole.is_stream:
            event = vendor.error_event(_error(fault, vendor), request)
            return (*pieces[:at], Piece(event)), "end"
        case "error_event":
            return vendor.error_answer(_error(fault, vendor), request).pieces, "end"
        case "garble":
            at = min(at, len(pieces) - 1)
            half = pieces[at].data[: len(pieces[at].data) // 2]
            garbled = Piece(half + b"\n\n" if whole.is_stream else half)
            return (*pieces[:at], garbled, *pieces[at + 1 :]), "end"
        case ending:
            return pieces[:at], ending


def _error(fault: Fault, vendor: Vendor) -> VendorError:
    return find_error(vendor, fault.error, fault.status, fault.message)


def _cut(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    body = b"".join(piece.data for piece in pieces)
    starts = range(0, len(body), JSON_CHUNK_BYTES)
    return tuple(Piece(body[at : at + JSON_CHUNK_BYTES], is_chunk=True) for at in starts)


def _index_behind(pieces: tuple[Piece, ...], chunks: int) -> int:
    """The index behind the chunk of that number, or behind the last one there is."""
    behind = [index + 1 for index, piece in enumerate(pieces) if piece.is_chunk]
    return behind[min(chunks, len(behind)) - 1] if behind and chunks else 0
