"""Consumer: each event of a queue into its handler's transaction, effectively once (P4).

For each event one transaction: the inbox row, and if that is new, the handler's writes; then the
acknowledgement. A crash before the commit leaves nothing, and one after it a redelivery that the
inbox recognizes. What is to be done next decides `schedule`; this is the shell around it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Event as Flag
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import attrs
import kombu
from sqlalchemy import Connection, Engine

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.broker import close_quietly, translated_errors
from telegram_hybrid.delivery import letters
from telegram_hybrid.delivery.backoff import RECONNECT, REHANDLE, Backoff
from telegram_hybrid.delivery.schedule import GiveUp, Job, Schedule
from telegram_hybrid.delivery.topology import declare_exchanges, declare_queue
from telegram_hybrid.delivery.worker import Worker, log
from telegram_hybrid.errors import (
    BrokerError,
    DatabaseError,
    DatabaseUnavailable,
    InvalidInput,
    TopologyConflict,
)
from telegram_hybrid.model import Event
from telegram_hybrid.outbox import dead_letters, inbox
from telegram_hybrid.outbox.dead_letters import DeadLetter
from telegram_hybrid.schema.broker import Topology, open_envelope

#: How many unacknowledged events the broker hands to one consumer.
PREFETCH = 100
#: Seconds: how soon a stop is noticed while nothing arrives.
_IDLE = 0.25


class HasConnection(Protocol):
    """What a consumer needs of a transaction: where to write the inbox row."""

    @property
    def connection(self) -> Connection:
        """The SQLAlchemy connection, in its transaction."""


Tx = TypeVar("Tx", bound=HasConnection)


@attrs.frozen(slots=True)
class PlainTransaction:
    """A transaction of which the handler gets only the connection."""

    connection: Connection


@attrs.frozen(slots=True)
class ConsumerCounters:
    """What a consumer did since it was made.

    `consumed` events were handled and committed here; `duplicates` were so before; `retried`
    counts failures of the handler that are tried again; `dead` events were given up; `failures`
    counts what a lost server interrupted.
    """

    consumed: int = 0
    duplicates: int = 0
    retried: int = 0
    dead: int = 0
    failures: int = 0


class Consumer(Worker, Generic[Tx]):
    """Consumes `queue`, bound to the exchange by `bind` (one routing key or several).

    `handler(event, tx)` is called with the transaction that also holds the inbox row, opened by
    `transaction` (default: one with nothing but `.connection`); it must not commit. If it raises,
    all is rolled back, and it is called again after growing delays, up to `max_attempts` times;
    then the event becomes a dead letter. Meanwhile later events of the same channel wait, and
    those of others go on, as far as `prefetch` reaches. A lost server is waited for and never
    counts as the handler's failure.

    Order per channel holds as long as one consumer has the queue; several share its load.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str,
        broker: Callable[[], kombu.Connection],
        queue: str,
        bind: str | Sequence[str],
        handler: Callable[[Event, Tx], object],
        transaction: Callable[[], AbstractContextManager[Tx]] | None = None,
        *,
        max_attempts: int = 5,
        prefetch: int = PREFETCH,
        topology: Topology | None = None,
        backoff: Backoff = REHANDLE,
    ) -> None:
        super().__init__(f"telegram_hybrid.consumer.{queue}")
        self._engine = engine
        self._schema = schema
        self._broker = broker
        self._queue = queue
        self._bind = [bind] if isinstance(bind, str) else list(bind)
        self._handler = handler
        self._transaction: Callable[[], AbstractContextManager[Any]] = (
            transaction or self._plain_transaction
        )
        self._prefetch = prefetch
        self._topology = topology or Topology()
        self._schedule: Schedule[Any] = Schedule(max_attempts=max_attempts, backoff=backoff)
        self._setbacks = 0
        self.counters = ConsumerCounters()

    def declare(self) -> None:
        """Declare queue and bindings now, so that nothing is published past them before `run`.

        Raises `BrokerError`.
        """
        connection = self._broker()
        try:
            self._declare(connection)
        finally:
            close_quietly(connection)

    def run(self, stop: Flag) -> None:
        """Consume until `stop` is set; lost servers are waited for.

        Raises `TopologyConflict` if the queue stands there with other properties: that does not
        get better by trying again.
        """
        while not stop.is_set():
            try:
                self._serve(stop)
            except TopologyConflict:
                raise
            except BrokerError as error:
                self._setback(error, stop)
            finally:
                self._schedule.forget()

    # One connection

    def _serve(self, stop: Flag) -> None:
        connection = self._broker()
        try:
            channel = self._declare(connection)
            with translated_errors(connection):
                consumer = kombu.Consumer(
                    channel,
                    [kombu.Queue(self._queue)],
                    on_message=self._arrived,
                    prefetch_count=self._prefetch,
                    auto_declare=False,
                )
                consumer.consume()
            drained_at = monotonic()
            while not stop.is_set():
                now = monotonic()
                job = self._schedule.next(now)
                if job is not None:
                    self._handle(connection, job, stop)
                if job is None or now - drained_at > 1.0:
                    # Also between busy handlers: heartbeats of the broker must be read.
                    wait = _IDLE if job is None else 0.001
                    due = self._schedule.due(monotonic())
                    self._drain(connection, wait if due is None else max(0.001, min(due, wait)))
                    drained_at = monotonic()
        finally:
            close_quietly(connection)

    def _declare(self, connection: kombu.Connection) -> Any:
        with translated_errors(connection):
            channel = connection.channel()
        declare_exchanges(connection, channel, self._topology)
        declare_queue(connection, channel, self._topology, self._queue, self._bind)
        return channel

    def _drain(self, connection: kombu.Connection, seconds: float) -> None:
        with translated_errors(connection), suppress(TimeoutError):
            connection.drain_events(timeout=seconds)
        with translated_errors(connection):
            connection.heartbeat_check()

    def _arrived(self, message: Any) -> None:
        key = (message.delivery_info or {}).get("routing_key") or ""
        identity = (message.properties or {}).get("message_id") or str(message.delivery_tag)
        self._schedule.arrived(Job(str(key), str(identity), message), monotonic())

    # One event

    def _handle(self, connection: kombu.Connection, job: Job[Any], stop: Flag) -> None:
        message = job.delivery
        try:
            event = open_envelope(message.body, message.headers or {})
        except InvalidInput as error:
            letter = letters.of_unreadable(
                message.body, message.headers or {}, job.identity, job.key
            )
            self._give_up(connection, job, letter, 0, f"unreadable: {error}", stop)
            return
        handling = False
        try:
            with self._transaction() as tx:
                new = self._receive(tx.connection, event)
                handling = True
                if new:
                    self._handler(event, tx)
        except DatabaseError as error:
            if handling and not error.retryable:
                self._failed(connection, job, event, error, stop)
            else:
                self._not_now(job, error, stop)
        except Exception as error:  # noqa: BLE001  (a handler may raise anything; it is kept)
            self._failed(connection, job, event, error, stop)
        else:
            self._finish(connection, job)
            self._count(**{"consumed" if new else "duplicates": 1})
            self._setbacks = 0

    def _receive(self, connection: Connection, event: Event) -> bool:
        return inbox.receive(
            connection,
            self._schema,
            self._queue,
            event_id=event.event_id,
            channel_id=event.message.channel_id,
            message_id=event.message.message_id,
        )

    def _failed(
        self,
        connection: kombu.Connection,
        job: Job[Any],
        event: Event,
        error: Exception,
        stop: Flag,
    ) -> None:
        decision = self._schedule.failed(job, monotonic(), random.random())  # noqa: S311
        what = f"{type(error).__name__}: {error}"
        if isinstance(decision, GiveUp):
            letter = letters.of_event(event)
            self._give_up(connection, job, letter, decision.attempts, what, stop)
            return
        self._count(retried=1)
        log.warning(
            "%s: event %s failed (attempt %s, again in %.1f s): %s",
            self.name,
            event.event_id,
            decision.attempts,
            decision.delay,
            what,
            exc_info=error,
        )

    def _give_up(
        self,
        connection: kombu.Connection,
        job: Job[Any],
        letter: DeadLetter,
        attempts: int,
        reason: str,
        stop: Flag,
    ) -> None:
        try:
            with postgres.transaction(self._engine) as database:
                if inbox.receive(
                    database,
                    self._schema,
                    self._queue,
                    event_id=letter.event_id,
                    channel_id=letter.channel_id,
                    message_id=letter.message_id,
                ):
                    dead_letters.bury(
                        database,
                        self._schema,
                        letter,
                        queue=self._queue,
                        attempts=attempts,
                        reason=reason.replace("\0", "\\0")[:4000],
                    )
        except DatabaseError as error:
            self._not_now(job, error, stop)
            return
        log.error("%s: event %s is a dead letter: %s", self.name, letter.event_id, reason)
        self._count(dead=1)
        with translated_errors(connection):
            job.delivery.reject(requeue=False)
        self._schedule.done(job, monotonic())

    def _finish(self, connection: kombu.Connection, job: Job[Any]) -> None:
        self._schedule.done(job, monotonic())
        with translated_errors(connection):
            job.delivery.ack()

    def _not_now(self, job: Job[Any], error: DatabaseError, stop: Flag) -> None:
        """The database failed, not the handler: the event stays in hand and comes again."""
        if isinstance(error, DatabaseUnavailable):
            self._setback(error, stop)
            self._schedule.later(job, monotonic(), 0.0)
        else:
            self._count(failures=1)
            log.warning("%s: %s", self.name, error)
            self._schedule.later(job, monotonic(), REHANDLE.delay(1, random.random()))  # noqa: S311

    def _setback(self, error: Exception, stop: Flag) -> None:
        self._setbacks += 1
        self._count(failures=1)
        delay = RECONNECT.delay(self._setbacks, random.random())  # noqa: S311
        log.warning("%s: %s; trying again in %.1f s", self.name, error, delay)
        stop.wait(delay)

    @contextmanager
    def _plain_transaction(self) -> Iterator[PlainTransaction]:
        with postgres.transaction(self._engine) as connection:
            yield PlainTransaction(connection)

    def _count(self, **more: int) -> None:
        now = self.counters
        self.counters = attrs.evolve(now, **{k: getattr(now, k) + n for k, n in more.items()})
