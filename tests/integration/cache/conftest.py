"""A real Valkey for the cache tests, and one of its own for a test that harms it."""

from collections.abc import Iterator

import pytest
import redis
from cachelab.rows import KEYS
from servers.valkey import Valkey

from telegram_hybrid.cache import MessageCache
from telegram_hybrid.connect.redis import open_redis


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    with open_redis(valkey.url, deadline=None) as client:
        client.flushall()
        yield client


@pytest.fixture
def cache(client: redis.Redis) -> MessageCache:
    return MessageCache(client, KEYS, window_size=3)
