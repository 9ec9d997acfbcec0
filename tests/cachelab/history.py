"""What a channel of the explorer holds: its commits, and the rows that they add up to."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from telegram_hybrid.cache.protocol import Lifetimes
from telegram_hybrid.cache.requests import Load
from telegram_hybrid.model import Change, ChannelWrite, EventType, Message, MessageKey
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.values import Window

KEYS = Keys()
LIVES = Lifetimes()
CHANNEL = -1001649127710
SENT = datetime(2026, 11, 1, tzinfo=UTC)
#: Messages in a full window.
CAPACITY = 3

#: Commits in their order: (version, message_id, what was done to it).
Log = tuple[tuple[int, int, EventType], ...]


@cache
def message(message_id: int, version: int, *, deleted: bool = False) -> Message:
    return Message(
        channel_id=CHANNEL,
        message_id=message_id,
        sent_at=SENT,
        text="x",
        version=version,
        deleted_at=SENT if deleted else None,
    )


def head(log: Log) -> int:
    """The version of the channel."""
    return log[-1][0] if log else 0


@cache
def rows(log: Log) -> dict[int, Message]:
    """Every message as the commits left it."""
    found: dict[int, Message] = {}
    for version, message_id, kind in log:
        before = found.get(message_id)
        deleted = kind is EventType.DELETED or (before is not None and before.deleted_at)
        found[message_id] = message(message_id, version, deleted=bool(deleted))
    return found


def living(log: Log) -> list[Message]:
    """The messages that are not deleted, newest first."""
    return [row for _, row in sorted(rows(log).items(), reverse=True) if not row.deleted_at]


def load(log: Log, request: Load, as_of: int = 0) -> Any:
    """What a loader answers after these commits; `as_of` is what its look said."""
    if request.ids:
        return {i: rows(log)[i] for i in request.ids if i in rows(log)}
    return Window.of(living(log)[:CAPACITY], CAPACITY, as_of)


@cache
def written(log: Log, index: int, *, patches: bool = True) -> ChannelWrite:
    """What commit number `index` wrote; without `patches`, as the relay knows it."""
    version, message_id, kind = log[index]
    before, after = log[:index], rows(log[: index + 1])
    left = after[message_id] if patches else None
    change = Change(MessageKey(CHANNEL, message_id), version, kind, left)
    return ChannelWrite(CHANNEL, version, (change,), head(before) if patches else None)
