"""Lua scripts of the cache protocol, and the calls that run them: one slot per call.

    LEASE        the reader that missed asks who may fill
    FILL         it stores what it loaded, or gives the lease back
    MARK         the writer, before its commit: nothing that it changes is served any more
    INVALIDATE   the writer, or the relay in its place, after the commit

A lease is a random token per miss. Whoever lost it, to expiry, eviction, flush, a mark or an
invalidation, may not fill: missing means refused. Beside it each channel has a tombstone, the
newest version that it was invalidated for; what was loaded before that version is refused, too.

Leases are those of "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013, 3.2.1), per miss
rather than per client. Versions are compared as strings, by length and then by digits, because
Lua's numbers are doubles and lose integers above 2**53.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1
from importlib.resources import files

import attrs

from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.values import SEEN


@attrs.frozen(slots=True)
class Script:
    """One Lua script and the SHA1 by which EVALSHA names it."""

    text: str
    sha: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


@attrs.frozen(slots=True)
class Call:
    """One run of a script: what to send after EVAL or EVALSHA."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]


def _script(name: str) -> Script:
    return Script(files(__package__).joinpath("lua", f"{name}.lua").read_text("ascii"))


LEASE = _script("lease")
FILL = _script("fill")
MARK = _script("mark")
INVALIDATE = _script("invalidate")


def lease(
    keys: Keys,
    key: str,
    token: str,
    seconds: float,
    *,
    undecodable: bool = False,
    missing: bool = False,
) -> Call:
    """Ask for the lease of `key`, whose value was `undecodable` or `missing`, or is to be renewed.

    Reply: [granted, discarded, left]: 0 or 1, 0 or 1, and the milliseconds for which another
    reader still has the lease. A value that was missing and is there now gives [0, 0, 1].
    """
    flag = "1" if undecodable else "2" if missing else "0"
    return Call(LEASE, (key, keys.lease(key)), (token, milliseconds(seconds), flag))


def fill(
    keys: Keys, channel_id: int, key: str, token: str, as_of: int, value: bytes, seconds: float
) -> Call:
    """Fill `key` under the lease that `token` won, and give the lease back.

    `as_of` is the channel's version before the value was loaded. An empty value gives only the
    lease back. Reply: 1, or 0 if it was refused.
    """
    return Call(
        FILL,
        (key, keys.lease(key), keys.tombstone(channel_id)),
        (token, as_of, value, milliseconds(seconds), keys.filled),
    )


def mark(keys: Keys, channel_id: int, stale: Iterable[str], *, previous: int | None) -> Call:
    """Drop the values and leases `stale`, and put the channel's window aside.

    It is kept there only if it is of version `previous`: then the write can patch it.
    """
    window = keys.window(channel_id)
    named = [keys.held(window), keys.generation(channel_id), window, *stale]
    named += map(keys.lease, named[2:])
    return Call(MARK, tuple(named), (keys.filled, "" if previous is None else previous))


def invalidate(
    keys: Keys,
    channel_id: int,
    version: int,
    stale: Mapping[str, int],
    seconds: float,
    *,
    previous: int | None = None,
    capacity: int = 0,
    patch: Sequence[tuple[int, bytes]] = (),
    seen: Sequence[str] = (),
    seen_seconds: float = 0.0,
) -> Call:
    """Drop what is older than the commit that brought the channel to `version`.

    `stale` are keys, each with the version below which its value goes. The window is brought from
    version `previous` to `version` by `patch`, [(message_id, JSON, or b"" if it is deleted)] with
    ascending ids, and cut to `capacity` messages; without `previous` it goes, if it is older.
    The tombstone is kept for `seconds`, and the flags `seen` for `seen_seconds`.
    """
    window = keys.window(channel_id)
    named = [keys.held(window), keys.tombstone(channel_id), keys.generation(channel_id)]
    named += (window, *stale)
    named += map(keys.lease, named[3:])
    named += seen
    args: list[str | bytes | int] = [keys.filled, version, milliseconds(seconds)]
    args += ("" if previous is None else previous, capacity)
    args += (len(stale), milliseconds(seen_seconds), SEEN, *stale.values())
    for message_id, text in patch:
        args += (message_id, text)
    return Call(INVALIDATE, tuple(named), tuple(args))


def milliseconds(seconds: float) -> int:
    """Convert a lifetime for PX, which refuses 0."""
    return max(1, round(seconds * 1000))
