"""The Lua scripts on a real server that has no memory left."""

import pytest
import redis
from scripted import (
    CHANNEL,
    HELD,
    KEY,
    KEYS,
    LEASE,
    TOMBSTONE,
    WINDOW,
    RealRedis,
    fill,
    invalidate,
    lease,
    mark,
    put_window,
    stored_window,
    window,
)


class TestFullRedis:
    """maxmemory reached, nothing to evict: what frees memory passes, what takes it is refused."""

    @pytest.fixture(autouse=True)
    def full(self, client: redis.Redis) -> None:
        self.store = RealRedis(client)
        self.client = client
        client.config_set("maxmemory-policy", "noeviction")

    def fill_up(self) -> None:
        self.client.config_set("maxmemory", 1)

    def test_a_mark_passes(self) -> None:
        put_window(self.store, window(5, 9))
        self.store.put(KEY, b"old", 60)
        lease(self.store)
        lease(self.store, "b")
        self.fill_up()
        assert mark(self.store, KEY, previous=5) == 1
        assert self.store.get(KEY) is None
        assert self.store.get(LEASE) is None
        assert stored_window(self.store, HELD) == window(5, 9)
        assert self.store.published == [(KEYS.filled, KEY)]

    def test_an_invalidation_passes_without_flags(self) -> None:
        # Broken on purpose: flagged last, in a script that has freed something, they were stored.
        self.store.put(KEY, b"old", 60)
        flag = KEYS.seen(CHANNEL, 9)
        self.fill_up()
        assert invalidate(self.store, 6, seen=[flag]) == 1
        assert self.store.get(KEY) is None
        assert self.store.get(flag) is None

    def test_an_invalidation_passes_with_its_tombstone(self) -> None:
        self.store.put(KEY, b"old", 60)
        put_window(self.store, window(5, 9))
        self.fill_up()
        invalidate(self.store, 6)
        assert self.store.get(KEY) is None
        assert self.store.get(WINDOW) is None
        assert self.store.get(TOMBSTONE) == b"6"

    def test_no_lease_is_granted(self) -> None:
        self.fill_up()
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            lease(self.store)
        assert self.store.get(LEASE) is None

    def test_a_fill_is_refused_and_gives_its_lease_back(self) -> None:
        lease(self.store)
        lease(self.store, "b")
        self.fill_up()
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            fill(self.store)
        assert self.store.get(KEY) is None
        assert self.store.get(LEASE) is None
        assert self.store.published == [(KEYS.filled, KEY)]
