"""How each guardrail is unplugged: one or two expressions or statements of the service's code.

An edit is made in the syntax tree. One that finds nothing to edit is an error, so that these follow
the code.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


class DoesNotApply(Exception):
    """The code is no longer what the edit was written for."""


@dataclass(frozen=True, slots=True)
class Unplug:
    """Takes one guardrail out of a rendered service.

    Every occurrence of the source texts in `replaced`, within `function` of `file`, gives way to
    the text beside it; `pass` and `None` remove a statement.
    """

    item: str
    """The name of the checklist's test."""
    file: str
    function: str
    replaced: dict[str, str]

    def apply(self, project: Path) -> None:
        """Raises `DoesNotApply` unless every text is found."""
        path = project / self.file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        function = _function(tree, self.function)
        for old, new in self.replaced.items():
            edit = _Replacement(old, new)
            edit.visit(function)
            if not edit.count:
                raise DoesNotApply(f"{self.file}, {self.function}: there is no `{old}`")
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)) + "\n", encoding="utf-8")


UNPLUGGED = (
    Unplug(
        "test_all_api_requests_are_logged",
        "app/api/asgi.py",
        "_account",
        {
            "self._visibility.log.write(caller, method=method, route=route, status=status,"
            " duration_seconds=seconds, error=error)": "None"
        },
    ),
    Unplug("test_errors_raise_alerts", "app/service.py", "start", {"self.alerts.start()": "None"}),
    Unplug(
        "test_the_environment_is_validated",
        "app/guardrails/environment/startup.py",
        "load",
        {"raise InvalidEnvironment(problems)": "pass"},
    ),
    Unplug(
        "test_api_keys_are_not_in_code",
        "app/providers/openai.py",
        "OpenAI.__init__",
        {
            "settings.api_key.get_secret_value()": "settings.api_key.get_secret_value()"
            " or 'sk-proj-one-that-somebody-left-in-the-code'"
        },
    ),
    Unplug(
        "test_external_calls_time_out",
        "app/service.py",
        "_create_providers",
        {
            f"settings.{limit}_timeout_seconds": "3600.0"
            for limit in ("connect", "first_byte", "idle")
        },
    ),
    Unplug(
        "test_retries_use_exponential_backoff",
        "app/service.py",
        "_create_fallback",
        {"settings.max_attempts": "1"},
    ),
    Unplug("test_there_is_a_fallback", "app/chat.py", "_chain", {"return able": "return able[:1]"}),
    Unplug(
        "test_the_rate_limit_is_enforced",
        "app/service.py",
        "_create_chat",
        {"settings.rate_limit_requests": "10**9"},
    ),
    Unplug(
        "test_the_daily_cost_is_capped",
        "app/service.py",
        "_create_chat",
        {"settings.daily_budget_nano_usd": "10**18"},
    ),
    Unplug(
        "test_repeats_are_idempotent",
        "app/chat.py",
        "_admitted",
        {
            "claim_for(caller, self._idempotency_from_body,"
            " lease_seconds + policy.CLAIM_MARGIN_SECONDS)": "None"
        },
    ),
    Unplug(
        "test_the_input_is_limited",
        "app/service.py",
        "_create_chat",
        {"settings.max_input_tokens": "10**9"},
    ),
    Unplug(
        "test_the_history_is_managed",
        "app/service.py",
        "_create_chat",
        {"settings.max_history_messages": "10**9"},
    ),
)


class _Replacement(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self._old = ast.dump(_parse(old))
        self._new = new
        self.count = 0

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Expr | ast.stmt | ast.expr) and ast.dump(node) == self._old:
            self.count += 1
            return _parse(self._new)
        return self.generic_visit(node)


def _parse(text: str) -> ast.AST:
    """A statement, or the expression that it consists of."""
    (statement,) = ast.parse(text).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _function(tree: ast.Module, name: str) -> ast.AST:
    """`name` is that of a function, after a dot if several classes have one."""
    *owner, last = name.split(".")
    inside: list[ast.AST] = [node for node in ast.walk(tree) if _is_named(node, owner)] or [tree]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        n for node in inside for n in ast.walk(node) if isinstance(n, kinds) and n.name == last
    ]
    if len(found) != 1:
        raise DoesNotApply(f"there are {len(found)} functions {name}")
    return found[0]


def _is_named(node: ast.AST, names: list[str]) -> bool:
    return isinstance(node, ast.ClassDef) and node.name in names
