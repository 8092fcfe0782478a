"""The port to a model vendor.

An adapter translates one wire format and performs no input or output itself: the transport sends
what `encode` returns and feeds the answer to `decode`, `open_stream` or `decode_error`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pydantic import Field, SecretStr

from ..errors import ProviderError
from ..messages import ChatReply, ChatRequest, Chunk
from ..variables import Variables


class ProviderSettings(Variables):
    """What every vendor needs. A subclass names its prefix and its defaults."""

    may_be_local: ClassVar[bool] = False
    """Whether it may be one's own server, without TLS or on this machine, in production too."""

    api_key: SecretStr | None
    """`None` for a server that wants none."""
    model: str
    base_url: str
    input_usd_per_mtok: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of a million input tokens in dollars, instead of the price list's; 0"
        " is free.",
    )
    output_usd_per_mtok: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of a million output tokens in dollars, instead of the price list's;"
        " 0 is free.",
    )
    context_window_tokens: int | None = Field(
        default=None,
        gt=0,
        description="Tokens that the model takes and makes together, instead of the price list's"
        " figure. Set it where the list has none, or the model takes a shorter input.",
    )
    max_output_tokens: int | None = Field(
        default=None,
        gt=0,
        description="The most tokens that the model writes, where that is less than"
        " `MAX_OUTPUT_TOKENS`.",
    )


@dataclass(frozen=True, slots=True)
class HTTPCall:
    """One POST. `path` is appended to the base URL; secrets go into `headers`, never into it."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    event: str
    data: str


class StreamDecoder(Protocol):
    """Turns the events of one stream into chunks."""

    def feed(self, event: ServerSentEvent) -> Iterable[Chunk]:
        """Raises `ProviderError` for an error event and for one that cannot be understood."""

    def close(self) -> None:
        """The stream has ended. Raises `ProviderUnavailable` unless it was complete."""


class ProviderAdapter(Protocol):
    """One vendor's wire format, for one configured model."""

    name: ClassVar[str]
    settings_type: ClassVar[type[ProviderSettings]]
    price_list_id: ClassVar[str]
    """The vendor's id in genai-prices; empty where the settings demand a declared price."""
    telemetry_name: ClassVar[str]
    """Its `gen_ai.provider.name` in OpenTelemetry's conventions."""

    def __init__(self, settings: ProviderSettings) -> None: ...

    @property
    def input_token_factor(self) -> float:
        """Declared upper bound of this vendor's tokens per o200k token of text; 1.0 is exact."""

    @property
    def image_tokens(self) -> int:
        """Declared upper bound of the tokens of one image."""

    @property
    def preamble_tokens(self) -> int:
        """Declared upper bound of what the vendor writes of its own before each conversation."""

    @property
    def tool_preamble_tokens(self) -> int:
        """Declared upper bound of what it adds to that where there are tools or a form of reply."""

    @property
    def model(self) -> str: ...

    @property
    def thinks_out_of_sight(self) -> bool:
        """Whether the model may bill output tokens that a broken stream never showed."""

    def unsupported(self, request: ChatRequest) -> str | None:
        """The first parameter (by its name in OpenAI's format) that this vendor cannot honour."""

    def encode(self, request: ChatRequest, *, stream: bool) -> HTTPCall:
        """`request.max_output_tokens` is always set by now."""

    def decode(self, body: bytes) -> ChatReply:
        """Raises `ProviderUnavailable` (ambiguous) for a body that is not a reply."""

    def open_stream(self) -> StreamDecoder: ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`headers` has lower-case names. `Retry-After` in all its forms is read here."""
