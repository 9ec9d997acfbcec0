"""Savepoints as they are spoken of in SQL: what was true when one was set, is after a rollback."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")

_COMMENTS = r"(?>\s+|--[^\n]*\n|/\*.*?\*/)*+"
_SAID = re.compile(
    rf"""{_COMMENTS}(SAVEPOINT|RELEASE|ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO)\s+
        (?:SAVEPOINT\s+)?("(?:[^"]|"")+"|\w+)""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_END = re.compile(
    rf"""{_COMMENTS}(?:COMMIT|END|ABORT|PREPARE\s+TRANSACTION
        |ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b))\b""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)


class Savepoints(Generic[_T]):
    """Those of a transaction, the latest last, each with what was known when it was set.

    `now` returns what is known, `again` is called with what is true again.
    """

    def __init__(self, now: Callable[[], _T], again: Callable[[_T], object]) -> None:
        self._now = now
        self._again = again
        self._set: list[tuple[str, _T]] = []

    def __bool__(self) -> bool:
        """Whether any is set."""
        return bool(self._set)

    def hear(self, statement: str) -> None:
        """Follow a statement that is about to run: whatever becomes of a rollback, it is one."""
        said = _SAID.match(statement)
        if said is None or said[1].upper() in ("SAVEPOINT", "RELEASE"):
            return
        position = self._latest(_folded(said[2]))
        if position < len(self._set):
            del self._set[position + 1 :]
            self._again(self._set[position][1])

    def heard(self, statement: str) -> None:
        """Follow a statement that has run: what was refused has neither set nor released one."""
        said = _SAID.match(statement)
        if said is None:
            return
        verb, name = said[1].upper(), _folded(said[2])
        if verb == "SAVEPOINT":
            self._set.append((name, self._now()))
        elif verb == "RELEASE":
            del self._set[self._latest(name) :]

    def _latest(self, name: str) -> int:
        """The position of the latest of that name; of none, for which PostgreSQL has an error."""
        for position in reversed(range(len(self._set))):
            if self._set[position][0] == name:
                return position
        return len(self._set)


def ends_transaction(statement: str) -> bool:
    """Whether it commits or rolls back all of a transaction."""
    return _END.match(statement) is not None


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
