"""MessageCache over a real Valkey: what is read, what is kept, and what garbage does to it."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from cachelab.rows import CHANNEL, KEYS, Database, change, message

from telegram_hybrid.cache import CacheStats, MessageCache, Window, latest_from
from telegram_hybrid.model import EventType, Message
from telegram_hybrid.schema.redis import values


@pytest.fixture
def cache(client: redis.Redis) -> MessageCache:
    return MessageCache(client, KEYS, window_size=3)


def test_the_second_read_is_answered_by_redis(cache: MessageCache) -> None:
    stored = message(7, version=4, edited_at=datetime(2026, 11, 2, tzinfo=UTC), metadata={"a": [1]})
    database = Database(stored)
    first = cache.get_many(CHANNEL, [7], database.messages)
    second = cache.get_many(CHANNEL, [7], database.messages)
    assert first == second == {7: stored}
    assert second[7].version == 4
    assert database.loads == [[7]]
    assert cache.stats() == CacheStats(hits=1, misses=1, fills=1)


def test_a_partial_hit_loads_the_misses_alone_and_each_id_once(cache: MessageCache) -> None:
    database = Database(message(1), message(2), message(3))
    cache.get_many(CHANNEL, [2], database.messages)
    found = cache.get_many(CHANNEL, [1, 2, 3, 3, 99], database.messages)
    assert found == database.rows
    assert database.loads == [[2], [1, 3, 99]]


def test_reading_no_ids_asks_nobody(cache: MessageCache) -> None:
    database = Database()
    assert cache.get_many(CHANNEL, [], database.messages) == {}
    assert cache.seen(CHANNEL, [], database.seen) == set()
    assert cache.invalidate([]) is True
    assert database.loads == []


def test_an_absent_message_is_not_cached_and_appears_once_it_is_saved(
    cache: MessageCache,
) -> None:
    database = Database()
    assert cache.get_many(CHANNEL, [7], database.messages) == {}
    database.put(message(7))
    cache.invalidate([change(7, 1, EventType.RECEIVED)])
    assert cache.get_many(CHANNEL, [7], database.messages) == {7: message(7)}


def test_an_invalidated_message_is_read_anew(cache: MessageCache) -> None:
    database = Database(message(7, 1, "before"))
    cache.get_many(CHANNEL, [7], database.messages)
    database.put(message(7, 2, "after"))
    assert cache.invalidate([change(7, 2)]) is True
    assert cache.get_many(CHANNEL, [7], database.messages)[7].text == "after"
    assert cache.stats().invalidations == 2, "the message and its channel's window"


def test_a_load_overtaken_by_an_invalidation_fills_nothing(cache: MessageCache) -> None:
    # P5. Seen to fail when INVALIDATE keeps the lease and sets no tombstone.
    database = Database(message(7, 1, "before"))

    def overtaken(ids: list[int]) -> dict[int, Message]:
        rows = database.messages(ids)
        database.put(message(7, 2, "after"))
        cache.invalidate([change(7, 2)])
        return rows

    assert cache.get_many(CHANNEL, [7], overtaken)[7].text == "before"
    assert cache.get_many(CHANNEL, [7], database.messages)[7].text == "after"
    assert cache.stats().fills_refused == 1


def test_a_reader_without_the_lease_answers_and_fills_nothing(cache: MessageCache) -> None:
    database = Database(message(7))

    def while_leased(ids: list[int]) -> dict[int, Message]:
        assert cache.get_many(CHANNEL, [7], database.messages) == {7: message(7)}
        assert cache.stats().fills == 0
        return database.messages(ids)

    assert cache.get_many(CHANNEL, [7], while_leased) == {7: message(7)}
    assert cache.stats().fills == 1


def test_an_error_of_the_loader_reaches_the_caller(cache: MessageCache) -> None:
    def failing(_: list[int]) -> dict[int, Message]:
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        cache.get_many(CHANNEL, [7], failing)


def test_deleted_messages_are_cached_as_they_are(cache: MessageCache) -> None:
    deleted = message(7, 2, deleted_at=datetime(2026, 11, 3, tzinfo=UTC))
    database = Database(deleted)
    cache.get_many(CHANNEL, [7], database.messages)
    assert cache.get_many(CHANNEL, [7], database.messages)[7].deleted_at == deleted.deleted_at
    assert len(database.loads) == 1


def test_a_window_is_built_once_and_dropped_by_every_kind_of_change(cache: MessageCache) -> None:
    database = Database(*(message(i) for i in range(1, 6)))
    for kind in EventType:
        assert latest_from(cache.window(CHANNEL, database.window), 2) == [message(5), message(4)]
        assert cache.window(CHANNEL, database.window).lo == 3
        assert len(database.loads) == 1
        cache.invalidate([change(1, 9, kind)])
        database.loads.clear()


def test_a_window_overtaken_by_a_commit_is_not_kept(cache: MessageCache) -> None:
    database = Database(message(1, version=10))

    def overtaken(size: int) -> Window:
        window = database.window(size)
        database.put(message(2, version=9))  # drawn earlier, committed later
        cache.invalidate([change(2, 9, EventType.RECEIVED)])
        return window

    cache.window(CHANNEL, overtaken)
    assert cache.window(CHANNEL, database.window).hi == 2


def test_a_window_that_another_reader_builds_is_left_to_it(cache: MessageCache) -> None:
    database = Database(message(1))
    inner: list[Window | None] = []

    def slow(size: int) -> Window:
        inner.append(cache.window(CHANNEL, database.window))
        return database.window(size)

    assert cache.window(CHANNEL, slow).messages == (message(1),)
    assert inner == [None]


def test_an_empty_channel_has_an_empty_complete_window(cache: MessageCache) -> None:
    database = Database()
    for _ in range(2):
        assert latest_from(cache.window(CHANNEL, database.window), 10) == []
    assert len(database.loads) == 1


def test_only_stored_messages_are_remembered_as_seen(cache: MessageCache) -> None:
    database = Database(message(1), message(2))
    assert cache.seen(CHANNEL, [1, 2, 3], database.seen) == {1, 2}
    assert cache.seen(CHANNEL, [1, 2, 3], database.seen) == {1, 2}
    assert database.loads == [[1, 2, 3], [3]]
    assert cache.seen(CHANNEL, [2], database.seen) == {2}
    assert len(database.loads) == 2


def test_a_flag_that_is_not_ours_proves_nothing(cache: MessageCache, client: redis.Redis) -> None:
    # The original system kept flags under these names, and set them before the work was safe.
    client.set(KEYS.seen(CHANNEL, 1), b"1")
    client.rpush(KEYS.seen(CHANNEL, 2), "x")
    database = Database(message(2))
    assert cache.seen(CHANNEL, [1, 2], database.seen) == {2}
    assert cache.seen(CHANNEL, [1], database.seen) == set()
    assert cache.seen(CHANNEL, [2], Database().seen) == {2}


def test_lifetimes_are_the_ones_that_were_asked_for(client: redis.Redis) -> None:
    cache = MessageCache(client, KEYS, message_ttl=100, seen_ttl=200, window_ttl=300, lease_ttl=1.5)
    database = Database(message(1))
    leased: list[int] = []

    def load(ids: list[int]) -> dict[int, Message]:
        leased.append(client.pttl(KEYS.lease(KEYS.message(CHANNEL, 1))))
        return database.messages(ids)

    cache.get_many(CHANNEL, [1], load)
    cache.window(CHANNEL, database.window)
    cache.seen(CHANNEL, [1], database.seen)
    assert 1000 < leased[0] <= 1500
    assert 99 < client.pttl(KEYS.message(CHANNEL, 1)) / 1000 <= 100
    assert 299 < client.pttl(KEYS.window(CHANNEL)) / 1000 <= 300
    assert 199 < client.pttl(KEYS.seen(CHANNEL, 1)) / 1000 <= 200
    cache.invalidate([change(1, 2)])
    tombstone = KEYS.tombstone(KEYS.message(CHANNEL, 1))
    assert 300 < client.pttl(tombstone) / 1000 <= 301.5


def test_every_key_is_ours_and_every_value_is_json_with_the_version_first(
    cache: MessageCache, client: redis.Redis
) -> None:
    database = Database(message(1, version=17))
    cache.get_many(CHANNEL, [1], database.messages)
    cache.window(CHANNEL, database.window)
    cache.seen(CHANNEL, [1], database.seen)
    stored = {key.decode(): client.get(key) for key in client.scan_iter()}
    assert all(KEYS.parse(key) for key in stored)
    assert stored[KEYS.message(CHANNEL, 1)].startswith(b'{"version":17,"schema":1,"message":{')
    assert stored[KEYS.window(CHANNEL)].startswith(
        b'{"version":17,"schema":1,"lo":1,"hi":1,"complete":true,"messages":[{'
    )
    assert len(stored) == 3


GOOD = values.encode_message(message(7))
BAD = {
    "empty": b"",
    "garbage": b"\x80\x04\x95pickle",
    "truncated": GOOD[:-10],
    "future schema": GOOD.replace(b'"schema":1', b'"schema":2'),
    "another key's": values.encode_message(message(8)),
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


def test_garbage_is_discarded_though_nothing_replaces_it(
    cache: MessageCache, client: redis.Redis
) -> None:
    client.set(KEYS.message(CHANNEL, 7), b"garbage")
    assert cache.get_many(CHANNEL, [7], Database().messages) == {}
    assert client.get(KEYS.message(CHANNEL, 7)) is None


def test_a_foreign_window_is_a_miss_then_repaired(cache: MessageCache, client: redis.Redis) -> None:
    client.hset(KEYS.window(CHANNEL), "a", "b")
    database = Database(message(1))
    for _ in range(2):
        assert cache.window(CHANNEL, database.window).messages == (message(1),)
    assert len(database.loads) == 1


def test_a_message_too_long_for_the_cache_is_read_from_the_database(
    cache: MessageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MAX_BYTES", 1000)
    database = Database(message(7, text="x" * 1000))
    for _ in range(2):
        assert cache.get_many(CHANNEL, [7], database.messages) == database.rows
    assert len(database.loads) == 2


def test_a_server_that_forgot_the_scripts_is_sent_them_again(
    cache: MessageCache, client: redis.Redis
) -> None:
    database = Database(message(1), message(2))

    def forgetful(ids: list[int]) -> dict[int, Message]:
        client.script_flush()
        return database.messages(ids)

    client.script_flush()
    cache.get_many(CHANNEL, [1, 2], forgetful)
    client.script_flush()
    assert cache.invalidate([change(1, 2), change(2, 2)]) is True
    assert cache.stats() == CacheStats(misses=2, fills=2, invalidations=3)


def test_wakes_arrive_few_and_never_none(cache: MessageCache, client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(KEYS.wake)
        listener.get_message(timeout=1)
        for _ in range(200):
            cache.wake()
        arrived = 0
        while listener.get_message(timeout=0.1):
            arrived += 1
    assert 2 <= arrived < 100, "the first at once, the last at the end of its interval"


def test_threads_share_a_cache_and_every_read_is_counted(client: redis.Redis) -> None:
    cache = MessageCache(client, KEYS)
    database = Database(*(message(i) for i in range(20)))

    def read() -> None:
        for i in range(20):
            assert cache.get_many(CHANNEL, [i], database.messages) == {i: message(i)}

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats.hits + stats.misses == 160
    assert stats.fills >= 20
    assert stats.errors == 0


def slowly(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Leave time between a loader's snapshot and the fill."""

    def slow(request: Any) -> Any:
        rows = load(request)
        time.sleep(0.0005)
        return rows

    return slow


def test_under_load_no_read_is_older_than_an_invalidation_applied_before_it(
    client: redis.Redis,
) -> None:
    # P5 with real races and a Redis that is flushed meanwhile. Seen to fail when INVALIDATE
    # neither takes the lease nor leaves a tombstone.
    cache = MessageCache(client, KEYS, window_size=5)
    database = Database(message(7, 1))
    applied = 1
    done = threading.Event()
    stale: list[tuple[int, int]] = []

    def read() -> None:
        while not done.is_set():
            least = applied
            found = cache.get_many(CHANNEL, [7], slowly(database.messages))
            window = cache.window(CHANNEL, slowly(database.window))
            versions = [found[7].version] + [m.version for m in (window.messages if window else ())]
            stale.extend((version, least) for version in versions if version < least)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for version in range(2, 400):
        database.put(message(7, version))
        cache.invalidate([change(7, version)])
        applied = version
        if version % 50 == 0:
            client.flushall()
        time.sleep(0.003)
    done.set()
    for reader in readers:
        reader.join()
    stats = cache.stats()
    print(stats)
    assert stale == []
    assert stats.errors == 0
    assert stats.hits > 0
    assert stats.fills_refused > 0, "no load was overtaken: this run proved nothing"
