"""Carried: a row of the outbox as the broker, the cache and the log get it; pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from telegram_hybrid.delivery.worker import log
from telegram_hybrid.model import Change, EventType, MessageKey
from telegram_hybrid.outbox.claims import Postponement
from telegram_hybrid.outbox.rows import OutboxRow
from telegram_hybrid.schema.broker import Envelope, seal


def tell(late: Sequence[Postponement]) -> None:
    for each in late:
        row = each.row
        log.warning(
            "relay: event %s of channel %s, attempt %s: %s; the channel waits %.1f s",
            row.id,
            row.channel_id,
            row.attempts + 1,
            each.error,
            each.delay,
        )


class _Version(msgspec.Struct):
    version: int = 0


_VERSION = msgspec.json.Decoder(_Version)


def changes_of(rows: Sequence[OutboxRow]) -> list[Change]:
    """What the cache has to forget; events of somebody's own change no message.

    Of a message, whatever type and payload an event has: one of another version of the library,
    or a replayed letter, of which no relay may die.
    """
    return [
        Change(MessageKey(row.channel_id, row.message_id), _version(row), _type(row))
        for row in rows
        if row.message_id is not None
    ]


def _version(row: OutboxRow) -> int:
    try:
        return _VERSION.decode(row.payload).version
    except (msgspec.DecodeError, RecursionError):
        return 0


def _type(row: OutboxRow) -> EventType:
    try:
        return EventType(row.type)
    except ValueError:
        return EventType.EDITED


def seal_row(row: OutboxRow) -> Envelope:
    return seal(
        event_id=row.event_id,
        type=row.type,
        sequence=row.id,
        occurred_at=row.occurred_at,
        channel_id=row.channel_id,
        message_id=row.message_id,
        payload=row.payload,
        version=row.version,
        traceparent=row.traceparent,
    )
