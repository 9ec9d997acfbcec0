"""The cache-aside protocol, sans I/O: generators that yield requests and are sent the replies.

    hit    Get
    miss   Get -> Lease -> Load -> Fill
    write  commit -> Invalidate

Two rules make a fill safe. The loader's snapshot begins after the lease was granted, so it holds
everything that was committed before; and an invalidation takes the lease away, so a loader that
may have read the state before a commit cannot fill after it (promise P5). A reader without a
lease answers from the database and fills nothing.

The reply to a request to Redis is None if Redis failed; the generator then asks it nothing more
and goes to the database, so that one read pays for one timeout at most (promise P7). Whatever
happens, a read yields `Load` at most once, and once for each key that the cache did not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from telegram_hybrid.model import Change, EventType, Message
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.values import Window

T = TypeVar("T")


@attrs.frozen(slots=True, kw_only=True)
class Lifetimes:
    """How long what we store lives, in seconds."""

    message: float = 3600.0
    seen: float = 7200.0
    window: float = 3600.0
    lease: float = 10.0

    @property
    def tombstone(self) -> float:
        """Longer than every value and lease that existed when it was set.

        So whatever could still contradict a tombstone is refused by a fill, or found by an audit.
        """
        return max(self.message, self.window) + self.lease


@attrs.frozen(slots=True)
class Get:
    """Read values. Reply: one `bytes | None` per key, in order."""

    keys: Sequence[str]


@attrs.frozen(slots=True)
class LeaseEntry:
    """A key to lease. `undecodable`: what is there could not be decoded, so discard it."""

    key: str
    token: str
    seconds: float
    undecodable: bool = False


@attrs.frozen(slots=True)
class Lease:
    """Ask for leases. Reply: one bool per entry, in order: granted."""

    entries: Sequence[LeaseEntry]


@attrs.frozen(slots=True)
class Load:
    """Read from the database, in a snapshot that begins now. Reply: what the caller's loader gave.

    `ids` are message ids; for a window there are none.
    """

    ids: list[int]


@attrs.frozen(slots=True)
class FillEntry:
    """A value to store under the lease that `token` won."""

    key: str
    token: str
    version: int
    value: bytes
    seconds: float


@attrs.frozen(slots=True)
class Fill:
    """Store values under their leases. No reply is needed."""

    entries: Sequence[FillEntry]


@attrs.frozen(slots=True)
class Flag:
    """Store seen flags. No reply is needed."""

    keys: Sequence[str]
    seconds: float


@attrs.frozen(slots=True)
class InvalidateEntry:
    """A key whose value may be older than `version`; its tombstone is kept for `seconds`."""

    key: str
    version: int
    seconds: float


@attrs.frozen(slots=True)
class Invalidate:
    """Drop values and leases, raise tombstones. Reply: True if all of it was applied."""

    entries: Sequence[InvalidateEntry]


RedisRequest: TypeAlias = Get | Lease | Fill | Flag | Invalidate
Request: TypeAlias = Load | RedisRequest


@attrs.frozen(slots=True)
class Answer(Generic[T]):
    """What a read found, and how many of its keys the cache answered and did not."""

    value: T
    hits: int
    misses: int


# The reply's type follows from the request; a generator's send type cannot say so.
Reading: TypeAlias = Generator[Request, Any, Answer[T]]


def read_messages(
    keys: Keys,
    lives: Lifetimes,
    channel_id: int,
    message_ids: Iterable[int],
    new_token: Callable[[], str],
) -> Reading[dict[int, Message]]:
    """Read messages of one channel: {message_id: message}, without those that are not stored.

    A message is returned as it is, deleted or not. What is not stored is not cached either: its
    lease runs out by itself.
    """
    names = {message_id: keys.message(channel_id, message_id) for message_id in message_ids}
    if not names:
        return Answer({}, 0, 0)
    stored = yield Get(list(names.values()))
    if stored is None:
        return Answer((yield Load(list(names))), 0, len(names))
    found: dict[int, Message] = {}
    misses: dict[int, bool] = {}
    for message_id, data in zip(names, stored, strict=True):
        message = data and values.decode_message(data, channel_id, message_id)
        if message:
            found[message_id] = message
        else:
            misses[message_id] = data is not None
    hits = len(found)
    if misses:
        found |= yield from _load_and_fill(lives, names, misses, new_token())
    return Answer(found, hits, len(misses))


def _load_and_fill(
    lives: Lifetimes, names: dict[int, str], misses: dict[int, bool], token: str
) -> Generator[Request, Any, dict[int, Message]]:
    """Lease, load and fill what was missed; `misses` says for each if it was undecodable."""
    granted = yield Lease(
        [LeaseEntry(names[i], token, lives.lease, bad) for i, bad in misses.items()]
    )
    loaded: dict[int, Message] = yield Load(list(misses))
    fills = []
    for message_id, ours in zip(misses, granted or (), strict=False):
        message = loaded.get(message_id)
        if ours and message is not None and (value := values.encode_message(message)):
            entry = FillEntry(names[message_id], token, message.version, value, lives.message)
            fills.append(entry)
    if fills:
        yield Fill(fills)
    return loaded


def read_window(
    keys: Keys, lives: Lifetimes, channel_id: int, new_token: Callable[[], str]
) -> Reading[Window | None]:
    """Read the head window of a channel; None if it is not there and not ours to build.

    The caller then asks the database for just what it needs, which is less than a window. A
    window has no row version: two commits may become visible in the other order than their
    versions were drawn. Its fill is guarded by the lease alone.
    """
    key = keys.window(channel_id)
    stored = yield Get([key])
    if stored is None:
        return Answer(None, 0, 1)
    window = stored[0] and values.decode_window(stored[0], channel_id)
    if window:
        return Answer(window, 1, 0)
    token = new_token()
    granted = yield Lease([LeaseEntry(key, token, lives.lease, stored[0] is not None)])
    if not granted or not granted[0]:
        return Answer(None, 0, 1)
    loaded: Window = yield Load([])
    if value := values.encode_window(loaded):
        yield Fill([FillEntry(key, token, loaded.version, value, lives.window)])
    return Answer(loaded, 0, 1)


def read_seen(
    keys: Keys, lives: Lifetimes, channel_id: int, message_ids: Iterable[int]
) -> Reading[set[int]]:
    """Find which messages are stored, deleted ones included.

    "Stored" is said only after the database said so, and is never unsaid: it needs no lease, no
    version and no invalidation.
    """
    names = {message_id: keys.seen(channel_id, message_id) for message_id in message_ids}
    if not names:
        return Answer(set(), 0, 0)
    flags = yield Get(list(names.values()))
    known = {i for i, flag in zip(names, flags or (), strict=False) if _is_set(flag)}
    unknown = [message_id for message_id in names if message_id not in known]
    if not unknown:
        return Answer(known, len(known), 0)
    stored: set[int] = yield Load(unknown)
    if stored and flags is not None:
        flagged = [names[message_id] for message_id in unknown if message_id in stored]
        yield Flag(flagged, lives.seen)
    return Answer(known | stored, len(known), len(unknown))


def _is_set(flag: bytes | None) -> bool:
    return flag == values.SEEN


def invalidation(keys: Keys, lives: Lifetimes, changes: Iterable[Change]) -> Invalidate:
    """Decide what committed changes make stale: one entry per key, with the newest version.

    Every change touches its channel's window, with version 0, because a window has no row
    version and its lease alone guards it. A received message has no value of its own yet: absence
    is not cached, and a reader that leased the key before the commit fills either nothing or the
    committed row.
    """
    newest: dict[str, int] = {}
    for change in changes:
        channel_id, message_id = change.key
        newest[keys.window(channel_id)] = 0
        if change.type is not EventType.RECEIVED:
            key = keys.message(channel_id, message_id)
            newest[key] = max(change.version, newest.get(key, 0))
    return Invalidate(
        [InvalidateEntry(key, version, lives.tombstone) for key, version in newest.items()]
    )
