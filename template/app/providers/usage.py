"""Makes a usage whose parts never exceed their whole, so that no price can turn negative."""

from ..messages import TokenUsage


def token_usage(
    *, input_tokens: int, output_tokens: int, cached: int, cache_write: int, reasoning: int
) -> TokenUsage:
    """`cached` and `cache_write` are parts of the input, `reasoning` is part of the output."""
    cached = min(cached, input_tokens)
    return TokenUsage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=min(cache_write, input_tokens - cached),
        reasoning_tokens=min(reasoning, output_tokens),
    )
