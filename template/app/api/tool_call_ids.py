"""A vendor's signature on a tool call travels in the id of the call.

OpenAI's format has no other place for it that every client brings back. Inside, both are apart: the
vendor gets its signature again, and no other vendor sees more than a short id.
"""

from typing import Final

_MARK: Final = "__signature__"


def signed_id(id: str, signature: str | None) -> str:
    return f"{id}{_MARK}{signature}" if signature else id


def split_id(signed: str) -> tuple[str, str | None]:
    """The id and the signature, if it carries one."""
    id, _, signature = signed.partition(_MARK)
    return id, signature or None
