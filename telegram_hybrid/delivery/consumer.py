"""Consumer: each event of a queue into its handler's transaction, effectively once (P4).

For each event one transaction: the inbox row, and if that is new, the handler's writes; then the
acknowledgement. A crash before the commit leaves nothing, and one after it a redelivery that the
inbox recognizes. What is to be done next decides `schedule`; this is the shell around it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from threading import Event as Flag
from time import monotonic
from typing import Any, Generic, TypeVar
from uuid import UUID

import attrs
import kombu
from sqlalchemy import Connection, Engine

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.broker import close_quietly, is_amqp, place, translated_errors
from telegram_hybrid.delivery import letters
from telegram_hybrid.delivery.acks import Delivery, acknowledge
from telegram_hybrid.delivery.backoff import RECONNECT, REHANDLE, Backoff
from telegram_hybrid.delivery.gauges import ConsumerCounters, ConsumerGauges, Rate, Times
from telegram_hybrid.delivery.pulse import Pulse
from telegram_hybrid.delivery.schedule import GiveUp, Job, Schedule
from telegram_hybrid.delivery.silence import Silence
from telegram_hybrid.delivery.subscription import HasConnection, PlainTransaction
from telegram_hybrid.delivery.topology import declare_exchanges, declare_queue, standing
from telegram_hybrid.delivery.worker import Worker, log
from telegram_hybrid.errors import (
    BrokerError,
    BrokerUnavailable,
    DatabaseError,
    DatabaseUnavailable,
    InvalidInput,
    TopologyConflict,
)
from telegram_hybrid.model import Event, checks
from telegram_hybrid.observe import traces
from telegram_hybrid.outbox import dead_letters, inbox
from telegram_hybrid.schema.broker import Topology, checked_name, open_envelope, routing_key

#: How many unacknowledged events the broker hands to one consumer.
PREFETCH = 100
#: Seconds: how soon a stop is noticed while nothing arrives.
_IDLE = 0.25


Tx = TypeVar("Tx", bound=HasConnection)


class Consumer(Worker, Generic[Tx]):
    """Consumes `queue`, bound to the exchange by `bind` (one routing key or several).

    `handler(event, tx)` is called with the transaction that also holds the inbox row, opened by
    `transaction` (default: one with nothing but `.connection`); it must not commit. If it raises,
    all is rolled back, and it is called again after growing delays, up to `max_attempts` times;
    then the event becomes a dead letter. It runs in the trace of the event's writer. Meanwhile
    later events of the same channel wait, and those of others go on, as far as `prefetch` reaches;
    with `keep_order=False` those of the same channel go on, too. A lost server is waited for and
    never counts as the handler's failure.

    With a `batch` above 1, up to so many events that wait already share a transaction, which is
    several times faster; if the handler raises on one, all are rolled back and each is handled
    again in its own.

    Several consumers of one queue, in any processes, share its load; then the events of a channel
    are handled at the same time in several places, and their order is lost. With `single_active`
    the broker serves one of them and keeps the others in reserve: the order per channel holds,
    also while one takes over from another. It is a property of the queue, the same for all its
    consumers. A consumer that is alone on its queue needs it, too, where the order has to survive
    a lost connection: without it, RabbitMQ may send later events of a channel over the new one
    while it still holds earlier ones for the old.
    Raises `InvalidInput` for a queue or routing key that the broker could not hold, and for a
    `max_attempts`, `prefetch` or `batch` below 1.
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
        batch: int = 1,
        keep_order: bool = True,
        single_active: bool = False,
        topology: Topology | None = None,
        backoff: Backoff = REHANDLE,
    ) -> None:
        super().__init__(f"telegram_hybrid.consumer.{checked_name('queue', queue)}")
        self._engine = engine
        self._schema = schema
        self._broker = broker
        self.queue = queue
        keys = [bind] if isinstance(bind, str) else list(bind)
        self._bind = [checked_name(f"bind[{at}]", key) for at, key in enumerate(keys)]
        self._handler = handler
        self._transaction: Callable[[], AbstractContextManager[Any]] = (
            transaction or self._plain_transaction
        )
        # No prefetch at all (0) would let the broker send everything at once.
        self._prefetch = checks.count("prefetch", prefetch, least=1, most=65_535)
        self._batch = checks.count("batch", batch, least=1)
        self._keep_order = keep_order
        self._single_active = single_active
        self._topology = topology or Topology()
        self._schedule: Schedule[Delivery] = Schedule(
            max_attempts=checks.count("max_attempts", max_attempts, least=1), backoff=backoff
        )
        self._setbacks = 0
        self._arrivals = 0
        self._rate, self._lag, self._handling = Rate(), Times(), Times()
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

    def gauges(self) -> ConsumerGauges:
        """How this consumer stands; may be asked from any thread."""
        return ConsumerGauges(
            in_hand=len(self._schedule),
            rate=self._rate.per_second(monotonic()),
            lag_p50=self._lag.quantile(0.5),
            lag_p99=self._lag.quantile(0.99),
            handler_p50=self._handling.quantile(0.5),
            handler_p99=self._handling.quantile(0.99),
        )

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
        pulse = Pulse(connection)
        try:
            channel = self._declare(connection)
            with translated_errors(connection):
                kombu.Consumer(
                    channel,
                    [kombu.Queue(self.queue)],
                    on_message=self._arrived,
                    # A wrong header "compression": the message is buried as it came.
                    on_decode_error=lambda message, _: self._arrived(message),
                    prefetch_count=self._prefetch,
                    auto_declare=False,
                ).consume()
            drained_at = monotonic()
            silence = Silence(self._arrivals, drained_at)
            while not stop.is_set():
                now = monotonic()
                jobs = self._schedule.take(now, self._batch)
                if jobs:
                    with pulse:
                        self._handle(pulse, jobs, stop)
                if not jobs or now - drained_at > 1.0:
                    # Also between busy handlers: heartbeats of the broker must be read.
                    self._drain(connection, 0.0 if jobs else _IDLE)
                    drained_at = monotonic()
                    self._doubt(silence, connection, channel)
        finally:
            pulse.close()
            close_quietly(connection)

    def _declare(self, connection: kombu.Connection) -> Any:
        with translated_errors(connection):
            channel = connection.channel()
        declare_exchanges(connection, channel, self._topology)
        declare_queue(
            connection,
            channel,
            self._topology,
            self.queue,
            self._bind,
            single_active=self._single_active,
        )
        return channel

    def _drain(self, connection: kombu.Connection, seconds: float) -> None:
        """Take in what arrives within `seconds`, and what is there already, up to a batch."""
        due = self._schedule.due(monotonic())
        wait = seconds if due is None else min(due, seconds)
        with translated_errors(connection):
            with suppress(TimeoutError):
                connection.drain_events(timeout=wait)
                while len(self._schedule) < self._batch:
                    connection.drain_events(timeout=0.0)
            connection.heartbeat_check()

    def _doubt(self, silence: Silence, connection: kombu.Connection, channel: Any) -> None:
        """Give the connection up if the broker keeps events to itself."""
        if is_amqp(connection) and silence.due(self._arrivals, len(self._schedule), monotonic()):
            ready, consumers = standing(connection, channel, self.queue)
            if silence.stuck(ready, consumers, monotonic()):
                told = f"{place(connection)}: queue {self.queue!r} keeps {ready} events to itself"
                raise BrokerUnavailable(f"{told}; a new connection may get them")

    def _arrived(self, message: Any) -> None:
        key = str((message.delivery_info or {}).get("routing_key") or "")
        identity = str((message.properties or {}).get("message_id") or message.delivery_tag)
        event: Event | InvalidInput
        lane = key
        try:
            record = open_envelope(message.body, message.headers or {})
            lane = routing_key(record.channel_id)  # also for topics that are no channel's
            event = record.event()
        except InvalidInput as error:
            event = error
        self._arrivals += 1
        delivery = Delivery(self._arrivals, message, key, event)
        alone = isinstance(event, InvalidInput)
        # Events wait behind those of the same channel: without order, each behind itself.
        if not self._keep_order:
            lane = f"{identity} {message.delivery_tag}"
        self._schedule.arrived(Job(lane, identity, delivery, alone), monotonic())

    # Some events

    def _handle(self, pulse: Pulse, jobs: list[Job[Delivery]], stop: Flag) -> None:
        first = jobs[0].delivery.event
        if isinstance(first, InvalidInput):  # and so alone
            self._bury(pulse, jobs[0], 0, letters.why_unreadable(first), stop)
            return
        events = [job.delivery.event for job in jobs if isinstance(job.delivery.event, Event)]
        handling = False
        try:
            with self._transaction() as tx:
                new = self._receive(tx.connection, events)
                handling = True
                handled = self._call(events, new, tx)
        except DatabaseError as error:
            if handling and not error.retryable:
                self._failed(pulse, jobs, error, stop)
            else:
                self._not_now(jobs, error, stop)
        except Exception as error:  # noqa: BLE001  (a handler may raise anything; it is kept)
            self._failed(pulse, jobs, error, stop)
        else:
            self._setbacks = 0
            self._note(handled, duplicates=len(events) - len(handled))
            self._schedule.done(jobs, monotonic())
            with pulse.used():
                in_hand = (job.delivery for job in self._schedule)
                acknowledge([job.delivery for job in jobs], in_hand)

    def _receive(self, connection: Connection, events: Sequence[Event]) -> set[UUID]:
        entries = [
            inbox.Entry(event.event_id, event.channel_id, event.message_id) for event in events
        ]
        return inbox.receive(connection, self._schema, self.queue, entries)

    def _call(self, events: Sequence[Event], new: set[UUID], tx: Any) -> list[Event]:
        """Call the handler with each new event; return those."""
        handled = []
        for event in events:
            if event.event_id in new:
                new.remove(event.event_id)
                began = monotonic()
                with traces.continued(event.traceparent):
                    self._handler(event, tx)
                self._handling.add([monotonic() - began])
                handled.append(event)
        return handled

    def _failed(
        self,
        pulse: Pulse,
        jobs: list[Job[Delivery]],
        error: Exception,
        stop: Flag,
    ) -> None:
        if len(jobs) > 1:
            self._schedule.apart(jobs, monotonic())
            return
        (job,) = jobs
        decision = self._schedule.failed(job, monotonic(), random.random())  # noqa: S311
        what = letters.told(error)
        if isinstance(decision, GiveUp):
            self._bury(pulse, job, decision.attempts, what, stop)
            return
        self._count(retried=1)
        log.warning(
            "%s: event %s failed (attempt %s, again in %.1f s): %s",
            self.name,
            job.identity,
            decision.attempts,
            decision.delay,
            what,
            exc_info=error,
        )

    def _bury(
        self,
        pulse: Pulse,
        job: Job[Delivery],
        attempts: int,
        reason: str,
        stop: Flag,
    ) -> None:
        """Write the dead letter, once, then let the broker have its own."""
        reason = reason[:4000]
        message = job.delivery.message
        letter = letters.of_message(
            message.body or "", message.headers or {}, job.identity, job.delivery.routing_key
        )
        entry = inbox.Entry(letter.event_id, letter.channel_id, letter.message_id)
        try:
            with postgres.transaction(self._engine) as database:
                if inbox.receive(database, self._schema, self.queue, [entry]):
                    dead_letters.bury(
                        database,
                        self._schema,
                        letter,
                        queue=self.queue,
                        attempts=attempts,
                        reason=reason,
                    )
        except DatabaseError as error:
            self._not_now([job], error, stop)
            return
        log.error("%s: event %s is a dead letter: %s", self.name, letter.event_id, reason)
        self._count(dead=1)
        self._schedule.done([job], monotonic())
        with pulse.used():
            message.reject(requeue=False)

    def _not_now(self, jobs: list[Job[Delivery]], error: DatabaseError, stop: Flag) -> None:
        """The database failed, not the handler: the events stay in hand and come again."""
        if isinstance(error, DatabaseUnavailable):
            self._setback(error, stop)
            self._schedule.later(jobs, monotonic(), 0.0)
        else:
            self._count(failures=1)
            log.warning("%s: %s", self.name, error)
            self._schedule.later(jobs, monotonic(), RECONNECT.delay(1, random.random()))  # noqa: S311

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

    def _note(self, handled: Sequence[Event], *, duplicates: int) -> None:
        now = datetime.now(UTC)
        self._rate.add(len(handled), monotonic())
        self._lag.add(max(0.0, (now - event.occurred_at).total_seconds()) for event in handled)
        self._count(consumed=len(handled), duplicates=duplicates)

    def _count(self, **more: int) -> None:
        now = self.counters
        self.counters = attrs.evolve(now, **{k: getattr(now, k) + n for k, n in more.items()})
