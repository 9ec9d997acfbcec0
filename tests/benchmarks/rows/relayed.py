"""relay: outbox to RabbitMQ, confirmed and deleted, beside a bare pipelined publisher.

Durable quorum queue, persistent, mandatory, bodies of 1 KB, one process. The limit publishes the
same bodies, properties and headers with py-amqp alone, from memory, with the same window, and
deletes nothing. Every call proves that what it delivered is in the queue, once.

With TELEGRAM_HYBRID_BENCH_LONG=1 a backlog is of a million events, and a snapshot is held for five
minutes: with either, a row takes a quarter of an hour and more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from time import monotonic, perf_counter, process_time, sleep
from typing import Any

import amqp
import attrs
import kombu
import stand as delivery
from sqlalchemy import text
from sqlalchemy.engine import make_url

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.delay import delayed
from benchmarks.machine import LONG
from benchmarks.rows import faststreamed
from benchmarks.stand import Stand
from telegram_hybrid.delivery.confirms import Confirms
from telegram_hybrid.delivery.pipeline import WINDOW
from telegram_hybrid.schema.postgres.tables import SHARDS

_CHANNELS = 200
_BODY = 1000
_EVENTS = (20_000, 3_000, WINDOW + 200)
_BACKLOG = (1_000_000 if LONG else 100_000, 30_000, 2_000)
_SMALL_BACKLOG = (10_000, 10_000, 1_000)
_HELD = (300.0 if LONG else 30.0, 1.0, 0.1)
#: A contender that takes ten times as long is given so many times less to do.
_SLOW = 4
_AMQP = ("amqp", "kombu")

_FILL = """
INSERT INTO {s}.outbox (shard, event_id, type, channel_id, message_id, payload)
SELECT (:shards - n % :channels % :shards) % :shards, gen_random_uuid(), 'message.received',
       -(n % :channels), n, json_build_object('version', n, 'text', repeat('x', :body))
FROM generate_series(1, :events) AS n
"""
#: Seconds and CPU seconds of delivering so many events.
Deliver = Callable[[delivery.Stand, int], tuple[float, float]]


@attrs.frozen
class Place:
    """`at` without, `there` with the way to the broker that is measured."""

    at: delivery.Stand
    there: delivery.Stand
    events: int
    #: Of a small backlog.
    few: int = 0
    #: Seconds for which a snapshot is held.
    held: float = 0.0


def _around(name: str, seconds: float = 0.0) -> Callable[[Stand], AbstractContextManager[Place]]:
    @contextmanager
    def around(stand: Stand) -> Iterator[Place]:
        with stand.delivery(name) as at, _further(at, seconds) as there:
            yield Place(at, there, stand.sized(_EVENTS))

    return around


@contextmanager
def _further(at: delivery.Stand, seconds: float) -> Iterator[delivery.Stand]:
    """The same stand, with so much more on each round trip to the broker."""
    if not seconds:
        yield at
        return
    place = make_url(at.settings.broker_url or "")
    with delayed(place.host or "", place.port or 5672, seconds) as port:
        url = place.set(port=port).render_as_string(hide_password=False)
        yield attrs.evolve(at, settings=attrs.evolve(at.settings, broker_url=url))


def delivering(
    deliver: Deliver, events: Callable[[Place], int] = lambda place: place.events
) -> Callable[[Place], AbstractContextManager[Operation]]:
    """A call delivers that many events to an empty queue, and leaves it empty."""

    @contextmanager
    def opened(place: Place) -> Iterator[Operation]:
        count = events(place)

        def call(_: object) -> tuple[float, float]:
            told = deliver(place.there, count)
            _take(place.at, count)
            if left := place.at.value("SELECT count(*) FROM {s}.outbox"):
                raise RuntimeError(f"{left:,} events are in the outbox still")
            return told

        yield Operation(call=call, per=count, tells=True)

    return opened


def _few(place: Place) -> int:
    return max(1, place.events // _SLOW)


def _fill(at: delivery.Stand, events: int) -> None:
    """Commit so many events of 1 KB, in turns over the channels."""
    values = {"events": events, "channels": _CHANNELS, "shards": SHARDS, "body": _BODY}
    with at.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(_FILL.format(s=at.schema)), values)
    os.sync()  # a backlog that grew in hours keeps no disk busy any more


def _take(at: delivery.Stand, events: int) -> None:
    """Take all messages out of the queue, which have to be so many, and no two the same."""
    found: list[str] = []
    with at.broker() as connection:
        channel = connection.channel()
        channel.basic_consume(
            at.queue, no_ack=True, callback=lambda each: found.append(each.properties["message_id"])
        )
        while len(found) < events:
            connection.drain_events(timeout=60)
            connection.heartbeat_check()  # a million take longer than it may be silent
        channel.queue_declare(at.queue, passive=True)  # answered after what was there before
    if len(found) != events or len(set(found)) != events:
        raise RuntimeError(f"{events:,} events came as {len(found):,}, {len(set(found)):,} of them")


def relayed(at: delivery.Stand, events: int, **options: Any) -> tuple[float, float]:
    """From a relay's start until `events` that wait are published and deleted."""
    _fill(at, events)
    relay = at.relay(**options)
    began, burnt = perf_counter(), process_time()
    relay.start()
    while relay.counters.published < events:
        if not relay.running:
            raise RuntimeError(f"the relay ended: {relay.failure}")
        sleep(0.005)
    told = perf_counter() - began, process_time() - burnt
    if not relay.stop():
        raise RuntimeError("the relay does not end")
    return told


def bare(at: delivery.Stand, events: int) -> tuple[float, float]:
    """As many by py-amqp alone, with as many unconfirmed."""
    place = make_url(at.settings.broker_url or "")
    connection = amqp.Connection(
        f"{place.host}:{place.port}", place.username, place.password, virtual_host=place.database
    )
    connection.connect()
    channel = connection.channel()
    confirms = Confirms()
    channel.events["basic_ack"].add(confirms.acked)
    channel.events["basic_nack"].add(confirms.nacked)
    channel.confirm_select()
    names = ("specversion", "id", "type", "source", "subject", "time", "sequence", "dataschema")
    headers = {f"cloudEvents_{name}": "x" * 20 for name in names}
    body = b"x" * _BODY
    began, burnt = perf_counter(), process_time()
    for number in range(events):
        message = amqp.Message(
            body,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            message_id=f"{number:036}",
            type="message.received",
            application_headers=headers,
        )
        confirms.sent(str(number))
        channel.basic_publish(
            message,
            exchange=at.topology.exchange,
            routing_key=f"telegram.channel.-{number % _CHANNELS}",
            mandatory=True,
        )
        while confirms.waiting >= WINDOW:
            connection.drain_events(timeout=30)
    while confirms.waiting:
        connection.drain_events(timeout=30)
    told = perf_counter() - began, process_time() - burnt
    connection.close()
    return told


def polled(at: delivery.Stand, events: int) -> tuple[float, float]:
    """What people write first: select 500 rows, publish each with kombu and wait, delete them."""
    _fill(at, events)
    take = text(
        f"SELECT id, event_id, channel_id, payload::text FROM {at.schema}.outbox"
        " ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED"
    )
    remove = text(f"DELETE FROM {at.schema}.outbox WHERE id = ANY(:ids)")
    transport = {"confirm_publish": True}
    with kombu.Connection(at.settings.broker_url, transport_options=transport) as connection:
        producer = kombu.Producer(connection.channel())
        began, burnt = perf_counter(), process_time()
        while True:
            with at.engine.begin() as transaction:
                rows = transaction.execute(take).all()
                if not rows:
                    break
                for row in rows:
                    producer.publish(
                        row.payload,
                        exchange=at.topology.exchange,
                        routing_key=f"telegram.channel.{row.channel_id}",
                        content_type="application/json",
                        content_encoding="utf-8",
                        delivery_mode=2,
                        mandatory=True,
                        message_id=str(row.event_id),
                    )
                transaction.execute(remove, {"ids": [row.id for row in rows]})
        return perf_counter() - began, process_time() - burnt


def _contenders(*more: Contender) -> tuple[Contender, ...]:
    return (
        Contender("relay", Role.OURS, delivering(relayed)),
        Contender("py-amqp, pipelined", Role.LIMIT, delivering(bare), needs=_AMQP),
        *more,
    )


RELAY = Benchmark(
    id="relay",
    what=f"events of 1 KB of {_CHANNELS} channels from the outbox to RabbitMQ, confirmed",
    contenders=_contenders(
        Contender("relay, strict=False", Role.FLOOR, delivering(partial(relayed, strict=False))),
        Contender("kombu, a confirm each", Role.ALTERNATIVE, delivering(polled, _few), needs=_AMQP),
        Contender(
            "faststream-outbox",
            Role.ALTERNATIVE,
            delivering(partial(faststreamed.relayed, body=_BODY), _few),
            needs=faststreamed.NEEDS,
        ),
    ),
    plan=Plan(rounds=7, calls=1, warmup=1),
    quick=Plan(rounds=2, calls=1, warmup=1),
    aim=Aim(limit=1 / 0.7, alternatives=1 / 5, most=1 / 5_000),
    around=_around("bench_relay"),
)
RELAY_FAR = Benchmark(
    id="relay-2ms",
    what="the same with 2 ms more on each round trip to the broker",
    contenders=_contenders(),
    plan=Plan(rounds=5, calls=1, warmup=1),
    quick=Plan(rounds=2, calls=1, warmup=1),
    aim=Aim(limit=1 / 0.6),
    around=_around("bench_relay_far", 0.002),
)


def under_a_snapshot(at: delivery.Stand, events: int, *, seconds: float) -> tuple[float, float]:
    """The same, while another session has held a snapshot for so long, through as much work."""
    with at.engine.connect().execution_options(isolation_level="REPEATABLE READ") as session:
        session.execute(text("SET idle_in_transaction_session_timeout = 0"))
        session.execute(text(f"SELECT count(*) FROM {at.schema}.outbox"))  # takes the snapshot
        until = monotonic() + seconds
        while monotonic() < until:
            relayed(at, events)
            _take(at, events)
        told = relayed(at, events)
        session.invalidate()
    with at.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.execute(text(f"VACUUM {at.schema}.outbox"))  # not for the others to wait for
    return told


@contextmanager
def _snapshots(stand: Stand) -> Iterator[Place]:
    with stand.delivery("bench_snapshot") as at:
        yield Place(at, at, stand.sized(_EVENTS), held=stand.sized(_HELD))


def _held(place: Place) -> AbstractContextManager[Operation]:
    return delivering(partial(under_a_snapshot, seconds=place.held))(place)


RELAY_SNAPSHOT = Benchmark(
    id="relay-snapshot",
    what=f"the same at the end of {_HELD[0]:.0f} seconds ({_HELD[1]:.0f} with --quick) of work"
    " during which another session held a snapshot, beside no such session",
    contenders=(
        Contender("a snapshot is held", Role.OURS, _held),
        Contender("none is held", Role.LIMIT, delivering(relayed)),
    ),
    plan=Plan(rounds=2, calls=1, warmup=0),
    quick=Plan(rounds=1, calls=1, warmup=0),
    aim=Aim(limit=1.15),
    around=_snapshots,
)


def in_small_backlogs(at: delivery.Stand, events: int, *, each: int) -> tuple[float, float]:
    """As many events, of which no more than `each` wait at a time."""
    told = [relayed(at, each) for _ in range(events // each)]
    return sum(seconds for seconds, _ in told), sum(burnt for _, burnt in told)


def _small(place: Place) -> AbstractContextManager[Operation]:
    return delivering(partial(in_small_backlogs, each=place.few))(place)


@contextmanager
def _backlogs(stand: Stand) -> Iterator[Place]:
    with stand.delivery("bench_backlog") as at:
        yield Place(at, at, stand.sized(_BACKLOG), few=stand.sized(_SMALL_BACKLOG))


RELAY_BACKLOG = Benchmark(
    id="relay-backlog",
    what=f"an event of a backlog of {_BACKLOG[0]:,} ({_BACKLOG[1]:,} with --quick),"
    f" beside as many in backlogs of {_SMALL_BACKLOG[0]:,}",
    contenders=(
        Contender("one backlog", Role.OURS, delivering(relayed)),
        Contender("small backlogs, one by one", Role.LIMIT, _small),
        # What PostgreSQL and RabbitMQ put off until later, it does not pay; or it pays another's.
        Contender("a small one alone", Role.FLOOR, delivering(relayed, lambda at: at.few)),
        Contender("py-amqp, as many", Role.FLOOR, delivering(bare), needs=_AMQP),
    ),
    plan=Plan(rounds=2, calls=1, warmup=0),
    quick=Plan(rounds=1, calls=1, warmup=0),
    aim=Aim(limit=1.15),
    around=_backlogs,
)

ROWS = (RELAY, RELAY_FAR, RELAY_SNAPSHOT, RELAY_BACKLOG)
