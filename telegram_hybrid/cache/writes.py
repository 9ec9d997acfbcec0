"""What a write makes stale: the calls that mark before its commit and invalidate after it."""

from __future__ import annotations

from collections.abc import Iterable

from telegram_hybrid.cache.protocol import Lifetimes
from telegram_hybrid.model import Change, ChannelWrite, EventType
from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.scripts import Call
from telegram_hybrid.schema.redis.values import PAGE

#: A write with more changes than this does not patch its channel's window but drops it, and does
#: not say of each of its messages that it is stored.
PATCHABLE = 100


def group(changes: Iterable[Change]) -> list[ChannelWrite]:
    """Put committed changes together by channel; nothing is known of the versions before."""
    channels: dict[int, list[Change]] = {}
    for change in changes:
        channels.setdefault(change.key.channel_id, []).append(change)
    return [
        ChannelWrite(channel_id, max(change.version for change in found), tuple(found))
        for channel_id, found in channels.items()
    ]


def marks(keys: Keys, writes: Iterable[ChannelWrite]) -> list[Call]:
    """One call per channel."""
    return [
        scripts.mark(keys, write.channel_id, _stale(keys, write), previous=write.previous)
        for write in writes
    ]


def invalidations(
    keys: Keys, writes: Iterable[ChannelWrite], lives: Lifetimes, *, capacity: int
) -> list[Call]:
    """One call per channel. `capacity` is the most messages of a window."""
    calls = []
    for write in writes:
        patch = _patch(write)
        calls.append(
            scripts.invalidate(
                keys,
                write.channel_id,
                write.version,
                _stale(keys, write),
                lives.tombstone,
                previous=write.previous if patch else None,
                capacity=capacity,
                patch=patch,
                seen=_received(keys, write),
                seen_seconds=lives.seen,
            )
        )
    return calls


def _stale(keys: Keys, write: ChannelWrite) -> dict[str, int]:
    """Each value that the write touches, and the version below which it is stale.

    A received message is among them, because its absence may be cached.
    """
    newest: dict[int, int] = {}
    for change in write.changes:
        number = change.key.message_id
        newest[number] = max(change.version, newest.get(number, 0))
    names = keys.messages(write.channel_id, newest).values()
    stale = dict(zip(names, newest.values(), strict=True))
    for page in {number // PAGE for number in newest}:
        stale[keys.page(write.channel_id, page)] = write.version
    return stale


def _received(keys: Keys, write: ChannelWrite) -> list[str]:
    """The flags of the messages that the write stored, which pollers ask about next.

    Only of who knows what was there before, and so committed it himself, just now: who repairs
    may come after the messages were removed again.
    """
    if write.previous is None or len(write.changes) > PATCHABLE:
        return []
    stored = [each.key.message_id for each in write.changes if each.type is EventType.RECEIVED]
    return list(keys.flags(write.channel_id, stored).values())


def _patch(write: ChannelWrite) -> list[tuple[int, bytes]]:
    """How each message stands after the write, by ascending id; empty if that is not known."""
    if write.previous is None or len(write.changes) > PATCHABLE:
        return []
    after = {}
    for change in write.changes:
        message = change.message
        if message is None:
            return []
        after[message.message_id] = b"" if message.deleted_at else message.to_json()
    return sorted(after.items())
