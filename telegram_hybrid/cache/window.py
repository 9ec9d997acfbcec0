"""What a head window can prove: an answer that is complete, or None (promise P6)."""

from __future__ import annotations

from itertools import islice

from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis.values import Window


def latest_from(window: Window, limit: int) -> list[Message] | None:
    """Return the newest `limit` messages, newest first; None if the window may lack some."""
    if limit > len(window.messages) and not window.complete:
        return None
    return list(window.messages[:limit])


def after_from(window: Window, message_id: int, limit: int) -> list[Message] | None:
    """Return the first `limit` messages above `message_id`, ascending.

    None if the window does not reach down that far: messages below `lo` are unknown to it.
    """
    if message_id < window.lo - 1 and not window.complete:
        return None
    newer = (message for message in reversed(window.messages) if message.message_id > message_id)
    return list(islice(newer, limit))
