"""Partitions on demand: a message of any month finds its place."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.schema.postgres.sql import sql

_ENSURE = 'SELECT "{schema}".ensure_message_partition(:at)'


class Partitions:
    """Makes the monthly partitions that are missing, and remembers the ones that are there.

    They are made in a transaction of their own: it locks nothing that writers of messages hold,
    and an empty partition left by a writer that rolled back harms nobody. `engine` must not be
    the writers' pool, nor go through the same pooler: each of them may hold a connection while it
    waits here for another.
    """

    def __init__(self, engine: Engine, schema: str) -> None:
        self._engine = engine
        self._statement = sql(_ENSURE, schema)
        self._known: set[tuple[int, int]] = set()
        self._making = threading.Lock()

    def ensure(self, instants: Iterable[datetime]) -> None:
        """Make sure that a row can be stored under each of these times (aware, UTC)."""
        months = {(at.year, at.month): at for at in instants}
        if months.keys() <= self._known:
            return
        with self._making:
            for month in sorted(months.keys() - self._known):
                with transaction(self._engine) as connection:
                    connection.execute(self._statement, {"at": months[month]})
                self._known.add(month)

    def forget(self) -> None:
        """Ask again for every month: somebody has dropped a partition."""
        with self._making:
            self._known = set()
