"""Relay: carries committed events from the outbox to the broker, and deletes what is confirmed.

All of it goes on at once: a window of events is under way to the broker while the next ones are
read and those that were confirmed are deleted. A crash between any two steps repeats events, and
loses or reorders none (P3): a row is deleted only after its event was confirmed, and an event is
published only after all earlier ones of its channel were. What is cached of a message is
invalidated before its event is published, so that a consumer which reads through the cache sees at
least the version of its event, also when the writer died before doing it (P5).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from threading import Event
from time import monotonic
from uuid import uuid4

import attrs
import kombu
from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.connect.postgres.line import Line
from telegram_hybrid.delivery.backoff import RECONNECT
from telegram_hybrid.delivery.carried import changes_of, seal_row, tell
from telegram_hybrid.delivery.gauges import Rate, RelayCounters, RelayGauges, Times
from telegram_hybrid.delivery.holding import Holding
from telegram_hybrid.delivery.pipeline import WINDOW, Pipeline
from telegram_hybrid.delivery.publisher import Publisher, open_publisher
from telegram_hybrid.delivery.settlement import MAX_ATTEMPTS, OnDead, decide
from telegram_hybrid.delivery.wake import LocalWake, Wake
from telegram_hybrid.delivery.worker import Worker, log
from telegram_hybrid.errors import BrokerError, HybridError, InvalidInput, ServiceError
from telegram_hybrid.model import Change, checks
from telegram_hybrid.outbox import claims, dead_letters, heads
from telegram_hybrid.outbox.claims import Burial, Postponement
from telegram_hybrid.outbox.rows import OutboxRow
from telegram_hybrid.schema.broker import Topology

#: Seconds for which a relay has its shards without renewing.
LEASE = 15.0
#: Rows held ahead of publishing.
BATCH = 2000
#: Events written to the broker between two looks at its answers.
BURST = 64
#: Confirmed events that are deleted together, and the seconds that they wait for more to come.
SETTLE, SETTLE_AFTER = 500, 0.05
#: Seconds for which answers wait for more to come, while nothing waits for them.
ANSWERS_AFTER = 0.005
#: Seconds between two polls: the first after work, and the most after a long silence.
POLL_FIRST, POLL_MOST = 0.05, 1.0
#: Seconds between two looks at everything, whatever the floors say.
FULL_LOOK = 60.0
#: Seconds that a relay which was stopped waits for the answers to what is under way.
FINISH = 5.0


class Relay(Worker):
    """One relay; several, in as many processes as wanted, share the work by leases.

    `broker` opens a connection (`connect.broker.open_broker`); it is called again after every
    loss. `invalidate` gets the changes of events before they are published; its failing stops
    nothing. `recall` gets shards that were another's, or nobody's, before they are worked on.
    `wake` cuts the polling short. `owner` names this relay in the leases: a relay that
    gets the name of one that died takes its shards over at once, instead of after
    `lease_seconds`; two living relays must not share one.

    `window` events may be unconfirmed at once, `batch` are held in memory ahead of that.
    `strict` allows one unconfirmed event a channel (`delivery.pipeline` tells what the other
    costs). An event that is refused `max_attempts` times becomes a dead letter, and `on_dead`
    says whether its channel goes on ("continue") or waits until somebody replays or discards it
    ("freeze").
    Raises `InvalidInput` for numbers below 1.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str,
        broker: Callable[[], kombu.Connection],
        invalidate: Callable[[list[Change]], bool | None] | None = None,
        recall: Callable[[Set[int]], object] = lambda _: None,
        wake: Wake | None = None,
        *,
        topology: Topology | None = None,
        owner: str | None = None,
        lease_seconds: float = LEASE,
        window: int = WINDOW,
        batch: int = BATCH,
        strict: bool = True,
        max_attempts: int = MAX_ATTEMPTS,
        on_dead: OnDead = "continue",
        confirm_timeout: float = 30.0,
    ) -> None:
        super().__init__("telegram_hybrid.relay")
        if on_dead not in ("continue", "freeze"):
            raise InvalidInput("on_dead", f"expected 'continue' or 'freeze', not {on_dead!r}")
        self._engine = engine
        self._line = Line(engine)
        self._schema = schema
        self._broker = broker
        self._invalidate = invalidate
        self._wake = wake or LocalWake()
        self._topology = topology or Topology()
        self._pipeline = Pipeline(window=checks.count("window", window, least=1), strict=strict)
        owner = owner or f"relay-{uuid4().hex}"
        self._holding = Holding(self._line, schema, owner, lease_seconds, self._pipeline, recall)
        self._batch = checks.count("batch", batch, least=1)
        self._max_attempts = checks.count("max_attempts", max_attempts, least=1)
        self._on_dead = on_dead
        self._confirm_timeout = confirm_timeout
        self._publisher: Publisher | None = None
        self._full_look_at = monotonic() + FULL_LOOK
        self._settle_at = 0.0
        self._poll_at, self._poll_after = 0.0, POLL_FIRST
        self._rate, self._confirmed = Rate(), Times()
        #: Since when the broker fails that is needed, and whether the shards were left to others.
        self._cut_off_at: float | None = None
        self._aside = False
        #: Channels with events of which the cache could not be told.
        self._owed: set[int] = set()
        self.counters = RelayCounters()

    def run(self, stop: Event) -> None:
        """Relay until `stop` is set, then give the leases back. Lost servers are waited for."""
        failures = 0
        try:
            while not stop.is_set():
                try:
                    if not self._turn():
                        self._sleep(POLL_MOST)
                except ServiceError as error:
                    failures += 1
                    self._count(failures=1)
                    if isinstance(error, BrokerError):
                        self._step_aside()
                    delay = RECONNECT.delay(failures, random.random())  # noqa: S311
                    log.warning("relay: %s; trying again in %.1f s", error, delay)
                    stop.wait(delay)
                    continue
                failures = 0
                if self._pipeline.idle:
                    self._cut_off_at = None
            self._finish()
        finally:
            self.close()

    def step(self) -> int:
        """Read once, publish and settle all of it; return how many events were confirmed.

        Raises `DatabaseError` or `BrokerError`; what was confirmed before is settled, now or by
        the next step, which goes on from there.
        """
        before = self.counters.published
        self._holding.renew()
        self._holding.shards.expect()
        self._read()
        while not self._pipeline.idle:
            self._holding.renew()
            if not self._carry(ending=True):
                self._sleep(SETTLE_AFTER)
        return self.counters.published - before

    def backlog(self) -> claims.Backlog:
        """How many events wait, of all shards. Raises `DatabaseError`."""
        with transaction(self._engine) as connection:
            return claims.backlog(connection, self._schema)

    def gauges(self) -> RelayGauges:
        """How this relay stands, and the backlog; may be asked from any thread.

        Reads the whole outbox, so ask every few seconds at most. Raises `DatabaseError`.
        """
        with transaction(self._engine) as connection:
            backlog = claims.backlog(connection, self._schema)
            letters = dead_letters.count(connection, self._schema)
        return RelayGauges(
            backlog=backlog.events,
            oldest=backlog.age,
            frozen=backlog.frozen,
            dead_letters=letters,
            shards=len(self._holding.lease.epochs),
            waiting=self._pipeline.waiting,
            unconfirmed=self._pipeline.flying,
            rate=self._rate.per_second(monotonic()),
            confirm_p50=self._confirmed.quantile(0.5),
            confirm_p99=self._confirmed.quantile(0.99),
        )

    def close(self) -> None:
        """Give up the leases and the connection; legal at any time, and again."""
        self._drop_publisher()
        self._wake.close()
        self._holding.close()
        self._line.close()

    def _step_aside(self) -> None:
        """Leave the shards to others, who may have a broker, as soon as those of a dead relay."""
        now = monotonic()
        self._cut_off_at = self._cut_off_at or now
        self._aside = now - self._cut_off_at >= self._holding.seconds
        if self._aside:
            self._holding.close()

    def _turn(self) -> bool:
        """Do what can be done without waiting; return whether that was anything."""
        if self._aside:
            self._connected()
            self._aside = False
        self._holding.renew()
        now = monotonic()
        if self._wake.wait(0.0) or now >= self._poll_at:
            self._holding.shards.expect()
        read = self._read()
        if read:
            self._poll_after = POLL_FIRST
        if read or now >= self._poll_at:
            self._poll_at = now + self._poll_after
            self._poll_after = min(POLL_MOST, 2 * self._poll_after)
        return self._carry() or read > 0

    def _carry(self, *, ending: bool = False) -> bool:
        """Publish, hear what the broker answered, settle; return whether anything went on."""
        moved = self._exchange()
        moved += self._settle(at_once=ending and not self._pipeline.flying)
        self._holding.give_up()
        return moved > 0

    def _finish(self) -> None:
        """Wait for the answers to what is under way, and settle it."""
        self._pipeline.retire(self._holding.lease.shards)
        deadline = monotonic() + FINISH
        while not self._pipeline.idle and monotonic() < deadline:
            try:
                if not self._carry(ending=True):
                    self._sleep(SETTLE_AFTER)
            except ServiceError as error:
                log.warning("relay: stopped before all was settled: %s", error)
                return

    def _sleep(self, seconds: float) -> None:
        """Wait for news, for answers, or until something is due, for `seconds` at most."""
        number = self._publisher.fileno() if self._publisher else None
        others = [] if number is None else [number]
        if self._pipeline.flying and not self._pipeline.waiting:
            others, seconds = [], min(seconds, ANSWERS_AFTER)
        if self._pipeline.confirmed:
            seconds = min(seconds, SETTLE_AFTER)
        due = min(self._poll_at, self._holding.renew_at) - monotonic()
        if self._wake.wait(max(0.0, min(seconds, due)), others):
            self._holding.shards.expect()

    def _read(self) -> int:
        """Fill up what is held ahead; return how many events that brought."""
        if not self._holding.lease.epochs:
            return 0
        full = monotonic() >= self._full_look_at
        if full:
            self._holding.shards.expect()
        held = -(-self._batch // len(self._holding.lease.epochs))
        asks = self._holding.shards.asks(
            held, self._pipeline.waiting_in, self._holding.leaving, full=full
        )
        if not asks:
            return 0
        with self._line() as connection:
            found = claims.pending(connection, self._schema, asks, known=self._pipeline.known())
        if full:
            self._full_look_at = monotonic() + FULL_LOOK
        self._holding.shards.looked(asks, found)
        if found.rows:
            self._forget_cached(found.rows)
            self._pipeline.offer(found.rows)
        self._holding.shards.lower(self._pipeline.dropped())
        return len(found.rows)

    def _exchange(self) -> int:
        """Publish while the window and the lease last; return how many events and answers."""
        sent = answered = 0
        lease_ends = self._holding.valid_until
        try:
            while True:
                if self._publisher is not None:
                    receipts = self._publisher.receipts()
                    self._pipeline.answered(receipts)
                    if receipts:
                        self._cut_off_at = None
                    self._confirmed.add(receipt.seconds for receipt in receipts)
                    answered += len(receipts)
                held_back = self._publisher is not None and self._publisher.blocked
                if held_back or answered >= SETTLE or monotonic() >= lease_ends:
                    break
                if not (rows := self._pipeline.take(BURST)):
                    break
                self._connected().send([seal_row(row) for row in rows], until=lease_ends)
                sent += len(rows)
        except BrokerError:
            self._drop_publisher()
            raise
        return sent + answered

    def _connected(self) -> Publisher:
        if self._publisher is None:
            self._publisher = open_publisher(
                self._broker(), self._topology, confirm_timeout=self._confirm_timeout
            )
        return self._publisher

    def _settle(self, *, at_once: bool) -> int:
        """Delete what is confirmed and decide on what is refused; return how many rows."""
        pipeline = self._pipeline
        if not (pipeline.confirmed or pipeline.refused):
            self._settle_at = 0.0
            return 0
        now = monotonic()
        self._settle_at = self._settle_at or now + SETTLE_AFTER
        due = at_once or pipeline.refused or now >= self._settle_at
        if not due and pipeline.confirmed < SETTLE:
            return 0
        self._settle_at = 0.0
        done = pipeline.unsettled()
        decisions = [
            decide(
                row,
                receipt,
                max_attempts=self._max_attempts,
                on_dead=self._on_dead,
                chance=random.random(),  # noqa: S311
            )
            for row, receipt in done.refused.values()
        ]
        lease, schema = self._holding.lease, self._schema
        # Each statement commits itself: see `Holding`.
        if self._owed:  # before the rows are gone that tell of it
            with self._line() as connection:
                heads.owe(connection, schema, self._owed)
            self._owed.clear()
        with self._line() as connection:
            published, number = claims.delete(connection, schema, lease, list(done.confirmed))
        if number:
            self._holding.shards.deleted(number)
        elif done.confirmed:  # it is another server: ask it for a lease
            self._holding.renew_at = 0.0
        postponed = dead = 0
        if decisions:
            late = [each for each in decisions if isinstance(each, Postponement)]
            with self._line() as connection:
                postponed = claims.postpone(connection, schema, lease, late)
                dead = claims.bury(
                    connection, schema, lease, [e for e in decisions if isinstance(e, Burial)]
                )
            self._holding.shards.expect()
            tell(late)
        self._rate.add(published, now)
        pipeline.settled(done)
        self._count(published=published, postponed=postponed, dead=dead)
        self._holding.shards.lower(self._pipeline.dropped())
        return len(done.confirmed) + len(done.refused)

    def _forget_cached(self, rows: Sequence[OutboxRow]) -> None:
        if self._invalidate is None:
            return
        try:
            told = self._invalidate(changes_of(rows))
        except HybridError as error:
            log.warning("relay: publishing without invalidating: %s", error)
            told = False
        if told is False:
            self._owed |= {row.channel_id for row in rows}

    def _count(self, **more: int) -> None:
        now = self.counters
        self.counters = attrs.evolve(now, **{k: getattr(now, k) + n for k, n in more.items()})

    def _drop_publisher(self) -> None:
        publisher, self._publisher = self._publisher, None
        self._pipeline.lost()
        if publisher is not None:
            publisher.close()

    def _interrupt(self) -> None:
        self._wake.notify()
