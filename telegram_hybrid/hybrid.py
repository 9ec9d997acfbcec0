"""The composition root: `connect` puts the rooms together and hands out `Hybrid`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any

import attrs
import kombu
from redis import Redis
from sqlalchemy import Connection

from telegram_hybrid.cache import Lifetimes, MessageCache
from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.connect.redis import Address, Directory, directory_of, open_redis, restarts_of
from telegram_hybrid.delivery.consumer import Consumer
from telegram_hybrid.delivery.letterbox import DeadLetters
from telegram_hybrid.delivery.maintenance import DAY, Forgotten, maintain
from telegram_hybrid.delivery.notify import PostgresWake, notifier
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.delivery.replay import replay
from telegram_hybrid.delivery.subscription import ALL_CHANNELS, Handler, Subscription, consumer
from telegram_hybrid.delivery.wake import RedisWake, Wake
from telegram_hybrid.delivery.worker import Worker
from telegram_hybrid.errors import ConfigurationError, DatabaseError, InvalidInput
from telegram_hybrid.health import SECONDS, Health, check
from telegram_hybrid.model import ChannelWrite, UnknownChannels
from telegram_hybrid.outbox import heads
from telegram_hybrid.repositories.channels import Channels
from telegram_hybrid.repositories.compressing import compress
from telegram_hybrid.repositories.messages import Messages
from telegram_hybrid.repositories.outbox import Outbox
from telegram_hybrid.repositories.partitions import Partitions
from telegram_hybrid.repositories.results import Results
from telegram_hybrid.repositories.retiring import Retiring
from telegram_hybrid.repositories.statistics import StatisticsReader, is_not_allowed
from telegram_hybrid.repositories.transaction import Transaction, Transactions
from telegram_hybrid.repositories.truth import Truth
from telegram_hybrid.schema.broker import Topology
from telegram_hybrid.schema.postgres import migrate, substrings
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.settings import Settings


def connect(settings: Settings | None = None) -> Hybrid:
    """Return a `Hybrid` for these settings, or for the environment's (`Settings.from_env`).

    Nothing connects before its first use. Use it as a context manager, or call `close`.
    """
    return Hybrid(settings or Settings.from_env())


class Hybrid:
    """Everything in one place: `messages`, `channels`, `statistics`, `transaction()`, the cache.

    Safe to share between threads. A forked process may go on with it, on connections of its own;
    relays and consumers that run stay with the parent.
    """

    def __init__(self, settings: Settings, *, on_close: Callable[[], object] | None = None) -> None:
        self.settings = settings
        self._on_close = on_close
        self.engine = postgres.open_engine(settings)
        self._redis = open_redis(settings.redis_url, deadline=None) if settings.redis_url else None
        self.cache = MessageCache(
            self._redis,
            Keys(settings.redis_prefix),
            Lifetimes(
                message=settings.message_ttl,
                seen=settings.seen_ttl,
                last=settings.cache_keep_last or 0.0,
            ),
            window_size=settings.window_size,
        )
        if self._redis is not None:
            self._follow(self._redis)
        self._schema = schema = settings.database_schema
        self._direct = engine = postgres.open_engine(settings, pooled=False, direct=True)
        # Never through the pooler, whose connections the waiting writers hold; nor do they wait
        # for a partition longer than for any other answer.
        self._making = postgres.open_engine(attrs.evolve(settings, pooler_url=None), pooled=False)
        self._partitions = Partitions(self._making, schema, settings.partition_interval)
        self._notify = notifier(self.engine, schema)
        self._transactions = Transactions(
            self.engine,
            schema,
            self._partitions,
            self.cache.mark,
            self._after_commit,
            refuse_unknown=settings.unknown_channels is UnknownChannels.REFUSE,
        )
        self._retiring = Retiring(engine, schema, self._transactions, self._partitions)
        self.cache.truth = Truth(self.engine, schema)
        if settings.cache_audit_every is not None:
            self.cache.watch(settings.cache_audit_every)
        self._workers: list[Worker] = []
        self.messages = Messages(self.engine, schema, self._transactions, self.cache)
        self.channels = Channels(self._connection, schema)
        self.statistics = StatisticsReader(self.engine, engine, schema)
        self.dead_letters = DeadLetters(
            self._connection,
            schema,
            self._open_broker() if settings.broker_url else None,
            self._topology,
        )
        self.outbox = Outbox(self._connection, schema)
        self._results = Results(self.engine, schema, self.cache)

    def transaction(self, *, traceparent: str | None = None) -> AbstractContextManager[Transaction]:
        """Several writes, one commit: at the clean end of the block; any exception rolls back.

        A transaction that writes to several channels and meets a deadlock raises
        `WriteConflict`: run the whole block again.

        Its events carry `traceparent` (W3C Trace Context); without one, that of OpenTelemetry's
        current span, where `opentelemetry-api` is installed, or of the event being handled.
        """
        return self._transactions.begin(traceparent=traceparent)

    def cached(
        self,
        name: str,
        query: Callable[[Connection], Any],
        *,
        channels: Iterable[int],
        parameters: Any = None,
    ) -> Any:
        """Return what `query(connection)` gives, from the cache while it is true.

        It is forgotten as soon as one of `channels` is written to, and after half a minute. What
        comes back went through JSON. `name` and `parameters` tell queries apart: they hold all
        that the query depends on, apart from the channels' messages.

            hybrid.cached("busiest", busiest, channels=ids, parameters={"hours": 24})
        """
        return self._results.read(name, query, channels=channels, parameters=parameters)

    def relay(self, **options: Any) -> Relay:
        """Return a relay of the outbox, not yet started: `start()`, or `run(stop)` in this thread.

        `options` are those of `Relay`. Any number of relays, in any processes, share the work.
        Raises `ConfigurationError` without a broker.
        """
        wake: Wake
        if self._redis is not None:
            wake = RedisWake(self._redis, self.cache.keys.wake)
        else:
            engine = postgres.open_engine(self.settings, pooled=False, direct=True, deadline=0)
            wake = PostgresWake(engine, self._schema)
        relay = Relay(
            self.engine,
            self._schema,
            self._open_broker(),
            self.cache.repair,
            self._recall,
            wake,
            topology=self._topology,
            **options,
        )
        self._workers.append(relay)
        return relay

    def consume(
        self,
        handler: Subscription | Handler,
        *,
        queue: str | None = None,
        bind: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Consumer[Transaction]:
        """Return a consumer, not yet started: `start()`, or `run(stop)` in this thread.

        `handler` was made by `@consumer`, or is a function `(event, tx)` and `queue` is given.
        `tx` is a transaction as from `transaction()`: what it writes commits together with the
        inbox row (P4). `options` are those of `Consumer`. Raises `ConfigurationError` without a
        broker, `InvalidInput` without a queue.
        """
        if not isinstance(handler, Subscription):
            handler = consumer(queue=queue or "", bind=bind or ALL_CHANNELS)(handler)
        made = Consumer(
            self.engine,
            self._schema,
            self._open_broker(),
            queue or handler.queue,
            bind or handler.bind,
            handler.handler,
            self.transaction,
            topology=self._topology,
            **options,
        )
        self._workers.append(made)
        return made

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The relays and consumers that were got from here."""
        return tuple(self._workers)

    def replay(
        self,
        *,
        channel_id: int | None = None,
        since: datetime | None = None,
        queue: str | None = None,
    ) -> int:
        """Announce stored messages again, by fresh events; return how many.

        See `delivery.replay.replay`. To hand given-up events out again: `dead_letters.replay_all`.
        """
        with self.transaction() as tx:
            return replay(
                tx.connection, self._schema, channel_id=channel_id, since=since, queue=queue
            )

    def maintain(
        self,
        *,
        message_window: float | None = None,
        compress_window: float | None = None,
        progress: Callable[[int, int], object] = lambda done, total: None,
        **options: Any,
    ) -> Forgotten:
        """Forget inbox rows older than `Settings.inbox_window`, and dead letters and changes of
        long ago, and make the partitions of the near future; run it daily.

        Messages stay, unless `message_window` or `Settings.message_window` says for how many
        seconds (by `sent_at`): then whole partitions go in which everything is older, with the
        revisions of what is in them. `progress` is told how many of how many are done. Statistics
        stay, and so do the keys, by which a redelivery is known; nothing is announced. In a
        hypertable, chunks are compressed in which everything is older than `compress_window`, or
        `Settings.compress_window`, if one of them is given.

        What TimescaleDB has counted is brought up to date before that. `options` are those of
        `delivery.maintenance.maintain`. Raises `InvalidInput`.
        """
        kept, loose = (
            _days_ago(name, getattr(self.settings, name) if given is None else given)
            for name, given in (
                ("message_window", message_window),
                ("compress_window", compress_window),
            )
        )
        options.setdefault("inbox_window", self.settings.inbox_window)
        done = maintain(self._connection, self._schema, **options)
        try:
            self.statistics.refresh()
        except DatabaseError as error:
            if not is_not_allowed(error):  # such a role leaves it to the job
                raise
        self._partitions.ahead()
        if kept is not None:
            gone = self._retiring.retire(kept, progress=progress)
            done = attrs.evolve(done, messages=gone)
        if loose is not None:
            chunks = compress(self._direct, self._schema, loose, progress)
            done = attrs.evolve(done, compressed=chunks)
        return done

    def health(self, *, seconds: float = SECONDS) -> Health:
        """Ask all services at once how they are, and return after `seconds` at most.

        Every service is asked on new connections; where this process goes another way than they
        do, past a pooler that is back already or to Redis without Sentinel, that is told. The
        queues are those of the consumers got from here, those that any consumer has ever
        dealt with, and the dead-letter queue.
        """
        return check(
            self.settings,
            seconds=seconds,
            engine=self.engine,
            client=self._redis,
            queues=[each.queue for each in self.workers if isinstance(each, Consumer)],
        )

    def migrate(self) -> migrate.MigrationStatus:
        """Bring the database's schema to this library's revision; safe from many processes."""
        engine = postgres.open_engine(self.settings, pooled=False, direct=True)
        with postgres.translated_errors(engine), postgres.connected(engine) as connection:
            return migrate.upgrade(
                connection,
                schema=self.settings.database_schema,
                interval=self.settings.partition_interval,
                timescaledb=self.settings.timescaledb,
            )

    def index_substrings(self, wanted: bool = True) -> None:
        """Index every three characters of messages, for `search(match="substring")`; or no more.

        Without it a substring that is rare is looked for in all messages of the time. With it
        every save costs more: see "Search" in the documentation. Writers wait while it is made
        of what is stored. Raises `ConfigurationError` where PostgreSQL has no pg_trgm, and
        `DatabaseError` where the role may not create it.
        """
        engine = postgres.open_engine(self.settings, pooled=False, direct=True)
        with postgres.transaction(engine) as connection:
            substrings.index(connection, self._schema, wanted=wanted)

    def destroy(self) -> None:
        """Drop the schema with all messages and every cached key: for tests and demos."""
        with postgres.transaction(self.engine) as connection:
            connection.execute(sql('DROP SCHEMA IF EXISTS "{schema}" CASCADE', self._schema))
        self._partitions.forget()
        if self._redis is not None:
            for key in self._redis.scan_iter(match=f"{self.settings.redis_prefix}:*", count=1000):
                self._redis.delete(key)

    def close(self) -> None:
        """Stop the relays and consumers got from here, and close all connections.

        Closing twice is fine; whatever needs the database afterwards raises `Closed`.
        """
        for worker in self.workers:
            worker.stop()
        self._notify.close()
        for engine in (self.engine, self._direct, self._making):
            postgres.shut(engine)
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

    @property
    def _topology(self) -> Topology:
        return Topology(self.settings.exchange)

    def _open_broker(self) -> Callable[[], kombu.Connection]:
        url = self.settings.broker_url
        if url is None:
            raise ConfigurationError("no broker: set TELEGRAM_BROKER_URL or TELEGRAM_RABBITMQ_HOST")
        return partial(open_broker, url)

    def _connection(self) -> AbstractContextManager[Connection]:
        return postgres.transaction(self.engine)

    def _recall(self, shards: Set[int]) -> None:
        """Have the cache repaired where a relay may have died that should have done it."""

        def changed(seconds: float) -> tuple[dict[int, int], set[int]]:
            with self._connection() as connection:
                return heads.changed(connection, self._schema, shards, seconds)

        self.cache.recall(changed)

    def _follow(self, client: Redis) -> None:
        """Have the cache told when another server, or another run of it, answers."""
        directory, restarts = directory_of(client), restarts_of(client)
        if directory is not None:
            directory.observe(partial(self._master_changed, directory))
        if restarts is not None:
            restarts.observe(self.cache.server_restarted)

    def _master_changed(self, directory: Directory, epoch: int, _master: Address) -> None:
        if epoch > 1:  # the first is the one that we find
            self.cache.master_changed(directory.lost)

    def _after_commit(self, writes: list[ChannelWrite]) -> None:
        # Both may fail without harm: the relay applies every invalidation again before it
        # publishes, and polls when nobody wakes it.
        self.cache.committed(writes)
        if self._redis is None:
            self._notify()


def _days_ago(name: str, seconds: float | None) -> datetime | None:
    """When that was. Raises `InvalidInput` for less than a day, and for no time at all."""
    if seconds is None:
        return None
    if not DAY <= seconds < 1e10:
        raise InvalidInput(name, f"{seconds:g} s; at least {DAY:g} s, a day")
    return datetime.now(UTC) - timedelta(seconds=seconds)
