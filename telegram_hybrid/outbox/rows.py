"""Event rows: written in the writer's own transaction (P2), read by the relay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import attrs
import uuid_utils.compat
from sqlalchemy import Connection

from telegram_hybrid.model import Event, EventType, Message
from telegram_hybrid.model.upcasting import MESSAGE, UPCASTERS
from telegram_hybrid.outbox.locks import LOCKED, lock_prefix
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import shard_of


@attrs.frozen(slots=True, kw_only=True)
class OutboxRow:
    """One event that waits to be published. `id` is its sequence number on its channel.

    `message_id` is None for an event of somebody's own, whose topic is its type.
    """

    id: int
    event_id: UUID
    type: str
    channel_id: int
    message_id: int | None
    payload: str
    version: int = 1
    traceparent: str | None
    occurred_at: datetime
    attempts: int = 0

    @property
    def shard(self) -> int:
        """The shard of its channel."""
        return shard_of(self.channel_id)

    @classmethod
    def from_tuple(cls, values: Sequence[Any]) -> Self:
        """Build it from its columns in the order of the fields."""
        number, event_id, kind, channel_id, message_id, payload, version, *rest = values
        traceparent, occurred_at, attempts = rest
        return cls(
            id=number,
            event_id=event_id,
            type=kind,
            channel_id=channel_id,
            message_id=message_id,
            payload=payload,
            version=version,
            traceparent=traceparent,
            occurred_at=occurred_at,
            attempts=attempts,
        )


def append(
    connection: Connection,
    schema: str,
    changed: Sequence[tuple[EventType, Message]],
    *,
    traceparent: str | None = None,
    beside: str = "",
    values: Mapping[str, Any] | None = None,
) -> dict[int, int]:
    """Write one event for each changed message, in the given order, in this transaction.

    Raises each channel's head to the highest version among its messages; returns the heads as
    they were before, {channel_id: version}, 0 for a channel that had none.

    `beside` are common table expressions, with a comma behind each, that write with `values` in
    the same statement: the messages themselves, so that their events cost no round trip.

    The caller holds the lock of every channel concerned: ids are drawn here, and within a
    channel their order must be the order of commits (P3).
    """
    if not changed:
        return {}
    rows = connection.execute(
        sql(f"WITH {beside}{_EVENTS}", schema),
        {
            **(values or {}),
            "event_id": [uuid_utils.compat.uuid7() for _ in changed],
            "event_type": [kind.value for kind, _ in changed],
            "event_shard": [shard_of(message.channel_id) for _, message in changed],
            "event_channel_id": [message.channel_id for _, message in changed],
            "event_message_id": [message.message_id for _, message in changed],
            "event_payload": [message.to_json().decode() for _, message in changed],
            "event_version": [message.version for _, message in changed],
            "schema_version": UPCASTERS.current(MESSAGE),
            "traceparent": traceparent,
        },
    )
    return {channel_id: version for channel_id, version in rows}  # noqa: C416


def publish(connection: Connection, schema: str, event: Event) -> Event:
    """Lock the event's channel and write its row; return it as it will be delivered.

    One statement, which draws the number only after it has the lock (P3).
    """
    event_id = uuid_utils.compat.uuid7()
    values = {
        "prefix": lock_prefix(schema),
        "channel_ids": [event.channel_id],
        "event_id": event_id,
        "type": event.type,
        "shard": shard_of(event.channel_id),
        "channel_id": event.channel_id,
        "payload": event.payload_json(),
        "schema_version": event.version,
        "traceparent": event.traceparent,
    }
    sequence, occurred_at = connection.execute(sql(_PUBLISH, schema), values).one()
    return attrs.evolve(event, event_id=event_id, sequence=sequence, occurred_at=occurred_at)


_PUBLISH = f"""
WITH {LOCKED}
INSERT INTO "{{schema}}".outbox
    (shard, event_id, type, channel_id, payload, schema_version, traceparent, occurred_at)
SELECT :shard, CAST(:event_id AS uuid), :type, :channel_id, CAST(:payload AS json),
       :schema_version, CAST(:traceparent AS text), clock_timestamp()
FROM locked
RETURNING id, occurred_at
"""  # noqa: S608

# A statement sees its tables as they were before it, so `heads` does not show in the answer.
_EVENTS = """
event AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(:event_shard AS smallint[]), CAST(:event_id AS uuid[]), CAST(:event_type AS text[]),
        CAST(:event_channel_id AS bigint[]), CAST(:event_message_id AS bigint[]),
        CAST(:event_payload AS text[]), CAST(:event_version AS bigint[])
    ) WITH ORDINALITY
        AS row (shard, event_id, type, channel_id, message_id, payload, version, position)
), appended AS (
    INSERT INTO "{schema}".outbox
        (shard, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
         occurred_at)
    SELECT shard, event_id, type, channel_id, message_id, payload::json, :schema_version,
           :traceparent, clock_timestamp()
    FROM event
    ORDER BY position
), reached AS (
    SELECT channel_id, max(version) AS version FROM event GROUP BY channel_id
), heads AS (
    INSERT INTO "{schema}".channel_heads AS head (channel_id, version, changed_at)
    SELECT channel_id, version, clock_timestamp() FROM reached
    ON CONFLICT (channel_id) DO UPDATE
    SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at
    WHERE head.version < EXCLUDED.version
)
SELECT channel_id, coalesce((SELECT version FROM "{schema}".channel_heads AS before
                             WHERE before.channel_id = reached.channel_id), 0)
FROM reached
"""
