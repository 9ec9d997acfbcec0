"""Redis with sentinels to be killed, and a pooler in front of a PostgreSQL, both to be killed."""

from collections.abc import Iterator

import attrs
import pytest
from servers.redis_ha import MASTER_NAME, RedisHA
from servers.stack import NativeStack

from telegram_hybrid.settings import Settings


@pytest.fixture
def ha(own_stack: NativeStack) -> RedisHA:
    """Redis and Sentinel as deployed, but a master is taken for dead after one second of silence.

    Every test gets them anew, the first master being the master.
    """
    for each in own_stack.redis.sentinels:
        line = f"sentinel down-after-milliseconds {MASTER_NAME}"
        own_stack.replace(f"{each.name}/sentinel.conf", f"{line} 2000", f"{line} 1000")
    own_stack.redis.start()
    return own_stack.redis


@pytest.fixture
def pooled(stack: NativeStack) -> NativeStack:
    """The deployment with PostgreSQL and PgBouncer running."""
    stack.pgbouncer.resume()
    stack.start(stack.postgres, stack.pgbouncer)
    return stack


@pytest.fixture
def settings(pooled: NativeStack) -> Iterator[Settings]:
    """The deployment's settings of its database alone; its tables are gone after the test."""
    settings = attrs.evolve(pooled.settings, redis_url=None, broker_url=None, pool_size=8)
    yield settings
    pooled.start(pooled.postgres)
    with pooled.connect() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {settings.database_schema} CASCADE")
