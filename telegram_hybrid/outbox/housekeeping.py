"""Forgetting what is no longer needed: in small batches, with locks on those rows alone.

An inbox row may go when its event cannot come again: after the window, and never while the event
still waits in the outbox (a relay may have published it and died before deleting it) or has a
dead letter that is open, or was settled within the window (a replay sends the event to all
queues). Event ids are UUIDv7, so the primary key orders them by time, and the oldest of a queue
are found without another index.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql

#: Below every event id.
NO_EVENT = UUID(int=0)


def horizon(connection: Connection, schema: str, *, window: float) -> datetime:
    """Return the time before which inbox rows may go: `window` seconds ago, by the database's
    clock, or when the oldest event occurred that still waits in the outbox."""
    found: datetime = connection.execute(sql(_HORIZON, schema), {"window": window}).scalar_one()
    return found


def forget(
    connection: Connection, schema: str, queue: str, *, before: datetime, after: UUID, limit: int
) -> tuple[int, UUID | None]:
    """Look at up to `limit` inbox rows of a queue with ids above `after`, and delete those that
    may go; return how many those were, and where to go on (None: it is done)."""
    values = {
        "queue": queue,
        "before": before,
        "after": after,
        "below": first_id(before),
        "limit": limit,
    }
    count, last, seen = connection.execute(sql(_FORGET, schema), values).one()
    return count, (None if seen < limit else last)


def forget_letters(connection: Connection, schema: str, *, seconds: float, limit: int) -> int:
    """Delete up to `limit` dead letters that were settled longer than `seconds` ago."""
    values = {"seconds": seconds, "limit": limit}
    return connection.execute(sql(_FORGET_LETTERS, schema), values).rowcount


def first_id(at: datetime) -> UUID:
    """The lowest UUIDv7 of a time (RFC 9562: 48 bits of milliseconds come first)."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


_HORIZON = """
SELECT least(now() - make_interval(secs => :window), min(occurred_at)) FROM "{schema}".outbox
"""

_FORGET = """
WITH old AS MATERIALIZED (
    SELECT event_id, processed_at
    FROM "{schema}".inbox
    WHERE queue = :queue AND event_id > CAST(:after AS uuid) AND event_id < CAST(:below AS uuid)
    ORDER BY event_id
    LIMIT :limit
), gone AS (
    DELETE FROM "{schema}".inbox
    USING old
    WHERE inbox.queue = :queue AND inbox.event_id = old.event_id
      AND old.processed_at < :before
      AND NOT EXISTS (
          SELECT FROM "{schema}".dead_letters AS letter
          WHERE letter.event_id = old.event_id
            AND (letter.settled_at IS NULL OR letter.settled_at >= :before))
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT event_id FROM old ORDER BY event_id DESC LIMIT 1),
       (SELECT count(*) FROM old)
"""

_FORGET_LETTERS = """
DELETE FROM "{schema}".dead_letters
WHERE id IN (
    SELECT id FROM "{schema}".dead_letters
    WHERE settled_at < now() - make_interval(secs => :seconds)
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
"""
