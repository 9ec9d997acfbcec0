"""The composition root: `connect` puts the rooms together and hands out `Hybrid`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from sqlalchemy import Connection

from telegram_hybrid.cache import MessageCache
from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.redis import open_redis
from telegram_hybrid.model import Change
from telegram_hybrid.repositories.channels import Channels
from telegram_hybrid.repositories.messages import Messages
from telegram_hybrid.repositories.transaction import Transaction, Transactions
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.settings import Settings


def connect(settings: Settings | None = None) -> Hybrid:
    """Return a `Hybrid` for these settings, or for the environment's (`Settings.from_env`).

    Nothing connects before its first use. Use it as a context manager, or call `close`.
    """
    return Hybrid(settings or Settings.from_env())


class Hybrid:
    """Everything in one place: `messages`, `channels`, `transaction()`, and the cache behind them.

    Safe to share between threads; not between processes: connect again after a fork.
    """

    def __init__(self, settings: Settings, *, on_close: Callable[[], object] | None = None) -> None:
        self.settings = settings
        self._on_close = on_close
        self.engine = postgres.open_engine(settings)
        self._redis = open_redis(settings.redis_url) if settings.redis_url else None
        self.cache = MessageCache(
            self._redis,
            Keys(settings.redis_prefix),
            message_ttl=settings.message_ttl,
            seen_ttl=settings.seen_ttl,
            window_size=settings.window_size,
        )
        self._schema = schema = settings.database_schema
        self._transactions = Transactions(self.engine, schema, self._after_commit)
        self.messages = Messages(self.engine, schema, self._transactions, self.cache)
        self.channels = Channels(self._connection, schema)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Several writes, one commit: at the clean end of the block; any exception rolls back.

        A transaction that writes to several channels and meets a deadlock raises
        `WriteConflict`: run the whole block again.
        """
        with self._transactions.begin() as transaction:
            yield transaction

    def migrate(self) -> migrate.MigrationStatus:
        """Bring the database's schema to this library's revision; safe from many processes."""
        with postgres.translated_errors(self.engine), self.engine.connect() as connection:
            return migrate.upgrade(connection, schema=self.settings.database_schema)

    def destroy(self) -> None:
        """Drop the schema with all messages and every cached key: for tests and demos."""
        with postgres.transaction(self.engine) as connection:
            connection.execute(sql('DROP SCHEMA IF EXISTS "{schema}" CASCADE', self._schema))
        if self._redis is not None:
            for key in self._redis.scan_iter(match=f"{self.settings.redis_prefix}:*", count=1000):
                self._redis.delete(key)

    def close(self) -> None:
        """Close all connections. Closing twice is fine."""
        self.engine.dispose()
        self.cache.close()
        if self._redis is not None:
            self._redis.close()
        if self._on_close is not None:
            self._on_close()

    def __enter__(self) -> Hybrid:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _connection(self) -> AbstractContextManager[Connection]:
        return postgres.transaction(self.engine)

    def _after_commit(self, changes: list[Change]) -> None:
        # Both may fail without harm: the relay applies every invalidation again before it
        # publishes, and polls when nobody wakes it.
        self.cache.invalidate(changes)
        self.cache.wake()
