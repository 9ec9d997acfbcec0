"""Event: what happened to a message, as consumers receive it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import attrs

from telegram_hybrid.model.message import Message, MessageKey


class EventType(StrEnum):
    """What happened; the `type` property of a broker message."""

    RECEIVED = "message.received"
    EDITED = "message.edited"
    DELETED = "message.deleted"
    STATUS_CHANGED = "message.status_changed"


@attrs.frozen(slots=True, kw_only=True)
class Event:
    """One committed change of one message.

    `event_id` (UUIDv7) is the same at every delivery of the event. `sequence` grows with each
    event of a channel, in commit order, with gaps. `message` is the message as that change left
    it; `message.version` tells which of two events of one message is the newer.
    """

    event_id: UUID
    type: EventType
    sequence: int
    occurred_at: datetime
    message: Message
    traceparent: str | None = None

    @property
    def channel_id(self) -> int:
        """The channel of the message."""
        return self.message.channel_id

    @property
    def key(self) -> MessageKey:
        """The identity of the message."""
        return self.message.key


@attrs.frozen(slots=True)
class Change:
    """What a transaction did to one message; `message` is how it left it, where that is known."""

    key: MessageKey
    version: int
    type: EventType
    message: Message | None = None


@attrs.frozen(slots=True)
class ChannelWrite:
    """What one transaction did to one channel: what the cache has to know of it.

    The transaction brought the channel from version `previous` (None where that is not known) to
    `version`, the highest of the rows it wrote.
    """

    channel_id: int
    version: int
    changes: tuple[Change, ...]
    previous: int | None = None
