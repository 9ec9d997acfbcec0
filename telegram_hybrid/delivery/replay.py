"""Replay: announcing stored messages again, for a new consumer or one that missed something."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from telegram_hybrid.model import EventType, Message, checks
from telegram_hybrid.observe import traces
from telegram_hybrid.outbox import rows
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.repositories import reading
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import shard_of

_BATCH = 500


def replay(
    connection: Connection,
    schema: str,
    *,
    channel_id: int | None = None,
    since: datetime | None = None,
    queue: str | None = None,
) -> int:
    """Write a fresh event for each stored message, in this transaction; return how many.

    `channel_id` and `since` (sent at or after it) narrow the choice. With `queue`, only messages
    whose last change that queue's consumer has not dealt with, and for which no event waits in
    the outbox. Events that are on the broker at this moment are not seen: let the queue run empty
    first, or the handler gets those messages twice, by two different events.

    An event tells the present state: `message.deleted` of a deleted message, else
    `message.received`. They come by ascending message id in each channel, to every queue that is
    bound. The channels are locked, and so cannot be written to, until the transaction ends.
    """
    if channel_id is not None:
        checks.channel_id("channel_id", channel_id)
    if since is not None:
        since = checks.instant("since", since)
    channels = [channel_id] if channel_id is not None else stored_channels(connection, schema)
    lock_channels(connection, schema, channels)
    written = 0
    for channel in channels:
        for ids in _chosen(connection, schema, channel, since, queue):
            found = reading.by_ids(connection, schema, channel, ids)
            messages = [found[number] for number in ids if number in found]
            events = [(_type(each), each) for each in messages]
            rows.append(connection, schema, events, traceparent=traces.current())
            written += len(messages)
    return written


def _type(message: Message) -> EventType:
    return EventType.RECEIVED if message.deleted_at is None else EventType.DELETED


def stored_channels(connection: Connection, schema: str) -> list[int]:
    """Return the channels of which messages are stored, by id."""
    return list(connection.execute(sql(_CHANNELS, schema)).scalars())


def _chosen(
    connection: Connection, schema: str, channel_id: int, since: datetime | None, queue: str | None
) -> Iterator[list[int]]:
    """Yield the chosen message ids of a channel in ascending batches."""
    statement = sql(_KEYS if queue is None else _KEYS_MISSED, schema)
    after = -1
    while True:
        values: dict[str, Any] = {
            "channel_id": channel_id,
            "after": after,
            "since": since,
            "limit": _BATCH,
        }
        if queue is not None:
            values |= {"queue": queue, "shard": shard_of(channel_id)}
        ids = list(connection.execute(statement, values).scalars())
        if ids:
            yield ids
        if len(ids) < _BATCH:
            return
        after = ids[-1]


# Skips from channel to channel in the primary key, instead of reading all keys for a DISTINCT.
_CHANNELS = """
WITH RECURSIVE channel (id) AS (
    SELECT min(channel_id) FROM "{schema}".message_keys
    UNION ALL
    SELECT (SELECT min(channel_id) FROM "{schema}".message_keys WHERE channel_id > channel.id)
    FROM channel WHERE channel.id IS NOT NULL
)
SELECT id FROM channel WHERE id IS NOT NULL ORDER BY id
"""

_KEYS = """
SELECT message_id FROM "{schema}".message_keys AS key
WHERE channel_id = :channel_id AND message_id > :after
  AND (CAST(:since AS timestamptz) IS NULL OR sent_at >= CAST(:since AS timestamptz))
ORDER BY message_id
LIMIT :limit
"""

_KEYS_MISSED = """
SELECT key.message_id
FROM "{schema}".message_keys AS key
JOIN "{schema}".messages AS message USING (channel_id, message_id, sent_at)
WHERE key.channel_id = :channel_id AND key.message_id > :after
  AND (CAST(:since AS timestamptz) IS NULL OR key.sent_at >= CAST(:since AS timestamptz))
  AND NOT EXISTS (
      SELECT FROM "{schema}".inbox
      WHERE inbox.queue = :queue AND inbox.channel_id = key.channel_id
        AND inbox.message_id = key.message_id AND inbox.processed_at >= message.updated_at)
  AND NOT EXISTS (
      SELECT FROM "{schema}".outbox
      WHERE outbox.channel_id = key.channel_id AND outbox.message_id = key.message_id
        AND outbox.shard = :shard)
ORDER BY key.message_id
LIMIT :limit
"""
