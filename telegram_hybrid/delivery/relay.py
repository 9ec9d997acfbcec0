"""Relay: carries committed events from the outbox to the broker, and deletes what is confirmed.

One round: renew the leases, read a batch, invalidate what is cached of its messages, publish,
settle. A crash between any two of these repeats events, and loses or reorders none (P3): a row is
deleted only after its event was confirmed, and an event is published only after all earlier ones
of its channel were. Invalidating comes first, so that a consumer which reads through the cache
sees at least the version of its event, also when the writer died before doing it (P5).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from threading import Event
from time import monotonic
from uuid import uuid4

import attrs
import kombu
import msgspec
from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.delivery.backoff import RECONNECT
from telegram_hybrid.delivery.publisher import Publisher, open_publisher
from telegram_hybrid.delivery.settlement import MAX_ATTEMPTS, Settlement, settle
from telegram_hybrid.delivery.wake import LocalWake, Wake
from telegram_hybrid.delivery.worker import Worker, log
from telegram_hybrid.errors import HybridError, PublishRefused, ServiceError
from telegram_hybrid.model import Change, MessageKey, checks
from telegram_hybrid.outbox import claims, leases
from telegram_hybrid.outbox.rows import OutboxRow
from telegram_hybrid.schema.broker import Envelope, Topology, seal

#: Rows in one round.
BATCH = 500
#: Seconds between two polls: the first after work, and the most after a long silence.
POLL_FIRST, POLL_MOST = 0.05, 1.0


@attrs.frozen(slots=True)
class RelayCounters:
    """What a relay did since it was made. `failures` counts rounds that a lost server ended."""

    published: int = 0
    postponed: int = 0
    dead: int = 0
    failures: int = 0


class Relay(Worker):
    """One relay; several, in as many processes as wanted, share the work by leases.

    `broker` opens a connection (`connect.broker.open_broker`); it is called again after every
    loss. `invalidate` gets the changes of each batch before it is published; its failing stops
    nothing. `wake` cuts the polling short. `owner` names this relay in the leases: a relay that
    gets the name of one that died takes its shards over at once, instead of after
    `lease_seconds`; two living relays must not share one. Raises
    `InvalidInput` for a `batch` or `max_attempts` below 1.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str,
        broker: Callable[[], kombu.Connection],
        invalidate: Callable[[list[Change]], object] | None = None,
        wake: Wake | None = None,
        *,
        topology: Topology | None = None,
        owner: str | None = None,
        lease_seconds: float = 15.0,
        batch: int = BATCH,
        max_attempts: int = MAX_ATTEMPTS,
        confirm_timeout: float = 30.0,
    ) -> None:
        super().__init__("telegram_hybrid.relay")
        self._engine = engine
        self._schema = schema
        self._broker = broker
        self._invalidate = invalidate
        self._wake = wake or LocalWake()
        self._topology = topology or Topology()
        self._lease = leases.Lease(owner or f"relay-{uuid4().hex}")
        self._lease_seconds = lease_seconds
        self._renew_at = 0.0
        self._batch = checks.count("batch", batch, least=1)
        self._max_attempts = checks.count("max_attempts", max_attempts, least=1)
        self._confirm_timeout = confirm_timeout
        self._publisher: Publisher | None = None
        self.counters = RelayCounters()

    def run(self, stop: Event) -> None:
        """Relay until `stop` is set, then give the leases back. Lost servers are waited for."""
        idle = failures = 0
        try:
            while not stop.is_set():
                try:
                    busy = self.step()
                except ServiceError as error:
                    failures += 1
                    self._count(failures=1)
                    self._drop_publisher()
                    delay = RECONNECT.delay(failures, random.random())  # noqa: S311
                    log.warning("relay: %s; trying again in %.1f s", error, delay)
                    stop.wait(delay)
                    continue
                failures = 0
                idle = 0 if busy else idle + 1
                if idle:
                    self._wake.wait(min(POLL_MOST, POLL_FIRST * 2.0 ** min(idle - 1, 10)))
        finally:
            self.close()

    def step(self) -> int:
        """Do one round; return how many events were confirmed.

        Raises `DatabaseError` or `BrokerError`; what was confirmed before is settled, and the
        next round goes on from there.
        """
        self._renew()
        with transaction(self._engine) as connection:
            rows = claims.pending(connection, self._schema, self._lease.shards, limit=self._batch)
        if not rows:
            if self._publisher is not None:
                self._publisher.pump()
            return 0
        self._forget_cached(rows)  # first: also while there is no broker
        if self._publisher is None:
            self._publisher = open_publisher(
                self._broker(), self._topology, confirm_timeout=self._confirm_timeout
            )
        receipts = self._publisher.publish([_seal(row) for row in rows])
        settlement = settle(
            rows,
            receipts,
            max_attempts=self._max_attempts,
            chance=random.random,
        )
        self._apply(settlement)
        if settlement.doubt is not None:
            raise PublishRefused(settlement.doubt)
        return len(settlement.delete)

    def backlog(self) -> claims.Backlog:
        """How many events wait, of all shards. Raises `DatabaseError`."""
        with transaction(self._engine) as connection:
            return claims.backlog(connection, self._schema)

    def close(self) -> None:
        """Give up the leases and the connection; legal at any time, and again."""
        self._drop_publisher()
        self._wake.close()
        lease, self._lease = self._lease, leases.Lease(self._lease.owner)
        self._renew_at = 0.0
        if lease.epochs:
            try:
                with transaction(self._engine) as connection:
                    leases.release(connection, self._schema, lease)
            except ServiceError as error:
                log.warning("relay: leases are left to expire: %s", error)

    def _renew(self) -> None:
        if monotonic() < self._renew_at:
            return
        with transaction(self._engine) as connection:
            self._lease = leases.acquire(
                connection, self._schema, self._lease, seconds=self._lease_seconds
            )
        self._renew_at = monotonic() + self._lease_seconds / 3

    def _forget_cached(self, rows: Sequence[OutboxRow]) -> None:
        if self._invalidate is None:
            return
        try:
            self._invalidate([_change(row) for row in rows])
        except HybridError as error:
            log.warning("relay: publishing without invalidating: %s", error)

    def _apply(self, settlement: Settlement) -> None:
        with transaction(self._engine) as connection:
            lease, schema = self._lease, self._schema
            published = claims.delete(connection, schema, lease, settlement.delete)
            postponed = claims.postpone(connection, schema, lease, settlement.postpone)
            dead = claims.bury(connection, schema, lease, settlement.bury)
        self._count(published=published, postponed=postponed, dead=dead)
        for postponement in settlement.postpone:
            row = postponement.row
            log.warning(
                "relay: event %s of channel %s, attempt %s: %s; the channel waits %.1f s",
                row.id,
                row.channel_id,
                row.attempts + 1,
                postponement.error,
                postponement.delay,
            )

    def _count(self, **more: int) -> None:
        now = self.counters
        self.counters = attrs.evolve(now, **{k: getattr(now, k) + n for k, n in more.items()})

    def _drop_publisher(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()

    def _interrupt(self) -> None:
        self._wake.notify()


class _Version(msgspec.Struct):
    version: int = 0


_VERSION = msgspec.json.Decoder(_Version)


def _change(row: OutboxRow) -> Change:
    key = MessageKey(row.channel_id, row.message_id)
    return Change(key, _VERSION.decode(row.payload).version, row.type)


def _seal(row: OutboxRow) -> Envelope:
    return seal(
        event_id=row.event_id,
        type=row.type.value,
        sequence=row.id,
        occurred_at=row.occurred_at,
        channel_id=row.channel_id,
        message_id=row.message_id,
        payload=row.payload,
        traceparent=row.traceparent,
    )
