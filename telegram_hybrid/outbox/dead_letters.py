"""Dead letters of consumers: events that a queue's handler gave up, kept as rows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True, kw_only=True)
class DeadLetter:
    """What is known of an event that was given up; `payload` is JSON."""

    event_id: UUID
    type: str
    channel_id: int
    message_id: int
    payload: str
    traceparent: str | None
    occurred_at: datetime
    sequence: int


def bury(
    connection: Connection,
    schema: str,
    letter: DeadLetter,
    *,
    queue: str,
    attempts: int,
    reason: str,
) -> None:
    """Write the row in this transaction, beside the inbox row that ends the event's retries."""
    connection.execute(
        sql(_BURY, schema),
        {**attrs.asdict(letter), "queue": queue, "attempts": attempts, "reason": reason},
    )


def count(connection: Connection, schema: str) -> int:
    """Count the rows, those that relays gave up included."""
    found: int = connection.execute(sql(_COUNT, schema)).scalar_one()
    return found


_COUNT = """
SELECT count(*) FROM "{schema}".dead_letters
"""

_BURY = """
INSERT INTO "{schema}".dead_letters
    (queue, event_id, type, channel_id, message_id, payload, traceparent, occurred_at,
     sequence, attempts, reason)
VALUES (:queue, :event_id, :type, :channel_id, :message_id, CAST(:payload AS json), :traceparent,
        :occurred_at, :sequence, :attempts, :reason)
"""
