"""Whatever stands under our keys: reads are right, it is repaired and counted, nothing is raised.

Broken on purpose and seen to fail: a LEASE that does not discard what could not be decoded (the
second read is no hit); a `_get` that keeps what is too big (a seen flag of 10 MB is read again and
again); a report for every value.
"""

import logging
from collections.abc import Callable, Iterator

import pytest
import redis

from telegram_hybrid import Hybrid
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.testing import make_message, make_messages

CHANNEL = -1001
BLOB = b"x" * (10 * 1024 * 1024)


@pytest.fixture
def client(hybrid: Hybrid) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(hybrid.settings.redis_url) as client:
        yield client


@pytest.fixture
def keys(hybrid: Hybrid) -> Keys:
    return hybrid.cache.keys


Put = Callable[[redis.Redis, str], object]
GARBAGE: dict[str, Put] = {
    "no JSON": lambda client, key: client.set(key, b"\xff\xfe\x00"),
    "nothing": lambda client, key: client.set(key, b""),
    "cut short": lambda client, key: client.set(key, (client.get(key) or b'{"version":1')[:-40]),
    "a schema of the future": lambda client, key: client.set(
        key, (client.get(key) or b'{"schema":1}').replace(b'"schema":1', b'"schema":2')
    ),
    "another key's value": lambda client, key: client.set(
        key, (client.get(key) or b"").replace(b'"message_id":', b'"message_id":9')
    ),
    "a list": lambda client, key: (client.delete(key), client.rpush(key, "x")),
    "a hash": lambda client, key: (client.delete(key), client.hset(key, "a", "b")),
    "10 MB": lambda client, key: client.set(key, BLOB),
}


def check_reads(hybrid: Hybrid, text: str, newest: int = 600) -> None:
    """Every kind of read gives what the database has."""
    found = hybrid.messages.get(CHANNEL, 7)
    assert found is not None
    assert found.text == text
    assert hybrid.messages.get_many(CHANNEL, [7, 8]).keys() == {7, 8}
    assert [each.message_id for each in hybrid.messages.latest(CHANNEL, limit=1)] == [newest]
    after = hybrid.messages.after(CHANNEL, message_id=6, limit=3)
    assert [each.message_id for each in after] == [7, 8, 9]
    assert after[0].text == text
    assert hybrid.messages.seen(CHANNEL, [7, 9999]) == {7}
    assert hybrid.cached("q", lambda _: text, channels=[CHANNEL]) == text


@pytest.fixture
def text(hybrid: Hybrid) -> str:
    """Everything is cached; the text of message 7."""
    hybrid.messages.save_many(make_messages(600, channel_id=CHANNEL))
    found = hybrid.messages.get(CHANNEL, 7)
    assert found is not None
    check_reads(hybrid, found.text)
    return found.text


@pytest.mark.parametrize("kind", ["message", "window", "page"])
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_a_miss_that_is_repaired_and_counted(
    hybrid: Hybrid, client: redis.Redis, keys: Keys, text: str, name: str, kind: str
) -> None:
    key = {
        "message": keys.message(CHANNEL, 7),
        "window": keys.window(CHANNEL),
        "page": keys.page(CHANNEL, 0),
    }[kind]
    assert client.exists(key), "it was cached"
    before = hybrid.cache.stats()
    GARBAGE[name](client, key)
    check_reads(hybrid, text)
    after = hybrid.cache.stats()
    assert after.discarded - before.discarded == 1
    assert after.errors == before.errors
    misses = after.misses
    check_reads(hybrid, text)
    assert hybrid.cache.stats().misses - misses == 1, "only 9999 is asked for again"
    assert len(client.get(key)) < 10**6


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_beside_the_values_stops_neither_readers_nor_writers(
    hybrid: Hybrid, client: redis.Redis, keys: Keys, text: str, name: str
) -> None:
    values = [keys.message(CHANNEL, 7), keys.window(CHANNEL), keys.page(CHANNEL, 0)]
    beside = [keys.tombstone(CHANNEL), keys.generation(CHANNEL), keys.seen(CHANNEL, 7)]
    beside += [keys.lease(each) for each in values]
    beside += [keys.held(keys.window(CHANNEL))]
    before = hybrid.cache.stats()
    client.delete(*values)
    for key in beside:
        GARBAGE[name](client, key)
    check_reads(hybrid, text)
    check_reads(hybrid, text)  # a result is kept once its channel has a generation again
    misses = hybrid.cache.stats().misses
    check_reads(hybrid, text)
    assert hybrid.cache.stats().misses - misses == 1, "only 9999 is asked for again"
    for key in beside:
        GARBAGE[name](client, key)
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=601))
    check_reads(hybrid, text, newest=601)
    stone = client.get(keys.tombstone(CHANNEL))
    assert stone.isdigit()
    assert len(stone) < 20
    for key in [*values, keys.seen(CHANNEL, 7), keys.generation(CHANNEL)]:
        assert 0 < client.strlen(key) < 10**6
    client.delete(*values)
    check_reads(hybrid, text, newest=601)
    assert not client.exists(*(keys.lease(each) for each in values)), "taken over, given back"
    assert hybrid.cache.stats().errors == before.errors
    assert hybrid.cache.stats().trusted


def test_a_seen_flag_of_10_mb_is_read_once(
    hybrid: Hybrid, client: redis.Redis, keys: Keys, text: str
) -> None:
    client.set(keys.seen(CHANNEL, 9999), BLOB)
    assert hybrid.messages.seen(CHANNEL, [9999]) == set()
    assert not client.exists(keys.seen(CHANNEL, 9999))


def test_a_lease_that_is_none_of_ours_does_not_close_its_key(
    hybrid: Hybrid, client: redis.Redis, keys: Keys, text: str
) -> None:
    key = keys.message(CHANNEL, 7)
    for foreign in (b"x", BLOB):
        client.delete(key)
        client.set(keys.lease(key), foreign, ex=3600)
        assert hybrid.messages.get(CHANNEL, 7) is not None
        assert client.exists(key)


def test_each_kind_of_garbage_is_reported_once(
    hybrid: Hybrid,
    client: redis.Redis,
    keys: Keys,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(1, 21):
        client.set(keys.message(CHANNEL, number), b"garbage")
        assert hybrid.messages.get(CHANNEL, number) is not None
    client.set(keys.window(CHANNEL), b"garbage")
    hybrid.messages.latest(CHANNEL)
    reports = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(reports) == 2
    assert keys.message(CHANNEL, 1) in reports[0].getMessage()
    assert keys.window(CHANNEL) in reports[1].getMessage()
    assert hybrid.cache.stats().discarded == 21
