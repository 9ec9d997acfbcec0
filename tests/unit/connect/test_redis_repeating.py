"""Which commands may be sent twice."""

import pytest
import redis

from telegram_hybrid.connect.redis.failures import Misconfigured, NotConnected
from telegram_hybrid.connect.redis.repeating import are_repeatable, is_repeatable, may_repeat
from telegram_hybrid.schema.redis.scripts import INVALIDATE, LEASE


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "a"),
        ("get", "a"),
        (b"MGET", b"a", b"b"),
        ("SET", "a", "NX"),
        ("SET", "a", "1", "PX", 10),
        ("DEL", "a"),
        ("EXPIRE", "a", 10),
        ("HSET", "a", "field", "1"),
        ("ZADD", "a", 1.0, "NX"),
        ("EVALSHA", LEASE.sha, 2, "a", "b"),
        ("EVAL", INVALIDATE.text, 3, "a", "b", "c"),
    ],
)
def test_reads_and_idempotent_writes_are_repeatable(command: tuple[object, ...]) -> None:
    assert is_repeatable(command)


@pytest.mark.parametrize(
    "command",
    [
        ("INCR", "a"),
        ("LPUSH", "a", "1"),
        ("LPOP", "a"),
        ("LTRIM", "a", 1, -1),
        ("PUBLISH", "a", "1"),
        ("XADD", "a", "*", "b", "1"),
        ("SET", "a", "1", "NX"),
        ("SET", "a", "1", "px", 10, b"nx"),
        ("SET", "a", "1", "GET"),
        ("ZADD", "a", "INCR", 1.0, "b"),
        ("EXPIRE", "a", 10, "NX"),
        ("EVAL", "return redis.call('INCR', KEYS[1])", 1, "a"),
        ("EVALSHA", "0" * 40, 1, "a"),
        ("RENAME", "a", "b"),
        ("FLUSHALL",),
        ("A NEW COMMAND",),
    ],
)
def test_everything_else_is_not(command: tuple[object, ...]) -> None:
    assert not is_repeatable(command)
    assert not are_repeatable([("GET", "a"), command])


def test_what_certainly_was_not_performed_is_repeated_whatever_it_is() -> None:
    for error in (NotConnected("none"), redis.ReadOnlyError(), redis.BusyLoadingError()):
        assert may_repeat(error, repeatable=False)
    for unknown in (redis.TimeoutError(), redis.ConnectionError()):
        assert may_repeat(unknown, repeatable=True)
        assert not may_repeat(unknown, repeatable=False)
    assert not may_repeat(redis.ResponseError("WRONGTYPE"), repeatable=True)
    assert not may_repeat(Misconfigured("password"), repeatable=True)
