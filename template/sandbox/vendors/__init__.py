"""What a stand-in of a vendor offers. Each module of this package is one vendor, found by its file.

A vendor checks a request as the real one does and formats the model's answer; it performs no input
or output, so that the server can break any answer at any place.
"""

import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

from sandbox.model import Reply

ErrorName = Literal[
    "invalid_request",
    "invalid_api_key",
    "permission_denied",
    "model_not_found",
    "rate_limited",
    "quota_exhausted",
    "spend_limit",
    "context_too_long",
    "content_policy",
    "server_error",
    "overloaded",
]


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is what follows the vendor's prefix, up to the `query`; `body` is the parsed JSON
    (`None` if it is none)."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    query: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a body. `is_chunk` marks what a caller counts: a piece of the model's output."""

    data: bytes
    is_chunk: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content_type: str
    pieces: tuple[Piece, ...]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_stream(self) -> bool:
        return self.content_type.startswith("text/event-stream")


@dataclass(eq=False)
class VendorError(Exception):
    """An error as the vendor words it; `type`, `code` and `param` are members of its body."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None


class Vendor(Protocol):
    """A module of this package defines one such class, `StandIn`."""

    name: ClassVar[str]
    prefix: ClassVar[str]
    """Where the stand-in lives on the sandbox's server; no vendor's prefix begins another's."""
    api_key: ClassVar[str]
    """The only key that the stand-in accepts."""
    errors: ClassVar[Mapping[ErrorName, VendorError]]

    def environment(self, origin: str) -> dict[str, str]:
        """The variables that point the service at the stand-in; one ends in `_BASE_URL`."""

    def answer(self, request: Request, reply: Reply) -> Answer:
        """Raises `VendorError` where the vendor would not accept the request."""

    def error_type(self, status: int) -> str:
        """The `type` of an error with no entry in `errors`."""

    def error_answer(self, error: VendorError, request: Request) -> Answer: ...

    def error_event(self, error: VendorError, request: Request) -> bytes:
        """An error inside a stream that began with 200."""


def find_error(
    vendor: Vendor, name: ErrorName | None, status: int | None, message: str | None
) -> VendorError:
    """The vendor's error of that name, else its first of that status, else one made up for it."""
    if name is not None:
        error = vendor.errors[name]
    else:
        made_up = VendorError(status or 500, vendor.error_type(status or 500), "Scripted error.")
        same_status = (error for error in vendor.errors.values() if error.status == made_up.status)
        error = next(same_status, made_up)
    return replace(error, status=status or error.status, message=message or error.message)


def discover() -> dict[str, Vendor]:
    """All vendors of this package, by name."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    vendors: list[Vendor] = [module.StandIn() for module in modules]
    return {vendor.name: vendor for vendor in vendors}


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_answer(status: int, body: Any, headers: Mapping[str, str]) -> Answer:
    return Answer(status, "application/json", (Piece(to_json(body)),), headers)


def text_of(content: Any) -> str:
    """The text of a message's content, which vendors write as a string or as a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())
