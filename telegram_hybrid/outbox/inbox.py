"""The inbox: which events a queue's consumer has dealt with, once each (P4)."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql


def receive(
    connection: Connection,
    schema: str,
    queue: str,
    *,
    event_id: UUID,
    channel_id: int,
    message_id: int,
) -> bool:
    """Note the event as dealt with in this transaction; False if it was before.

    Of two transactions with the same event, the second waits for the first's end.
    """
    inserted = connection.execute(
        sql(_RECEIVE, schema),
        {
            "queue": queue,
            "event_id": event_id,
            "channel_id": channel_id,
            "message_id": message_id,
        },
    )
    return inserted.rowcount == 1


_RECEIVE = """
INSERT INTO "{schema}".inbox (queue, event_id, channel_id, message_id)
VALUES (:queue, :event_id, :channel_id, :message_id)
ON CONFLICT DO NOTHING
"""
