"""The inbox: which events a queue's consumer has dealt with, once each (P4)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import attrs
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import array, fetch, sql


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
    values = {
        "queue": queue,
        "events": array(entry.event_id for entry in entries),
        "channels": array(entry.channel_id for entry in entries),
        "messages": array(entry.message_id for entry in entries),
    }
    return {event_id for (event_id,) in fetch(connection, _RECEIVE, schema, values)}


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

_RECEIVE = """
SELECT "{schema}".receive_events(
    CAST(:queue AS text), CAST(:events AS uuid[]), CAST(:channels AS bigint[]),
    CAST(:messages AS bigint[])
)
"""
