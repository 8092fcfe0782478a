"""The requests that are counted, and the figures that come of them."""

from typing import Final

JSON: Final = "JSON"
SHORT_STREAM: Final = "stream of 20"
LONG_STREAM: Final = "stream of 120"
REPLAY: Final = "replay"
REFUSAL: Final = "refusal"

KINDS: Final = (JSON, SHORT_STREAM, LONG_STREAM, REPLAY, REFUSAL)
STREAMS: Final = {SHORT_STREAM: 20, LONG_STREAM: 120}
"""By their kind, the chunks."""

CHUNK: Final = "a chunk more"
"""Of a stream: what a long one has more than a short one, by chunk."""
FIGURES: Final = (JSON, SHORT_STREAM, CHUNK, REPLAY, REFUSAL)
