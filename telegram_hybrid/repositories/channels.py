"""Channels: the registry of chats whose messages are kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from telegram_hybrid.errors import InvalidInput, NotFound
from telegram_hybrid.model import Channel, GapReport, Migration, checks
from telegram_hybrid.repositories import gaps, lineage
from telegram_hybrid.schema.postgres.sql import sql

_FIELDS = "channel_id, title, username, label, description, is_active, created_at, updated_at"

# What the caller does not know (NULL) does not erase what an earlier call said.
_REGISTER = """
INSERT INTO "{schema}".channels AS known
    (channel_id, title, username, label, description, is_active)
VALUES (:channel_id, :title, :username, :label, :description, :is_active)
ON CONFLICT (channel_id) DO UPDATE SET
    title = coalesce(excluded.title, known.title),
    username = coalesce(excluded.username, known.username),
    label = coalesce(excluded.label, known.label),
    description = coalesce(excluded.description, known.description),
    is_active = excluded.is_active,
    updated_at = now()
RETURNING {fields}
""".replace("{fields}", _FIELDS)

_GET = """
SELECT {fields} FROM "{schema}".channels WHERE channel_id = :channel_id
""".replace("{fields}", _FIELDS)

_LIST = """
SELECT {fields} FROM "{schema}".channels
WHERE is_active OR NOT :active_only ORDER BY channel_id
""".replace("{fields}", _FIELDS)

_DEACTIVATE = """
UPDATE "{schema}".channels SET is_active = false, updated_at = now()
WHERE channel_id = :channel_id RETURNING {fields}
""".replace("{fields}", _FIELDS)


class Channels:
    """The registry. Each call is one transaction, or part of the one it was got from."""

    def __init__(
        self, connect: Callable[[], AbstractContextManager[Connection]], schema: str
    ) -> None:
        self._connect = connect
        self._schema = schema

    def register(self, channel: Channel) -> Channel:
        """Store a channel, or bring a stored one up to date, and return it as it is now.

        Fields that are None keep what is stored. Raises `InvalidInput` for what is no Channel.
        """
        if not isinstance(channel, Channel):
            raise InvalidInput("channel", f"expected a Channel, got {type(channel).__name__}")
        row = self._run(
            _REGISTER,
            channel_id=channel.channel_id,
            title=channel.title,
            username=channel.username,
            label=channel.label,
            description=channel.description,
            is_active=channel.is_active,
        )[0]
        return _channel(row)

    def get(self, channel_id: int) -> Channel | None:
        """Return the channel with this marked chat id, or None."""
        checks.channel_id("channel_id", channel_id)
        rows = self._run(_GET, channel_id=channel_id)
        return _channel(rows[0]) if rows else None

    def list(self, *, active_only: bool = False) -> list[Channel]:
        """Return all channels, or the active ones, by channel_id."""
        return [_channel(row) for row in self._run(_LIST, active_only=active_only)]

    def deactivate(self, channel_id: int) -> Channel:
        """Mark a channel as no longer followed; its messages stay. Raises `NotFound`."""
        checks.channel_id("channel_id", channel_id)
        rows = self._run(_DEACTIVATE, channel_id=channel_id)
        if not rows:
            raise NotFound(f"channel {channel_id} is not registered")
        return _channel(rows[0])

    def record_migration(
        self, old: int, new: int, *, migrated_at: datetime | None = None
    ) -> Migration:
        """Record that the basic group `old` became the supergroup `new`; return what is recorded.

        Not needed where Telegram's service message is saved, of the Bot API or Telethon: that
        records it, too. Desktop exports do not name the other chat. `new` is registered, with the
        label, description and activity of `old`. The same again changes nothing. Raises
        `MigrationConflict` if another migration of either is recorded, and `InvalidInput` for ids
        that are not those of a basic group and a supergroup.
        """
        migration = Migration(old=old, new=new, migrated_at=migrated_at)
        with self._connect() as connection:
            return lineage.record(connection, self._schema, migration)

    def lineage(self, channel_id: int) -> tuple[int, ...]:
        """Return the chats whose histories are one with this chat's, oldest first.

        A group that became a supergroup and the latter, whichever is asked for; any other chat
        alone. `messages.history` reads them as one.
        """
        checks.channel_id("channel_id", channel_id)
        with self._connect() as connection:
            return lineage.lineage(connection, self._schema, channel_id)

    def gaps(self, channel_id: int, *, limit: int = 1000, after: int | None = None) -> GapReport:
        """Return which ids of a channel are known, which are not, and between which times.

        With up to `limit` gaps, by id; for more, give the `last` of the last one as `after`. A gap
        proves nothing: see `Gap`. Walks over the channel's keys, in memory that does not depend on
        their number.
        """
        checks.channel_id("channel_id", channel_id)
        checks.count("limit", limit, most=100_000)
        above = -1 if after is None else checks.message_id("after", after)
        with self._connect() as connection:
            return gaps.report(connection, self._schema, channel_id, limit=limit, after=above)

    def _run(self, statement: str, **values: Any) -> Any:
        with self._connect() as connection:
            return connection.execute(sql(statement, self._schema), values).all()


def _channel(row: Row[Any]) -> Channel:
    return Channel(**row._mapping)
