"""What the cache tests read: messages, their changes, and a database that counts its loads."""

from datetime import UTC, datetime

from telegram_hybrid.cache import Window
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

    def messages(self, ids: list[int]) -> dict[int, Message]:
        self.loads.append(ids)
        return {i: self.rows[i] for i in ids if i in self.rows}

    def window(self, size: int) -> Window:
        self.loads.append([])
        return Window.of([self.rows[i] for i in sorted(self.rows, reverse=True)][:size], size)

    def seen(self, ids: list[int]) -> set[int]:
        self.loads.append(ids)
        return self.rows.keys() & set(ids)
