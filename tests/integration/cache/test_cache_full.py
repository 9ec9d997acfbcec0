"""A Redis that is full and evicts nothing: right answers, no waiting, and no lease is left behind.

Broken on purpose and seen to fail: a FILL that raises when its SET is refused (its lease stays,
and the next reader waits for it).
"""

import shutil
import time
from collections.abc import Iterator
from functools import partial

import attrs
import pytest
import redis
from servers.valkey import Valkey

from telegram_hybrid import Hybrid
from telegram_hybrid.hybrid import connect
from telegram_hybrid.testing import make_message, make_messages

CHANNEL = -1001


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    if request.param == "redis":
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed (apt-get install redis-server)")
        monkeypatch.setenv("TELEGRAM_HYBRID_REDIS_SERVER", program)
    server = Valkey(maxmemory_policy="noeviction")
    yield server
    server.stop()


@pytest.fixture
def store(hybrid: Hybrid, server: Valkey) -> Iterator[Hybrid]:
    with connect(attrs.evolve(hybrid.settings, redis_url=server.url)) as store:
        store.messages.save_many(make_messages(300, channel_id=CHANNEL))
        yield store


@pytest.fixture
def client(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


def edit(store: Hybrid, number: int, second: int, text: str) -> None:
    made = make_message(channel_id=CHANNEL, message_id=number, text=text)
    store.messages.save(attrs.evolve(made, edited_at=made.sent_at.replace(second=second)))


def check(store: Hybrid, number: int, text: str, newest: int) -> float:
    """Every kind of read is right; return how long they took, in seconds."""
    began = time.monotonic()
    found = store.messages.get(CHANNEL, number)
    assert found is not None
    assert found.text == text
    assert store.messages.get_many(CHANNEL, [number])[number].text == text
    assert store.messages.latest(CHANNEL, limit=1)[0].message_id == newest
    (first,) = store.messages.after(CHANNEL, message_id=number - 1, limit=1)
    assert first.text == text
    assert store.messages.seen(CHANNEL, [number, 9999]) == {number}
    assert store.cached("q", lambda _: newest, channels=[CHANNEL]) == newest
    return time.monotonic() - began


def test_reads_and_writes_work_beside_a_full_redis(store: Hybrid, client: redis.Redis) -> None:
    edit(store, 5, 1, "cached")
    check(store, 5, "cached", 300)
    client.config_set("maxmemory", client.info("memory")["used_memory"])
    with pytest.raises(redis.OutOfMemoryError):
        for number in range(1000):
            client.set(f"junk:{number}", b"x" * 4096)
    before = store.cache.stats()
    longest = 0.0
    for second in range(2, 12):
        edit(store, 5, second, f"edit {second}")
        longest = max(longest, check(store, 5, f"edit {second}", 300))
    store.messages.save(make_message(channel_id=CHANNEL, message_id=301))
    longest = max(longest, check(store, 6, store.messages.get(CHANNEL, 6).text, 301))
    after = store.cache.stats()
    assert after.discarded == before.discarded
    print(f"\nsix reads of a full Redis: {longest * 1e3:.1f} ms at most; {after}")
    assert after.breaker == "closed"
    assert after.trusted, "every invalidation was applied"
    assert after.invalidations - before.invalidations == 11
    assert list(client.scan_iter("*:lease")) == []
    assert longest < 2.0, "nobody waits for a lease (10 s)"
    client.config_set("maxmemory", 0)
    check(store, 5, "edit 11", 301)
    hits = store.cache.stats().hits
    check(store, 5, "edit 11", 301)
    assert store.cache.stats().hits > hits


def test_a_lease_won_before_redis_was_full_is_given_back(
    store: Hybrid, client: redis.Redis
) -> None:
    def load_while_it_fills_up(request: object) -> object:
        client.config_set("maxmemory", 1)
        return loader(request)

    loader = partial(store.messages._by_ids, CHANNEL)
    found = store.cache.get(CHANNEL, 7, load_while_it_fills_up)
    assert found is not None
    assert found.message_id == 7
    key = store.cache.keys.message(CHANNEL, 7)
    assert not client.exists(key)
    assert not client.exists(store.cache.keys.lease(key))
    assert store.cache.stats().fills == 0
    began = time.monotonic()
    assert store.messages.get(CHANNEL, 7) is not None
    assert time.monotonic() - began < 2.0
