"""The inbox: which events a queue's consumer has dealt with, once each (P4)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import attrs
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True)
class Entry:
    """One event, by its id and its message; None for an event of somebody's own."""

    event_id: UUID
    channel_id: int
    message_id: int | None


def receive(connection: Connection, schema: str, queue: str, entries: Sequence[Entry]) -> set[UUID]:
    """Note events as dealt with in this transaction; return those that were not before.

    Of two transactions with the same event, the second waits for the first's end. The events are
    noted in the order of their ids, so that two such transactions never deadlock.
    """
    if len(entries) == 1:  # as most are, and to plan a row is cheaper than to plan a list
        (entry,) = entries
        row = connection.execute(
            sql(_RECEIVE_ONE, schema),
            {
                "queue": queue,
                "event_id": entry.event_id,
                "channel_id": entry.channel_id,
                "message_id": entry.message_id,
            },
        )
        return {entry.event_id} if row.rowcount else set()
    rows = connection.execute(
        sql(_RECEIVE, schema),
        {
            "queue": queue,
            "event_id": [entry.event_id for entry in entries],
            "channel_id": [entry.channel_id for entry in entries],
            "message_id": [entry.message_id for entry in entries],
        },
    )
    return set(rows.scalars())


def queues(connection: Connection, schema: str) -> set[str]:
    """Return the queues of which some consumer has ever dealt with an event."""
    return set(connection.execute(sql(_QUEUES, schema)).scalars())


# From each queue to the next by the primary key (PostgreSQL wiki, "Loose indexscan"): one look
# for each queue, not for each row.
_QUEUES = """
WITH RECURSIVE known AS (
    SELECT min(queue) AS queue FROM "{schema}".inbox
    UNION ALL
    SELECT (SELECT min(queue) FROM "{schema}".inbox WHERE queue > known.queue)
    FROM known WHERE known.queue IS NOT NULL
)
SELECT queue FROM known WHERE queue IS NOT NULL
"""

_RECEIVE_ONE = """
INSERT INTO "{schema}".inbox (queue, event_id, channel_id, message_id)
VALUES (:queue, :event_id, :channel_id, :message_id)
ON CONFLICT DO NOTHING
"""

_RECEIVE = """
INSERT INTO "{schema}".inbox (queue, event_id, channel_id, message_id)
SELECT :queue, event_id, channel_id, message_id
FROM unnest(CAST(:event_id AS uuid[]), CAST(:channel_id AS bigint[]),
            CAST(:message_id AS bigint[])) AS event (event_id, channel_id, message_id)
ORDER BY event_id
ON CONFLICT DO NOTHING
RETURNING event_id
"""
