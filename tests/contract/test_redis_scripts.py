"""One suite for the Lua scripts on a real server and for the model that the explorer runs."""

import time
from collections.abc import Iterator

import pytest
import redis
from cachelab.redis_model import RedisModel
from servers.valkey import Valkey

from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.scripts import Call

KEYS = Keys("contract")
KEY = KEYS.message(-1001, 7)
LEASE = KEYS.lease(KEY)
TOMBSTONE = KEYS.tombstone(KEY)


class RealRedis:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.get = client.get
        self.delete = client.delete

    def run(self, call: Call) -> object:
        return self._client.eval(call.script.text, len(call.keys), *call.keys, *call.args)

    def put(self, key: str, value: bytes, seconds: float | None = None) -> None:
        self._client.set(key, value, px=None if seconds is None else round(seconds * 1000))

    def put_foreign(self, key: str) -> None:
        self._client.delete(key)
        self._client.rpush(key, "a", "b")

    def seconds_left(self, key: str) -> float | None:
        left = self._client.pttl(key)
        return None if left == -2 else float("inf") if left == -1 else left / 1000

    def wait(self, seconds: float) -> None:
        time.sleep(seconds + 0.01)


Store = RedisModel | RealRedis


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture(params=["model", "valkey"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "model":
        yield RedisModel()
        return
    with redis.Redis.from_url(request.getfixturevalue("server").url) as client:
        client.flushall()
        yield RealRedis(client)


def lease(store: Store, token: str = "a", seconds: float = 10, *, undecodable: bool = False):
    return store.run(scripts.lease(KEYS, KEY, token, seconds, undecodable=undecodable))


def fill(store: Store, token: str = "a", version: int = 5, value: bytes = b"value"):
    return store.run(scripts.fill(KEYS, KEY, token, version, value, 60))


def invalidate(store: Store, version: int):
    return store.run(scripts.invalidate(KEYS, KEY, version, 70))


def test_one_reader_gets_the_lease_and_the_next_does_not(store: Store) -> None:
    assert lease(store, "a") == [1, 0]
    assert lease(store, "b") == [0, 0]
    assert store.get(LEASE) == b"a"


def test_a_lease_ends_after_its_seconds(store: Store) -> None:
    lease(store, "a", 0.05)
    store.wait(0.05)
    assert fill(store, "a") == 0
    assert lease(store, "b") == [1, 0]


def test_the_holder_of_the_lease_fills_once_and_the_value_expires(store: Store) -> None:
    lease(store)
    assert fill(store, value=b"first") == 1
    assert fill(store, value=b"second") == 0
    assert store.get(KEY) == b"first"
    assert store.get(LEASE) is None
    assert 55 < store.seconds_left(KEY) <= 60


def test_nobody_fills_without_a_lease(store: Store) -> None:
    assert fill(store) == 0
    lease(store, "a")
    assert fill(store, "b") == 0
    assert store.get(KEY) is None
    assert store.get(LEASE) == b"a"


def test_an_invalidation_takes_value_and_lease_and_leaves_a_tombstone(store: Store) -> None:
    store.put(KEY, b"old", 60)
    lease(store)
    assert invalidate(store, 6) == 1
    assert store.get(KEY) is None
    assert fill(store, version=6) == 0
    assert store.get(TOMBSTONE) == b"00000000000000000006"
    assert 65 < store.seconds_left(TOMBSTONE) <= 70


def test_a_tombstone_refuses_what_is_older_and_lets_in_its_own_version(store: Store) -> None:
    invalidate(store, 6)
    lease(store)
    assert fill(store, version=5) == 0
    assert store.get(LEASE) is None, "a refused fill gives its lease back"
    lease(store)
    assert fill(store, version=6) == 1


def test_a_late_invalidation_never_lowers_the_tombstone(store: Store) -> None:
    invalidate(store, 9)
    invalidate(store, 8)
    lease(store)
    assert fill(store, version=8) == 0


def test_versions_above_2_to_53_are_told_apart(store: Store) -> None:
    # As Lua numbers both would be 2**53.
    invalidate(store, 2**53 + 1)
    lease(store)
    assert fill(store, version=2**53) == 0
    lease(store)
    assert fill(store, version=2**63 - 1) == 1


def test_a_tombstone_of_version_0_refuses_nothing(store: Store) -> None:
    invalidate(store, 0)
    lease(store)
    assert fill(store, version=0) == 1


def test_a_value_of_another_type_is_discarded_with_the_lease(store: Store) -> None:
    store.put_foreign(KEY)
    assert lease(store) == [1, 1]
    assert fill(store) == 1
    assert store.get(KEY) == b"value"


def test_a_value_is_discarded_only_if_the_reader_could_not_decode_it(store: Store) -> None:
    store.put(KEY, b"good", 60)
    assert lease(store, "a") == [1, 0]
    assert store.get(KEY) == b"good"
    assert lease(store, "b", undecodable=True) == [0, 1]
    assert store.get(KEY) is None


@pytest.mark.parametrize("guard", [LEASE, TOMBSTONE])
def test_foreign_guards_neither_open_nor_close_the_key(store: Store, guard: str) -> None:
    store.put_foreign(guard)
    assert fill(store) == 0
    assert lease(store) == [1, 0]
    assert fill(store) == 1
    store.put_foreign(guard)
    assert invalidate(store, 6) == 1
    assert store.get(TOMBSTONE) == b"00000000000000000006"


def test_a_lease_that_would_never_expire_is_taken_over(store: Store) -> None:
    store.put(LEASE, b"someone")
    assert lease(store, "a") == [1, 0]


def test_a_tombstone_that_is_no_version_refuses_nothing(store: Store) -> None:
    store.put(TOMBSTONE, b"zzz", 60)
    lease(store)
    assert fill(store) == 1


@pytest.mark.parametrize("lost", [LEASE, KEY, TOMBSTONE])
def test_evicted_keys_fail_safe(store: Store, lost: str) -> None:
    lease(store)
    store.delete(lost)
    invalidate(store, 6)
    store.delete(lost)
    assert fill(store, version=5) == 0
    assert store.get(KEY) is None
