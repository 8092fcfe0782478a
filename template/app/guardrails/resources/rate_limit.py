"""The caller's standing, as HTTP says it. The decision itself is the store's, in one step."""

import math

from ...errors import RateLimited, Shortage
from ...storage.base import RateState, Refused


def rate_limit_headers(rate: RateState) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10)."""
    window = f"{rate.window_seconds:g}"
    return {
        "ratelimit-policy": f'"default";q={rate.limit};w={window}',
        "ratelimit": f'"default";r={rate.remaining};t={max(0, math.ceil(rate.reset_seconds))}',
    }


def rate_limited(refused: Refused) -> RateLimited:
    """A refusal that says how long to wait; after that long a request is admitted."""
    rate = refused.rate
    wait = max(1, math.ceil(refused.retry_after_seconds))
    return RateLimited(
        f"{rate.limit} of {rate.limit} requests in {rate.window_seconds:g} s are used;"
        f" try again in {wait} s.",
        retry_after_seconds=wait,
        shortage=Shortage(rate.limit, 1, 0),
    )
