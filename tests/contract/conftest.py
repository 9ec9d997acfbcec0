"""The two sides of the scripts' contract, the server shared by all of its tests."""

from collections.abc import Iterator

import pytest
import redis
from cachelab.redis_model import RedisModel
from scripted import RealRedis, Store
from servers.valkey import Valkey


@pytest.fixture(scope="session")
def server() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
def client(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture(params=["model", "valkey"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "model":
        yield RedisModel()
        return
    real = RealRedis(request.getfixturevalue("client"))
    yield real
    real.close()
