"""Partitions on demand: a message of any time finds its place."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.schema.postgres.ranges import ahead, ensure_ranges, slot

#: All there are, for a forked child: a thread of its parent may hold the lock for ever.
_all: weakref.WeakSet[Partitions] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each._making = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Partitions:
    """Makes the partitions that are missing, and remembers the ones that are there.

    They are made in a transaction of their own: it locks nothing that writers of messages hold,
    and an empty partition left by a writer that rolled back harms nobody. `engine` must not be
    the writers' pool, nor go through the same pooler: each of them may hold a connection while it
    waits here for another. `seconds` is how much time a new one holds.
    """

    def __init__(self, engine: Engine, schema: str, seconds: float) -> None:
        self._engine = engine
        self._schema = schema
        self._seconds = seconds
        self._known: set[int] = set()
        self._making = threading.Lock()
        _all.add(self)

    def ensure(self, instants: Iterable[datetime]) -> None:
        """Make sure that a row can be stored under each of these times (aware)."""
        slots = {slot(at, self._seconds) for at in instants}
        if slots <= self._known:
            return
        with self._making:
            for number in sorted(slots - self._known):
                with transaction(self._engine) as connection:
                    ensure_ranges(connection, self._schema, [number], self._seconds)
                self._known.add(number)

    def ahead(self) -> int:
        """Make those of the near future, so that no writer has to; return how many were missing."""
        with transaction(self._engine) as connection:
            return ahead(connection, self._schema, self._seconds)

    def forget(self) -> None:
        """Ask again for every time: somebody has dropped a partition."""
        with self._making:
            self._known = set()
