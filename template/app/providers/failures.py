"""One table for what a vendor's refusal means, so that every adapter judges alike.

Messages hold the vendor's status and error code and nothing else of its words, which may quote the
key or the prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ..errors import (
    Billing,
    ProviderError,
    ProviderRefusesAccount,
    ProviderRejectsRequest,
    ProviderUnavailable,
)
from .retry_after import Clock, retry_after_seconds

_MAX_DETAIL_CHARACTERS: Final = 1000
_OVERLOADED: Final = 529


class Blame(Enum):
    """Whose fault a failure is."""

    VENDOR = auto()
    ACCOUNT = auto()
    """Ours: the key, the quota, the configured model or base URL. No caller can mend it."""
    REQUEST = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the vendor words it. `detail` is its prose; a wait that its headers ask for need
    not stand here."""

    blame: Blame
    code: str | None = None
    param: str | None = None
    detail: str | None = None
    retry_after_seconds: float | None = None


def blame_of(status: int) -> Blame:
    """What a status says by itself. An unexpected one below 500 means that we call it wrongly."""
    if status in (400, 413, 422):
        return Blame.REQUEST
    if status in (408, 409, 429) or status >= 500 or status < 300:
        return Blame.VENDOR
    return Blame.ACCOUNT


def refused(
    vendor: str, status: int, headers: Mapping[str, str], refusal: Refusal, *, now: Clock
) -> ProviderError:
    """The error for an HTTP status: a 4xx or 529 costs nothing, any other may have."""
    is_free = 300 <= status < 500 or status == _OVERLOADED
    return _error(
        f"{vendor} answered {status}{_in_brackets(refusal.code)}",
        refusal,
        billing=Billing.NOTHING if is_free else Billing.AMBIGUOUS,
        status=status,
        retry_after=_longer(retry_after_seconds(headers, now), refusal.retry_after_seconds),
    )


def broken_off(vendor: str, refusal: Refusal) -> ProviderError:
    """The error for one that came inside a reply with status 200."""
    return _error(
        f"{vendor} broke off its reply with an error{_in_brackets(refusal.code)}",
        refusal,
        billing=Billing.AMBIGUOUS,
        retry_after=refusal.retry_after_seconds,
    )


def not_understood(vendor: str, what: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{vendor} sent {what} that cannot be understood", billing=Billing.AMBIGUOUS
    )


def cut_off(vendor: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{vendor} ended its stream before the reply was complete", billing=Billing.AMBIGUOUS
    )


def _error(
    message: str,
    refusal: Refusal,
    *,
    billing: Billing,
    status: int | None = None,
    retry_after: float | None = None,
) -> ProviderError:
    if refusal.blame is Blame.REQUEST:
        return ProviderRejectsRequest(
            message,
            billing=billing,
            status=status,
            code=refusal.code,
            param=refusal.param,
            detail_for_caller=(refusal.detail or "")[:_MAX_DETAIL_CHARACTERS] or None,
        )
    kind = ProviderRefusesAccount if refusal.blame is Blame.ACCOUNT else ProviderUnavailable
    return kind(message, billing=billing, status=status, retry_after_seconds=retry_after)


def _longer(one: float | None, other: float | None) -> float | None:
    return max((wait for wait in (one, other) if wait is not None), default=None)


def _in_brackets(code: str | None) -> str:
    return f" ({code})" if code else ""
