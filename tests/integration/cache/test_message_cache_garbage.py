"""MessageCache over a real Valkey that holds garbage: a miss, then repaired (P7)."""

import json

import pytest
import redis
from cachelab.rows import CHANNEL, KEYS, Database, message

from telegram_hybrid.cache import MessageCache
from telegram_hybrid.schema.redis import values

LIFE = values.Life(2e9, 0.001)
GOOD = values.encode_message(message(7), LIFE)
BAD = {
    "empty": b"",
    "garbage": b"\x80\x04\x95pickle",
    "truncated": GOOD[:-10],
    "future schema": GOOD.replace(b'"schema":1', b'"schema":2'),
    "another key's": values.encode_message(message(8), LIFE),
    "a lying version": GOOD.replace(b'{"version":1', b'{"version":2'),
    "a blob of 10 MB": b"x" * 10_000_000,
    "deeply nested": b'{"version":1,"schema":1,"message":' + b"[" * 100_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("ids", [[7], [7, 9]], ids=["GET", "MGET"])
def test_garbage_is_a_miss_then_repaired_and_counted(
    cache: MessageCache, client: redis.Redis, data: bytes, ids: list[int]
) -> None:
    client.set(KEYS.message(CHANNEL, 7), data)
    database = Database(message(7), message(9))
    expected = {i: message(i) for i in ids}
    assert cache.get_many(CHANNEL, ids, database.messages) == expected
    assert cache.get_many(CHANNEL, ids, database.messages) == expected
    assert database.loads == [ids]
    assert cache.stats().discarded == 1
    assert cache.stats().errors == 0


@pytest.mark.parametrize("ids", [[7], [7, 9]], ids=["GET", "MGET"])
def test_a_value_of_another_type_is_a_miss_then_repaired_and_counted(
    cache: MessageCache, client: redis.Redis, ids: list[int]
) -> None:
    client.rpush(KEYS.message(CHANNEL, 7), "a", "b")
    database = Database(message(7), message(9))
    for _ in range(2):
        assert cache.get_many(CHANNEL, ids, database.messages) == {i: message(i) for i in ids}
    assert database.loads == [ids]
    assert cache.stats().discarded == 1


def test_garbage_is_replaced_by_the_absence_of_the_message(
    cache: MessageCache, client: redis.Redis
) -> None:
    client.set(KEYS.message(CHANNEL, 7), b"garbage")
    assert cache.get_many(CHANNEL, [7], Database().messages) == {}
    assert json.loads(client.get(KEYS.message(CHANNEL, 7)))["message"] is None


def test_a_foreign_window_is_a_miss_then_repaired(cache: MessageCache, client: redis.Redis) -> None:
    client.hset(KEYS.window(CHANNEL), "a", "b")
    database = Database(message(1))
    for _ in range(2):
        assert cache.window(CHANNEL, 2, database.window).messages == (message(1),)
    assert len(database.loads) == 1
