"""Inserting new messages: the part of the statement that also writes their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from telegram_hybrid.model import Message
from telegram_hybrid.model.message import present

_COLUMNS = (
    "channel_id, message_id, sent_at, version, source, message_type, text, caption, entities, "
    "edited_at, sender_id, sender_name, reply_to_id, thread_id, grouped_id, media_type, media, "
    "metadata"
)

#: Common table expressions that store new messages, to stand before those of their events.
INSERTED = """
incoming AS (
    SELECT * FROM unnest(
        CAST(:channel_id AS bigint[]), CAST(:message_id AS bigint[]),
        CAST(:sent_at AS timestamptz[]), CAST(:version AS bigint[]), CAST(:source AS text[]),
        CAST(:message_type AS text[]), CAST(:text AS text[]), CAST(:caption AS text[]),
        CAST(:entities AS jsonb[]), CAST(:edited_at AS timestamptz[]),
        CAST(:sender_id AS bigint[]), CAST(:sender_name AS text[]),
        CAST(:reply_to_id AS bigint[]), CAST(:thread_id AS bigint[]),
        CAST(:grouped_id AS bigint[]), CAST(:media_type AS text[]), CAST(:media AS jsonb[]),
        CAST(:metadata AS jsonb[])
    ) AS row ({columns})
), registered AS (
    INSERT INTO "{schema}".channels (channel_id) SELECT DISTINCT channel_id FROM incoming
    ON CONFLICT DO NOTHING
), keyed AS (
    INSERT INTO "{schema}".message_keys (channel_id, message_id, sent_at)
    SELECT channel_id, message_id, sent_at FROM incoming
), inserted AS (
    INSERT INTO "{schema}".messages ({columns}, status) SELECT {columns}, 'received' FROM incoming
),
""".replace("{columns}", _COLUMNS)


def inserted(messages: Sequence[Message]) -> dict[str, list[Any]]:
    """Return the values of `INSERTED`."""
    rows = [columns(message) for message in messages]
    return {name: [row[name] for row in rows] for name in rows[0]}


def columns(message: Message) -> dict[str, Any]:
    """Return what is stored of a message, by column."""
    return {
        "channel_id": message.channel_id,
        "message_id": message.message_id,
        "sent_at": message.sent_at,
        "version": message.version,
        "source": message.source.value,
        "message_type": message.message_type.value,
        "text": message.text,
        "caption": message.caption,
        "entities": _json([present(entity) for entity in message.entities]),
        "edited_at": message.edited_at,
        "sender_id": message.sender_id,
        "sender_name": message.sender_name,
        "reply_to_id": message.reply_to_id,
        "thread_id": message.thread_id,
        "grouped_id": message.grouped_id,
        "media_type": message.media_type,
        "media": _json([present(media) for media in message.media]),
        "metadata": _json(message.metadata),
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
