"""Event rows: written in the writer's own transaction (P2), read by the relay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs
import uuid_utils.compat
from sqlalchemy import Connection, text

from telegram_hybrid.model import Event, EventType, Message
from telegram_hybrid.schema.postgres.tables import shard_of


@attrs.frozen(slots=True, kw_only=True)
class OutboxRow:
    """One event that waits to be published. `id` is its sequence number on its channel."""

    id: int
    event_id: UUID
    type: EventType
    channel_id: int
    message_id: int
    payload: str
    traceparent: str | None
    occurred_at: datetime
    attempts: int = 0

    def event(self) -> Event:
        """The event that this row announces."""
        return Event(
            event_id=self.event_id,
            type=self.type,
            sequence=self.id,
            occurred_at=self.occurred_at,
            message=Message.from_json(self.payload),
            traceparent=self.traceparent,
        )


def append(
    connection: Connection,
    schema: str,
    changed: Sequence[tuple[EventType, Message]],
    *,
    traceparent: str | None = None,
) -> None:
    """Write one event for each changed message, in the given order, in this transaction.

    The caller holds the lock of every channel concerned: ids are drawn here, and within a
    channel their order must be the order of commits (P3).
    """
    if not changed:
        return
    connection.execute(
        text(_APPEND.format(schema=schema)),
        {
            "event_id": [uuid_utils.compat.uuid7() for _ in changed],
            "type": [kind.value for kind, _ in changed],
            "shard": [shard_of(message.channel_id) for _, message in changed],
            "channel_id": [message.channel_id for _, message in changed],
            "message_id": [message.message_id for _, message in changed],
            "payload": [message.to_json().decode() for _, message in changed],
            "traceparent": traceparent,
        },
    )


_APPEND = """
INSERT INTO "{schema}".outbox
    (shard, event_id, type, channel_id, message_id, payload, traceparent, occurred_at)
SELECT shard, event_id, type, channel_id, message_id, payload::json, :traceparent,
       clock_timestamp()
FROM unnest(
    CAST(:shard AS smallint[]), CAST(:event_id AS uuid[]), CAST(:type AS text[]),
    CAST(:channel_id AS bigint[]), CAST(:message_id AS bigint[]), CAST(:payload AS text[])
) WITH ORDINALITY
    AS row (shard, event_id, type, channel_id, message_id, payload, position)
ORDER BY position
"""
