"""Sweep: forget whole channels, or everything, by going through all our keys."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis

from telegram_hybrid.cache.ledger import Stale
from telegram_hybrid.schema.redis.keys import Guard, Keys, Kind

#: Keys that one SCAN looks at.
_STEP = 1000


def sweep(redis: Redis, keys: Keys, stale: Stale) -> int:
    """Delete the values that `stale` knows only as a whole; return how many.

    The tombstones of its channels must have been raised before, so that no load which began
    earlier fills any more. Where nothing is known of the channels, all leases go first instead.
    """
    if stale.everything:
        _delete(redis, keys, lambda key: key.endswith(f":{Guard.LEASE}".encode()))
        # "Stored" is never unsaid, and a tombstone only refuses.
        kept = (Kind.SEEN, Kind.TOMBSTONE)
        return _delete(redis, keys, lambda key: _kind(keys, key) not in kept)
    if stale.whole:
        return _delete(redis, keys, lambda key: _is_of(keys, key, stale.whole))
    return 0


def _kind(keys: Keys, key: bytes) -> Kind | None:
    name = keys.parse(key)
    return name.kind if name else None


def _is_of(keys: Keys, key: bytes, channels: set[int]) -> bool:
    name = keys.parse(key)
    return name is not None and name.channel_id in channels and name.kind in _VALUES


_VALUES = (Kind.MESSAGE, Kind.PAGE)


def _delete(redis: Redis, keys: Keys, is_stale: Callable[[bytes], bool]) -> int:
    deleted, cursor = 0, -1
    while cursor != 0:
        reply = redis.scan(max(cursor, 0), match=f"{keys.prefix}:*", count=_STEP)
        cursor, found = reply
        some = [key for key in found if isinstance(key, bytes) and is_stale(key)]
        if some:
            deleted += redis.unlink(*some)
    return deleted
