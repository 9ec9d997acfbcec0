"""What the cache tests read: messages, their changes, and a database that counts its loads."""

from datetime import UTC, datetime

from telegram_hybrid.cache import Load, Loaded, Window
from telegram_hybrid.model import Change, EventType, Message, MessageKey
from telegram_hybrid.schema.redis.keys import Keys

KEYS = Keys()
CHANNEL = -1001649127710


def message(message_id: int, version: int = 1, text: str = "мяу", **fields: object) -> Message:
    return Message(
        channel_id=CHANNEL,
        message_id=message_id,
        sent_at=datetime(2026, 11, 1, tzinfo=UTC),
        text=text,
        version=version,
        **fields,
    )


def change(message_id: int, version: int, kind: EventType = EventType.EDITED) -> Change:
    return Change(MessageKey(CHANNEL, message_id), version, kind)


class Database:
    """The rows behind a cache, and every load that was made from them."""

    def __init__(self, *messages: Message) -> None:
        self.rows = {message.message_id: message for message in messages}
        self.loads: list[list[int]] = []

    def put(self, *messages: Message) -> None:
        self.rows |= {message.message_id: message for message in messages}

    @property
    def head(self) -> int:
        """The channel's version."""
        return max((message.version for message in self.rows.values()), default=0)

    def messages(self, request: Load) -> Loaded:
        self.loads.append(list(request.ids))
        found = {i: self.rows[i] for i in request.ids if i in self.rows}
        return Loaded(found, self.head, request.guarded)

    def window(self, request: Load, size: int = 125) -> Loaded:
        self.loads.append([])
        newest = [self.rows[i] for i in sorted(self.rows, reverse=True)][:size]
        return Loaded(Window.of(newest, size, self.head), self.head, request.guarded)

    def seen(self, request: Load) -> Loaded:
        self.loads.append(list(request.ids))
        return Loaded(self.rows.keys() & set(request.ids))
