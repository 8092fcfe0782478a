"""Which messages of a conversation to keep when not all fit. Pure functions over messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

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
    everything = sum(tokens)
    if len(messages) - len(system) <= max_messages and everything <= max_tokens:
        return Trimmed(tuple(range(len(messages))), (), everything, fits=True)
    fixed = sum(tokens[i] for i in system)
    groups = _group(messages)
    room = _Room(groups, tokens, max_messages, max_tokens - fixed)
    kept = _longest_fitting(messages, groups, room)
    indices = tuple(sorted((*system, *chain.from_iterable(kept))))
    total = sum(tokens[i] for i in indices)
    dropped = tuple(sorted(set(range(len(messages))) - set(indices)))
    return Trimmed(indices, dropped, total, fits=total <= max_tokens)


class _Room:
    """Whether the groups from some place on fit; each question takes constant time."""

    def __init__(
        self, groups: Sequence[Group], tokens: Sequence[int], max_messages: int, max_tokens: int
    ) -> None:
        self._limits = (max_messages, max_tokens)
        sizes = [(len(group), sum(tokens[i] for i in group)) for group in reversed(groups)]
        counts = accumulate((count for count, _ in sizes), initial=0)
        totals = accumulate((total for _, total in sizes), initial=0)
        self._rest = list(zip(counts, totals, strict=True))[::-1]

    def holds(self, start: int, first: int | None = None) -> bool:
        """Whether the groups from `start` on fit, and the group `first` besides."""
        count, total = self._rest[start]
        if first is not None:
            count += self._rest[first][0] - self._rest[first + 1][0]
            total += self._rest[first][1] - self._rest[first + 1][1]
        return count <= self._limits[0] and total <= self._limits[1]


def _group(messages: Sequence[Message]) -> list[Group]:
    groups: list[list[int]] = []
    open_calls: set[str] = set()
    for i, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "tool" and message.tool_call_id in open_calls:
            groups[-1].append(i)
            continue
        groups.append([i])
        open_calls = {call.id for call in message.tool_calls}
    return [tuple(group) for group in groups]


def _longest_fitting(messages: Sequence[Message], groups: list[Group], room: _Room) -> list[Group]:
    if room.holds(0):
        return groups
    turns = [at for at, group in enumerate(groups) if messages[group[0]].role == "user"]
    for start in turns:
        if room.holds(start):
            return groups[start:]
    # Not even the last turn fits whole: its question stays, with as much of the rest as fits.
    question = turns[-1] if turns else None
    kept = [] if question is None else [groups[question]]
    after = 0 if question is None else question + 1
    for start in range(after, len(groups)):
        if room.holds(start, question):
            return kept + groups[start:]
    return kept + (groups[after:])[-1:]
