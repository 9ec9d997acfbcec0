"""Partitions on demand: a message of any month finds its place."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.schema.postgres.sql import sql

_ENSURE = 'SELECT "{schema}".ensure_message_partition(:at)'


class Partitions:
    """Makes the monthly partitions that are missing, and remembers the ones that are there.

    They are made in a transaction of their own: it locks nothing that writers of messages hold,
    and an empty partition left by a writer that rolled back harms nobody.
    """

    def __init__(self, engine: Engine, schema: str) -> None:
        self._engine = engine
        self._statement = sql(_ENSURE, schema)
        self._known: set[tuple[int, int]] = set()

    def ensure(self, instants: Iterable[datetime]) -> None:
        """Make sure that a row can be stored under each of these times (aware, UTC)."""
        missing = {(at.year, at.month): at for at in instants}
        for month in missing.keys() & self._known:
            del missing[month]
        for month in sorted(missing):
            with transaction(self._engine) as connection:
                connection.execute(self._statement, {"at": missing[month]})
            self._known.add(month)
