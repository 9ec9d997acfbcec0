"""What happened in a campaign, and the judge over it: a pure function, tested by planted faults.

Every write carries a token of its own, and leaves a row in a ledger in its own transaction. Its
`position` on its channel comes from a counter row that is locked until the commit, so positions
are the order of commits, whatever the library's own numbers say. The judge compares three lists
of tokens: the ledger, what a queue beside the consumers' got, and what handlers left behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import attrs


class Kind(StrEnum):
    """How a promise can be broken."""

    UNPUBLISHED = "committed, never published"
    UNHANDLED = "committed, never handled"
    PHANTOM = "published or handled, never committed"
    INVERTED = "out of the order of commits"
    TWICE = "handled twice"
    MISNUMBERED = "numbered out of the order of commits"


@attrs.frozen(slots=True)
class Committed:
    """A row of the ledger: the `position`-th commit of its channel (1, 2, ..)."""

    channel: int
    position: int
    token: str


@attrs.frozen(slots=True)
class Seen:
    """An event as the broker or a handler had it; `sequence` is the library's own number."""

    channel: int
    token: str
    sequence: int


@attrs.frozen(slots=True)
class Violation:
    kind: Kind
    channel: int
    token: str
    detail: str = ""


@attrs.frozen(slots=True)
class History:
    """`published` and `handled` in the order in which it happened, repetitions included."""

    committed: Sequence[Committed]
    published: Sequence[Seen]
    handled: Sequence[Seen]


def judge(history: History) -> list[Violation]:
    """Everything in which a history breaks P2, P3 or P4; empty if nothing does."""
    positions = {(each.channel, each.token): each.position for each in history.committed}
    return [
        *_missing(Kind.UNPUBLISHED, history.committed, history.published),
        *_missing(Kind.UNHANDLED, history.committed, history.handled),
        *_phantoms(positions, "published", history.published),
        *_phantoms(positions, "handled", history.handled),
        *_inversions(positions, "published", history.published),
        *_inversions(positions, "handled", history.handled),
        *_twice(history.handled),
        *_misnumbered(positions, history.published),
    ]


_Positions = dict[tuple[int, str], int]


def _missing(
    kind: Kind, committed: Sequence[Committed], seen: Sequence[Seen]
) -> Iterator[Violation]:
    there = {(each.channel, each.token) for each in seen}
    for each in committed:
        if (each.channel, each.token) not in there:
            yield Violation(kind, each.channel, each.token, f"position {each.position}")


def _phantoms(positions: _Positions, where: str, seen: Iterable[Seen]) -> Iterator[Violation]:
    for each in dict.fromkeys(seen):
        if (each.channel, each.token) not in positions:
            yield Violation(Kind.PHANTOM, each.channel, each.token, where)


def _inversions(positions: _Positions, where: str, seen: Iterable[Seen]) -> Iterator[Violation]:
    """After dedup: a repetition may come at any time, only the first of each counts."""
    last: dict[int, int] = {}
    known: set[tuple[int, str]] = set()
    for each in seen:
        key = each.channel, each.token
        if key in known or key not in positions:
            continue
        known.add(key)
        before, position = last.get(each.channel, 0), positions[key]
        if position < before:
            detail = f"{where}: position {position} after {before}"
            yield Violation(Kind.INVERTED, each.channel, each.token, detail)
        last[each.channel] = max(before, position)


def _twice(handled: Iterable[Seen]) -> Iterator[Violation]:
    for (channel, token), times in Counter((each.channel, each.token) for each in handled).items():
        if times > 1:
            yield Violation(Kind.TWICE, channel, token, f"{times} times")


def _misnumbered(positions: _Positions, published: Iterable[Seen]) -> Iterator[Violation]:
    """A consumer may sort by `sequence`: it must grow with the commits, and never change."""
    numbers: dict[tuple[int, str], int] = {}
    for each in published:
        key = each.channel, each.token
        if key in positions and numbers.setdefault(key, each.sequence) != each.sequence:
            yield Violation(Kind.MISNUMBERED, *key, f"{numbers[key]}, then {each.sequence}")
    last: dict[int, int] = {}
    for channel, token in sorted(numbers, key=lambda key: (key[0], positions[key])):
        number = numbers[channel, token]
        if number <= last.get(channel, -1):
            yield Violation(Kind.MISNUMBERED, channel, token, f"{number} after {last[channel]}")
        last[channel] = number
