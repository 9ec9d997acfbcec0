"""Messages as rows: the columns that hold what Telegram said, and our version of it."""

from __future__ import annotations

from typing import Any

import msgspec

from telegram_hybrid.model import Message
from telegram_hybrid.model.message import present


def columns(message: Message) -> dict[str, Any]:
    """Return what is stored of a message, by column; the JSON columns are text."""
    row = as_row(message)
    return row | {name: _json(row[name]) for name in ("entities", "media", "metadata")}


def as_row(message: Message) -> dict[str, Any]:
    """Return what Telegram said and the version, by column."""
    return {
        "channel_id": message.channel_id,
        "message_id": message.message_id,
        "sent_at": message.sent_at,
        "version": message.version,
        "source": message.source.value,
        "message_type": message.message_type.value,
        "text": message.text,
        "caption": message.caption,
        "entities": [present(entity) for entity in message.entities],
        "edited_at": message.edited_at,
        "sender_id": message.sender_id,
        "sender_name": message.sender_name,
        "reply_to_id": message.reply_to_id,
        "thread_id": message.thread_id,
        "grouped_id": message.grouped_id,
        "media_type": message.media_type,
        "media": [present(media) for media in message.media],
        "metadata": message.metadata,
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
