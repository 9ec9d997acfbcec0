"""Promise P7: without Redis, or with a sick one, readers get right answers from the database.

Broken on purpose and seen to fail: `_ask` that lets RedisError through, and a protocol that goes
on to `Lease` after a failed `Get`.
"""

import logging
import time

import pytest
import redis
from cachelab.rows import CHANNEL, KEYS, Database, change, message
from servers.valkey import Valkey

from telegram_hybrid.cache import CacheStats, Load, Loaded, MessageCache
from telegram_hybrid.cache.breaker import FAILURES
from telegram_hybrid.connect.redis import TIMEOUT, open_redis


@pytest.fixture
def database() -> Database:
    return Database(message(1), message(2))


def check_reads(cache: MessageCache, database: Database) -> None:
    """Every kind of read is right and loads once."""
    database.loads.clear()
    assert cache.get_many(CHANNEL, [1, 2, 3], database.messages) == database.rows
    assert cache.seen(CHANNEL, [1, 2, 3], database.seen) == {1, 2}
    assert database.loads == [[1, 2, 3], [1, 2, 3]]
    window = cache.window(CHANNEL, 2, database.window)
    assert window is None or len(window.messages) == 2


def test_no_redis_at_all_reads_from_the_database(database: Database) -> None:
    cache = MessageCache(None, KEYS)
    check_reads(cache, database)
    assert cache.repair([change(1, 2)]) is True
    cache.committed([])
    assert cache.stats() == CacheStats()


def test_a_killed_redis_costs_nothing_but_hits_and_is_used_again_when_it_returns(
    own_valkey: Valkey, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "telegram_hybrid.cache")
    with open_redis(own_valkey.url, deadline=None) as client:
        cache = MessageCache(client, KEYS)
        cache.get_many(CHANNEL, [1, 2], database.messages)
        own_valkey.kill()
        for _ in range(3):
            check_reads(cache, database)
        database.put(message(1, 2))
        assert cache.repair([change(1, 2)]) is False
        cache.committed([])
        assert len(caplog.records) == 1, "one outage, one line"
        stats = cache.stats()
        assert (stats.errors, stats.breaker) == (FAILURES, "open"), "then nobody asks any more"

        own_valkey.start()
        deadline = time.monotonic() + 20
        while not cache.stats().trusted:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        cache.get_many(CHANNEL, [1], database.messages)
        assert cache.get_many(CHANNEL, [1], Database().messages) == {1: message(1, 2)}
        assert cache.repair([change(1, 2)]) is True
        assert caplog.records[-1].getMessage() == "Redis answers again"


@pytest.mark.parametrize("step", ["load", "fill"])
def test_redis_killed_in_the_middle_of_a_read_does_not_show(
    own_valkey: Valkey, database: Database, step: str
) -> None:
    with open_redis(own_valkey.url, deadline=None) as client:
        cache = MessageCache(client, KEYS)

        def kill_and_load(request: Load) -> Loaded:
            own_valkey.kill()
            if step == "fill":
                own_valkey.start()  # a new server: no lease, no scripts
            return database.messages(request)

        assert cache.get_many(CHANNEL, [1, 2], kill_and_load) == database.rows
        assert database.loads == [[1, 2]]
        assert cache.stats().fills == 0


def test_a_mute_redis_costs_one_timeout_per_read(own_valkey: Valkey, database: Database) -> None:
    with open_redis(own_valkey.url, deadline=None) as client:
        cache = MessageCache(client, KEYS)
        client.ping()
        own_valkey.pause()
        began = time.monotonic()
        assert cache.get_many(CHANNEL, [1, 2], database.messages) == database.rows
        spent = time.monotonic() - began
        own_valkey.resume()
        assert cache.stats().errors == 1
        assert TIMEOUT * 0.9 < spent < TIMEOUT * 3


def test_a_full_redis_still_answers_and_still_applies_invalidations(
    own_valkey: Valkey, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with open_redis(own_valkey.url, deadline=None) as client:
        cache = MessageCache(client, KEYS)
        cache.get_many(CHANNEL, [1], database.messages)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        assert cache.get_many(CHANNEL, [1], Database().messages) == {1: message(1)}
        for _ in range(3):
            assert cache.get_many(CHANNEL, [2], database.messages) == {2: message(2)}
        database.put(message(1, 2, "after"))
        assert cache.repair([change(1, 2)]) is True
        assert cache.get_many(CHANNEL, [1], database.messages)[1].text == "after"
        check_reads(cache, database)
        assert cache.stats().fills == 1
        refusals = [record for record in caplog.records if "Lease" in record.getMessage()]
        assert len(refusals) == 1, "one problem, one line"


def test_a_lease_won_before_redis_filled_up_does_not_fill_it_further(
    own_valkey: Valkey, database: Database
) -> None:
    with open_redis(own_valkey.url, deadline=None) as client:
        cache = MessageCache(client, KEYS)

        def fill_up(request: Load) -> Loaded:
            client.config_set("maxmemory", 1)
            return database.messages(request)

        assert cache.get_many(CHANNEL, [1], fill_up) == {1: message(1)}
        assert cache.stats().fills == 0
        assert client.exists(KEYS.message(CHANNEL, 1)) == 0


def test_a_replica_that_refuses_writes_does_not_disturb_readers(
    own_valkey: Valkey, database: Database
) -> None:
    # What a client meets when its master was demoted behind its back.
    with open_redis(own_valkey.url, deadline=None) as client:
        cache = MessageCache(client, KEYS)
        cache.get_many(CHANNEL, [1], database.messages)
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert cache.get_many(CHANNEL, [1], Database().messages) == {1: message(1)}
        assert cache.get_many(CHANNEL, [2], database.messages) == {2: message(2)}
        assert cache.repair([change(1, 2)]) is False


def test_a_server_that_wants_a_password_is_no_cache(own_valkey: Valkey, database: Database) -> None:
    with open_redis(own_valkey.url, deadline=None) as admin:
        admin.config_set("requirepass", "hunter2")
        with open_redis(own_valkey.url, deadline=None) as client:
            check_reads(MessageCache(client, KEYS), database)
        with redis.Redis.from_url(own_valkey.url + "?password=hunter2") as client:
            assert client.dbsize() == 0
