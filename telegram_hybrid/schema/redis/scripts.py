"""Lua scripts of the lease protocol, and the calls that run them: one slot per call.

A value is guarded by two keys beside it. The lease names the one reader that may fill the value;
the tombstone remembers the newest version the value was invalidated for. Whoever lost its lease,
to expiry, eviction, flush or an invalidation, may not fill: missing means refused.

Leases are those of "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013, 3.2.1), per miss
rather than per client. Versions are compared as strings of equal length, because Lua's numbers
are doubles and lose integers above 2**53.
"""

from __future__ import annotations

from hashlib import sha1

import attrs

from telegram_hybrid.schema.redis.keys import Keys


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


# A lease without expiry is none of ours and would close the key for ever. A value that the reader
# could not decode, or of another Redis type (GET fails on it, MGET hides it), is cleared away.
LEASE = Script("""\
-- KEYS: value, lease. ARGV: token, lease in ms, '1' if the value was undecodable.
-- Returns {1 if the lease is granted, 1 if a value was discarded}.
local discarded = 0
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and (kind ~= 'string' or ARGV[3] == '1') then
  discarded = redis.call('UNLINK', KEYS[1])
end
if redis.call('PTTL', KEYS[2]) == -1 then
  redis.call('UNLINK', KEYS[2])
end
local granted = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
return {granted and 1 or 0, discarded}
""")

# SET comes before UNLINK: a full Redis refuses a script's SET only as its first write, and this
# one must be refused then.
FILL = Script("""\
-- KEYS: value, lease, tombstone. ARGV: token, version, value, value's life in ms.
-- Returns 1 if filled, 0 if refused.
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
local tombstone = redis.pcall('GET', KEYS[3])
local older = type(tombstone) == 'string' and #tombstone == #ARGV[2] and tombstone > ARGV[2]
if not older then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
redis.call('UNLINK', KEYS[2])
return older and 0 or 1
""")

# UNLINK comes before SET, for the converse reason: an invalidation must get through a full Redis.
INVALIDATE = Script("""\
-- KEYS: value, lease, tombstone. ARGV: version, tombstone's life in ms.
redis.call('UNLINK', KEYS[1], KEYS[2])
local version = ARGV[1]
local tombstone = redis.pcall('GET', KEYS[3])
if type(tombstone) == 'string' and #tombstone == #version and tombstone > version then
  version = tombstone
end
redis.call('SET', KEYS[3], version, 'PX', ARGV[2])
return 1
""")


def lease(keys: Keys, key: str, token: str, seconds: float, *, undecodable: bool) -> Call:
    """Ask for the lease of `key`. Reply: [granted, discarded], each 0 or 1."""
    flag = "1" if undecodable else "0"
    return Call(LEASE, (key, keys.lease(key)), (token, milliseconds(seconds), flag))


def fill(keys: Keys, key: str, token: str, version: int, value: bytes, seconds: float) -> Call:
    """Fill `key` under the lease that `token` won. Reply: 1, or 0 if refused."""
    return Call(
        FILL,
        (key, keys.lease(key), keys.tombstone(key)),
        (token, _fixed_width(version), value, milliseconds(seconds)),
    )


def invalidate(keys: Keys, key: str, version: int, seconds: float) -> Call:
    """Drop value and lease of `key`; keep a tombstone of `version`, or the newer one it has."""
    return Call(
        INVALIDATE,
        (key, keys.lease(key), keys.tombstone(key)),
        (_fixed_width(version), milliseconds(seconds)),
    )


def milliseconds(seconds: float) -> int:
    """Convert a lifetime for PX, which refuses 0."""
    return max(1, round(seconds * 1000))


def _fixed_width(version: int) -> str:
    return f"{version:020d}"
