"""The servers under the benchmarks: the deployment's own files, durable as they are deployed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import IntEnum
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Self, TypeVar

import msgspec
import psycopg
import redis
import stand as delivery
from psycopg.types.json import set_json_loads
from servers.stack import NativeStack

from telegram_hybrid.hybrid import Hybrid, connect
from telegram_hybrid.settings import Settings

Number = TypeVar("Number", int, float)
T = TypeVar("T")


class Scale(IntEnum):
    """How much a row does in a call."""

    FULL = 0
    #: For a first look.
    QUICK = 1
    #: So little that its time says nothing, and only that everybody does the work.
    BRIEF = 2


class Stand:
    """Starts a server when a benchmark first asks for it; ends them all with the block.

    Everybody is connected straight to the two servers over TCP: neither PgBouncer nor Sentinel
    stands in between, for us no more than for others.
    """

    def __init__(self, scale: Scale = Scale.FULL) -> None:
        self.scale = scale
        self._stack: NativeStack | None = None
        self._kept: dict[str, Any] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        if self._stack is not None:
            self._stack.close()

    @cached_property
    def _servers(self) -> NativeStack:
        if missing := NativeStack.missing():
            raise RuntimeError(missing)
        self._stack = stack = NativeStack()
        stack.start(stack.postgres, stack.redis.nodes[0])
        return stack

    def sized(self, sizes: tuple[Number, Number, Number]) -> Number:
        """Of a full, a quick and a brief run's size, this run's."""
        return sizes[self.scale]

    def settle(self, seconds: float) -> None:
        """Let pass what is not like the rest, if times are what the run is for."""
        time.sleep(seconds * self.sized((1.0, 0.5, 0.0)))

    def kept(self, name: str, make: Callable[[], AbstractContextManager[T]]) -> T:
        """What `make` opens when it is first asked for, and what then stays until the end."""
        if name not in self._kept:
            self._kept[name] = self._opened.enter_context(make())
        found: T = self._kept[name]
        return found

    @property
    def database_url(self) -> str:
        """For psycopg and SQLAlchemy."""
        return self._servers.settings.database_url

    @property
    def postgres_pid(self) -> int:
        """Of the process whose children are the sessions."""
        pid = self._servers.postgres.pid
        if pid is None:
            raise RuntimeError("PostgreSQL does not run")
        return pid

    @property
    def redis_url(self) -> str:
        """For redis-py and those who stand on it."""
        node = self._servers.redis.nodes[0]
        return f"redis://:{node.password}@127.0.0.1:{node.port}/0"

    @cached_property
    def broker_url(self) -> str:
        """Of RabbitMQ, which is started now; for kombu and py-amqp."""
        self._servers.start(self._servers.rabbitmq)
        return self._servers.rabbitmq.url

    @contextmanager
    def delivery(self, name: str) -> Iterator[delivery.Stand]:
        """Outbox, exchange and the queue `telegram.<name>.events`, for relays and consumers."""
        settings = Settings(
            database_url=self.database_url, database_schema=name, exchange=name, redis_url=None
        )
        with self.psycopg() as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        with delivery.stand(settings, self.broker_url) as at:
            at.consumer(lambda event, tx: None).declare()
            self.settle(4.0)  # a quorum queue's first seconds are not like the others
            yield at

    @property
    def redis_parts(self) -> dict[str, Any]:
        """The same for those who take no URL."""
        node = self._servers.redis.nodes[0]
        return {"endpoint": "127.0.0.1", "port": node.port, "password": node.password}

    @contextmanager
    def hybrid(self, name: str, *, cached: bool = True) -> Iterator[Hybrid]:
        """The library, on a schema and a key prefix of its own, which are dropped at the end."""
        settings = Settings(
            database_url=self.database_url,
            redis_url=self.redis_url if cached else None,
            database_schema=name,
            redis_prefix=name,
        )
        with connect(settings) as hybrid:
            hybrid.destroy()
            hybrid.migrate()
            try:
                yield hybrid
            finally:
                hybrid.destroy()

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """A client as redis-py makes it, with hiredis if that is installed."""
        with redis.Redis.from_url(self.redis_url) as client:
            yield client

    @contextmanager
    def psycopg(self, *, prepared: bool = True) -> Iterator[psycopg.Connection[Any]]:
        """A connection in autocommit; not `prepared`, it works behind a transaction pooler."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            if not prepared:
                connection.prepare_threshold = None
            set_json_loads(msgspec.json.decode, connection)
            yield connection

    @contextmanager
    def loop(self) -> Iterator[asyncio.Runner]:
        """An event loop for the async contenders: uvloop's, which is the fastest, if installed."""
        factory = None
        if find_spec("uvloop"):
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            yield runner
