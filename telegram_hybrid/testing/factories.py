"""Factories: messages for tests, each with its own id, reproducible from run to run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from telegram_hybrid.model import Message, Source

#: The channel of messages that name none.
CHANNEL_ID = -1001649127710
_BEGIN = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)
_numbers = count(1)


def make_message(**fields: Any) -> Message:
    """Return a valid message; `fields` replace what it would have.

    Without a `message_id` every call takes the next one. `sent_at` follows from the id, a minute
    apart, so that the same id always has the same time.
    """
    number = fields.setdefault("message_id", next(_numbers))
    defaults: dict[str, Any] = {
        "channel_id": CHANNEL_ID,
        "sent_at": _BEGIN + timedelta(minutes=number),
        "text": f"BUY BTCUSDT {30_000 + number} 📈",
        "source": Source.BOT,
    }
    return Message(**(defaults | fields))


def make_messages(number: int, *, first_id: int = 1, **fields: Any) -> list[Message]:
    """Return `number` messages with consecutive ids from `first_id`."""
    return [make_message(message_id=first_id + n, **fields) for n in range(number)]
