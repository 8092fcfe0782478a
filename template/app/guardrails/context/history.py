"""Which messages of a conversation to keep when not all fit. Pure functions over messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from ...messages import Message


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Indices into the conversation, ascending. `fits` is false when even the least is too much."""

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    tokens: int
    fits: bool


Group = tuple[int, ...]
"""Messages that go together: a tool call with its results, or any single message."""


def trim(
    messages: Sequence[Message],
    tokens: Sequence[int],
    *,
    max_messages: int,
    max_tokens: int,
) -> Trimmed:
    """Drops the oldest messages until both limits hold.

    System messages, the last user turn and the newest message always stay; tool calls and their
    results go or stay together; after the system messages a user turn comes first. `max_messages`
    does not count system messages. When everything fits, everything stays.
    """
    system = tuple(i for i, message in enumerate(messages) if message.role == "system")
    groups = _group(messages)
    kept = _longest_fitting(messages, groups, tokens, system, max_messages, max_tokens)
    indices = tuple(sorted((*system, *chain.from_iterable(kept))))
    total = sum(tokens[i] for i in indices)
    dropped = tuple(sorted(set(range(len(messages))) - set(indices)))
    return Trimmed(indices, dropped, total, fits=total <= max_tokens)


def _group(messages: Sequence[Message]) -> list[Group]:
    groups: list[Group] = []
    open_calls: set[str] = set()
    for i, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "tool" and message.tool_call_id in open_calls:
            groups[-1] = (*groups[-1], i)
            continue
        groups.append((i,))
        open_calls = {call.id for call in message.tool_calls}
    return groups


def _longest_fitting(
    messages: Sequence[Message],
    groups: list[Group],
    tokens: Sequence[int],
    system: Group,
    max_messages: int,
    max_tokens: int,
) -> list[Group]:
    def fits(candidate: list[Group]) -> bool:
        count = sum(map(len, candidate))
        total = sum(tokens[i] for i in chain(system, *candidate))
        return count <= max_messages and total <= max_tokens

    if fits(groups):
        return groups
    turns = [at for at, group in enumerate(groups) if messages[group[0]].role == "user"]
    for start in turns:
        if fits(groups[start:]):
            return groups[start:]
    # Not even the last turn fits whole: its question stays, with as much of the rest as fits.
    question = [groups[turns[-1]]] if turns else []
    rest = groups[turns[-1] + 1 :] if turns else groups
    for start in range(len(rest)):
        if fits(question + rest[start:]):
            return question + rest[start:]
    return question + rest[-1:]
