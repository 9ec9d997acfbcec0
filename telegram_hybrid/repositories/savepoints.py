"""Savepoints as they are spoken of in SQL: what was true when one was set, is after a rollback."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")

_SAID = re.compile(
    r"""\s*(SAVEPOINT|RELEASE|ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO)\s+
        (?:SAVEPOINT\s+)?("(?:[^"]|"")+"|\w+)""",
    re.IGNORECASE | re.VERBOSE,
)


class Savepoints(Generic[_T]):
    """Those of a transaction, the latest last, each with what was known when it was set.

    `now` returns what is known, `again` is called with what is true again.
    """

    def __init__(self, now: Callable[[], _T], again: Callable[[_T], object]) -> None:
        self._now = now
        self._again = again
        self._set: list[tuple[str, _T]] = []

    def hear(self, statement: str) -> None:
        """Follow a statement that is about to run; most are of something else."""
        said = _SAID.match(statement)
        if said is None:
            return
        verb, name = said[1].upper(), _folded(said[2])
        if verb == "SAVEPOINT":
            self._set.append((name, self._now()))
            return
        position = self._latest(name)
        if verb == "RELEASE":
            del self._set[position:]
        elif position < len(self._set):
            del self._set[position + 1 :]
            self._again(self._set[position][1])

    def _latest(self, name: str) -> int:
        """The position of the latest of that name; of none, for which PostgreSQL has an error."""
        for position in reversed(range(len(self._set))):
            if self._set[position][0] == name:
                return position
        return len(self._set)


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
