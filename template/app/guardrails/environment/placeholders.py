"""Tells a real secret from what people leave in a copied example file."""

import re

_PLACEHOLDER = re.compile(
    r"""
      sk-x{2,}.* | x{3,} | \*{3,} | \.{3,} | -+
    | change[-_ ]?(me|this).* | replace[-_ ]?(me|this).* | (to[-_ ]?do|tbd|fixme|dummy|none|null)
    | placeholder | example | (your|insert|enter|put|paste)[-_ ].* | .*[-_ ]here
    | <.*> | \{.*\} | \[.*\] | \$\w+
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def is_placeholder(value: str) -> bool:
    """Whether `value` is empty or what stands in examples: `sk-xxx`, `changeme`, `<key>` ..."""
    bare = value.strip().strip("\"'")
    return not bare or _PLACEHOLDER.fullmatch(bare) is not None
