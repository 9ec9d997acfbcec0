"""The demo's relay and consumer: threads of this process, on connections of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import attrs

from telegram_hybrid.cli.demo.stamps import Stamps
from telegram_hybrid.connect import postgres
from telegram_hybrid.delivery.consumer import Consumer
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.delivery.subscription import ALL_CHANNELS
from telegram_hybrid.errors import ServiceError
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Event
from telegram_hybrid.schema.postgres.sql import sql

QUEUE = "telegram_hybrid.demo"
#: Seconds without any progress until waiting for the rest is given up.
PATIENCE = 30.0
_POLL = 0.02
#: Seconds without a change until what was published counts as consumed: edits leave no other trace.
_QUIET = 0.1

_TOTALS = """
SELECT (SELECT count(*) FROM "{schema}".message_keys) AS stored,
       (SELECT count(*) FROM "{schema}".inbox WHERE queue = :queue) AS consumed,
       (SELECT count(*) FROM "{schema}".message_keys AS stored
        WHERE NOT EXISTS (
            SELECT FROM "{schema}".inbox AS done
            WHERE done.queue = :queue AND done.channel_id = stored.channel_id
              AND done.message_id = stored.message_id
        )) AS missing
"""


@attrs.frozen(slots=True)
class Totals:
    """What the database holds: messages, events consumed by the demo's queue, and messages of
    which no event was consumed."""

    stored: int
    consumed: int
    missing: int


@attrs.frozen(slots=True)
class Pipeline:
    """A relay and a consumer that run."""

    hybrid: Hybrid
    relay: Relay
    consumer: Consumer[Any]

    @property
    def moved(self) -> tuple[int, int]:
        """How many events were published, and how many came out of the queue, in this run."""
        out = self.consumer.counters
        return self.relay.counters.published, out.consumed + out.duplicates + out.dead

    def totals(self) -> Totals:
        """Ask the database. Raises `DatabaseError`."""
        schema = self.hybrid.settings.database_schema
        with postgres.transaction(self.hybrid.engine) as connection:
            row = connection.execute(sql(_TOTALS, schema), {"queue": QUEUE}).one()
        return Totals(*row)

    def _settled(self) -> bool:
        """Whether the outbox is empty and each message had an event consumed."""
        published, out = self.moved
        return out >= published and not self.relay.backlog().events and not self.totals().missing

    def drain(self, watch: Callable[[], object]) -> None:
        """Wait until the outbox is empty and the queue was consumed; calls `watch` meanwhile.

        Raises what ended a worker, and `ServiceError` if nothing moves for 30 seconds.
        """
        moved, since = self.moved, monotonic()
        while True:
            sleep(_POLL)
            watch()
            for worker in (self.relay, self.consumer):
                if worker.failure is not None:
                    raise worker.failure
            if self.moved != moved:
                moved, since = self.moved, monotonic()
                continue
            quiet = monotonic() - since
            if quiet > _QUIET and self._settled():
                return
            if quiet > PATIENCE:
                raise ServiceError(
                    f"nothing was published or consumed for {PATIENCE:.0f} s: "
                    f"{self.relay.backlog().events} events wait in the outbox, and of "
                    f"{self.totals().missing} messages no event was consumed"
                )


@contextmanager
def pipeline(hybrid: Hybrid, stamps: Stamps) -> Iterator[Pipeline]:
    """Start relay and consumer, and stop them at the end of the block."""

    def handler(event: Event, _tx: object) -> None:
        stamps.entered(event)

    consumer = hybrid.consume(handler, queue=QUEUE, bind=ALL_CHANNELS, batch=50)
    # Before anything is published: an exchange keeps nothing for a queue that is not yet there.
    consumer.declare()
    # Always the same owner: the directory has one user, so a run takes over at once what a killed
    # one held, instead of when its lease expires.
    relay = hybrid.relay(owner="telegram_hybrid.demo")
    consumer.start()
    relay.start()
    try:
        yield Pipeline(hybrid, relay, consumer)
    finally:
        relay.stop()
        consumer.stop()
