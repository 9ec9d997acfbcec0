"""Which commands may be sent again when nobody knows whether they were performed.

Reads, and writes that leave the same data however often they are performed. A repeated DEL or
SADD may count less than the first one did; what is stored is right. INCR, LPUSH, PUBLISH, SET
with NX or GET, and whatever is not listed here is sent again only if it certainly was not
performed: no connection was had, or the server refused it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from telegram_hybrid.connect.redis.failures import REFUSALS, Misconfigured, NotConnected
from telegram_hybrid.schema.redis.scripts import FILL, INVALIDATE, LEASE

_READS = """
    BITCOUNT BITPOS DBSIZE DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME GEODIST GEOHASH GEOPOS
    GEOSEARCH GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET HRANDFIELD HSCAN HSTRLEN
    HVALS INFO KEYS LINDEX LLEN LPOS LRANGE MGET PEXPIRETIME PFCOUNT PING PTTL RANDOMKEY ROLE SCAN
    SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SRANDMEMBER SSCAN STRLEN SUNION
    TIME TOUCH TTL TYPE XINFO XLEN XRANGE XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZLEXCOUNT ZMSCORE
    ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION
"""
_WRITES = """
    DEL EXPIRE EXPIREAT HDEL HMSET HSET LSET MSET PERSIST PEXPIRE PEXPIREAT PFADD PSETEX SADD SET
    SETBIT SETEX SETRANGE SREM UNLINK XACK XDEL ZADD ZREM ZREMRANGEBYLEX ZREMRANGEBYSCORE
"""
_REPEATABLE = frozenset(_READS.split() + _WRITES.split())
#: With one of these a command depends on, or tells of, what was there before.
_CONDITIONS = frozenset({"NX", "XX", "GT", "LT", "GET", "INCR", "CH", "IFEQ", "IFNE"})
_OPTIONS_FROM = {"SET": 3, "ZADD": 2, "EXPIRE": 3, "PEXPIRE": 3, "EXPIREAT": 3, "PEXPIREAT": 3}
_SCRIPTS = frozenset({script.sha for script in (LEASE, FILL, INVALIDATE)})
_TEXTS = frozenset({script.text for script in (LEASE, FILL, INVALIDATE)})


def is_repeatable(command: Sequence[Any]) -> bool:
    """Whether performing a command twice leaves what performing it once does."""
    name = _text(command[0]).upper()
    if name in ("EVAL", "EVALSHA"):
        return _text(command[1]) in (_TEXTS if name == "EVAL" else _SCRIPTS)
    if name not in _REPEATABLE:
        return False
    start = _OPTIONS_FROM.get(name)
    if start is None:
        return True
    options = [_text(each).upper() for each in command[start:]]
    if name == "ZADD":  # its options come first; a member may be called like one
        options = options[:1]
    return not _CONDITIONS.intersection(options)


def are_repeatable(commands: Iterable[Sequence[Any]]) -> bool:
    """Whether a whole pipeline may be sent again."""
    return all(is_repeatable(command) for command in commands)


def may_repeat(error: BaseException, repeatable: bool) -> bool:
    """Whether to try again after `error`; `repeatable` says that twice is as good as once."""
    if isinstance(error, Misconfigured):
        return False
    if isinstance(error, (NotConnected, *REFUSALS)):
        return True
    return repeatable and isinstance(error, redis.ConnectionError | redis.TimeoutError)


def refused(replies: Sequence[Any], repeatable: bool) -> RedisError | None:
    """The refusal for which to send a pipeline again, None if its replies are final.

    A server that stopped being the master may have performed some commands and refused others:
    then only what is `repeatable` is sent again.
    """
    refusals = [each for each in replies if isinstance(each, REFUSALS)]
    return refusals[0] if refusals and (repeatable or len(refusals) == len(replies)) else None


def _text(part: Any) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
