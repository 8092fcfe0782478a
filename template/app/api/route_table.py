"""Which route a path belongs to: what log lines and metrics name instead of the path itself."""

import re
from collections.abc import Iterable
from typing import Final

UNMATCHED: Final = "unmatched"

_PARAMETER = re.compile(r"\{[^{}]*\}")


class RouteTable:
    """Knows routes by their templates, such as `/items/{id}` or `/files/{name:path}`.

    A framework tells the route that it has taken; this tells it of requests too that are refused
    before they reach the framework.
    """

    def __init__(self, templates: Iterable[str]) -> None:
        known = sorted(templates, key=lambda template: ":path}" in template)
        self._plain = {template for template in known if "{" not in template}
        self._patterns = [(_pattern(t), t) for t in known if t not in self._plain]

    def template_of(self, path: str) -> str:
        """The route's template; `unmatched` where there is no such route."""
        if path in self._plain:
            return path
        return next((t for pattern, t in self._patterns if pattern.fullmatch(path)), UNMATCHED)


def _pattern(template: str) -> re.Pattern[str]:
    """A parameter stands for one segment of the path, one of the type `path` for all the rest."""
    texts = map(re.escape, _PARAMETER.split(template))
    values = [".+" if p.endswith(":path}") else "[^/]+" for p in _PARAMETER.findall(template)]
    return re.compile(
        "".join(text + value for text, value in zip(texts, [*values, ""], strict=True))
    )
