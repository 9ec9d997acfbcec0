"""Raw messages and chats as Telegram Desktop writes them, for tests."""

from __future__ import annotations

from typing import Any


def post(message_id: int = 1, /, **fields: Any) -> dict[str, Any]:
    """Return a raw message of a Desktop export."""
    return {
        "id": message_id,
        "type": "message",
        "date": "2024-05-01T12:00:00",
        "date_unixtime": "1714564800",
        "text": "hello",
        **fields,
    }


def channel(*messages: Any, **fields: Any) -> dict[str, Any]:
    """Return a Desktop export of one channel."""
    return {
        "name": "Signals",
        "type": "public_channel",
        "id": 1234567890,
        **fields,
        "messages": list(messages),
    }
