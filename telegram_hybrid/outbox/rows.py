"""Event rows: written in the writer's own transaction (P2), read by the relay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Self, TypeVar
from uuid import UUID

import attrs
import uuid_utils
import uuid_utils.compat
from sqlalchemy import Connection

from telegram_hybrid.model import Event, EventType, Message
from telegram_hybrid.model.upcasting import MESSAGE, UPCASTERS
from telegram_hybrid.outbox.locks import lock_prefix
from telegram_hybrid.schema.postgres.sql import array, fetch, fetch_each
from telegram_hybrid.schema.postgres.tables import shard_of

_T = TypeVar("_T")

#: Changes that are written by one statement, and by the first where there are more: its encoding
#: and the storing of the last are all that anybody waits for.
PIECE, FIRST = 100, 20


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
    changed: Iterable[tuple[EventType, Message]],
    *,
    count: int = 0,
    storing: bool = False,
    traceparent: str | None = None,
) -> dict[int, int]:
    """Write one event for each changed message, in the given order, in this transaction.

    And one row of the log of changes, unless the channel had come as far before. Raises each
    channel's head to the highest version among its messages; returns the heads as they were
    before, {channel_id: version}, 0 for a channel that had none. `storing`, the messages that are
    just received are stored as well.

    While the database works on some of them, the next are taken from `changed` and encoded. It
    begins earlier if `count` tells that they are many.
    The caller holds the lock of every channel concerned: ids are drawn here, and within a
    channel their order must be the order of commits (P3).
    """
    values = (_columns(piece, storing, traceparent) for piece in _pieces(changed, count))
    heads: dict[int, int] = {}
    for ((before,),) in fetch_each(connection, _APPEND, schema, values):
        heads = dict(before) | heads
    return heads


def _pieces(changed: Iterable[_T], count: int) -> Iterator[list[_T]]:
    """Yield lists of PIECE, the last one shorter; the first of many, of FIRST."""
    rest = iter(changed)
    size = FIRST if count > PIECE else PIECE
    while piece := list(islice(rest, size)):
        yield piece
        size = PIECE


def _columns(
    piece: Sequence[tuple[EventType, Message]], storing: bool, traceparent: str | None
) -> dict[str, Any]:
    """The values of `_APPEND`: payloads a line each, the rest as arrays."""
    kinds, messages = zip(*piece, strict=True)
    return {
        "payloads": b"\n".join([message.to_json() for message in messages]).decode(),
        "event_ids": array([str(uuid_utils.uuid7()) for _ in messages]),
        "types": array(kinds),
        "shards": array([shard_of(message.channel_id) for message in messages]),
        "channels": array([message.channel_id for message in messages]),
        "messages": array([message.message_id for message in messages]),
        "versions": array([message.version for message in messages]),
        "statuses": array([message.status for message in messages]),
        "storing": storing and EventType.RECEIVED in kinds,
        "payload_version": UPCASTERS.current(MESSAGE),
        "traceparent": traceparent,
    }


def publish(connection: Connection, schema: str, event: Event) -> Event:
    """Lock the event's channel and write its row; return it as it will be delivered.

    The number is drawn only after the lock is held (P3).
    """
    event_id = uuid_utils.compat.uuid7()
    values = {
        "lock": lock_prefix(schema) + str(event.channel_id),
        "event_id": event_id,
        "type": event.type,
        "shard": shard_of(event.channel_id),
        "channel_id": event.channel_id,
        "payload": event.payload_json(),
        "schema_version": event.version,
        "traceparent": event.traceparent,
    }
    (((sequence, moment),),) = fetch(connection, _PUBLISH, schema, values)
    occurred_at = _EPOCH + timedelta(microseconds=moment)
    return attrs.evolve(event, event_id=event_id, sequence=sequence, occurred_at=occurred_at)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_PUBLISH = """
SELECT "{schema}".append_event(
    CAST(:lock AS text), CAST(:event_id AS uuid), CAST(:type AS text), CAST(:shard AS smallint),
    CAST(:channel_id AS bigint), CAST(:payload AS json), CAST(:schema_version AS integer),
    CAST(:traceparent AS text)
)
"""

# Without CAST, which is as much work as all of these values: there is one function of the name.
_APPEND = """
SELECT "{schema}".append_changes(
    :payloads, :event_ids, :types, :shards, :channels, :messages, :versions, :statuses, :storing,
    :payload_version, :traceparent
)
"""
