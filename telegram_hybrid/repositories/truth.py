"""Truth: what the database has, for the auditor of the cache to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.model import Message
from telegram_hybrid.repositories import reading


class Truth:
    """Reads past the cache, committed rows only."""

    def __init__(self, engine: Engine, schema: str) -> None:
        self._engine = engine
        self._schema = schema

    def messages(self, channel_id: int, ids: Sequence[int]) -> dict[int, Message]:
        """Return the stored ones of `ids`, deleted ones included."""
        with reads(self._engine) as connection:
            return reading.by_ids(connection, self._schema, channel_id, ids)

    def newest(self, channel_id: int, limit: int) -> Sequence[Message]:
        """Return the newest messages that are not deleted, newest first."""
        with reads(self._engine) as connection:
            return reading.newest(connection, self._schema, channel_id, limit=limit)

    def page(self, channel_id: int, number: int) -> Sequence[Message]:
        """Return all messages of a page that are not deleted, newest first."""
        with reads(self._engine) as connection:
            return reading.page(connection, self._schema, channel_id, number)
