"""relay: outbox to RabbitMQ, confirmed and deleted, beside a bare pipelined publisher.

The limit publishes the same bodies, properties and headers with py-amqp alone, from memory, with
the same window, and deletes nothing. Durable quorum queue, persistent, mandatory, 1 KB bodies.

Not yet a row of the suite: `pytest tests/benchmarks/test_relay_rate.py -m long -s`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import monotonic, sleep
from typing import Any

import amqp
import attrs
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from stand import Stand, stand

from benchmarks.delay import delayed
from telegram_hybrid.delivery.confirms import Confirms
from telegram_hybrid.delivery.pipeline import WINDOW
from telegram_hybrid.schema.postgres.tables import SHARDS
from telegram_hybrid.settings import Settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

EVENTS = int(os.environ.get("TELEGRAM_HYBRID_BENCHMARK_EVENTS", "20000"))
ROUNDS = 3
CHANNELS = 200
BODY = 1000

FILL = """
INSERT INTO {s}.outbox (shard, event_id, type, channel_id, message_id, payload)
SELECT (:shards - n % :channels % :shards) % :shards, gen_random_uuid(), 'message.received',
       -(n % :channels), n, json_build_object('version', n, 'text', repeat('x', :body))
FROM generate_series(1, :events) AS n
"""


@pytest.fixture
def at(telegram_settings: Settings, rabbitmq: Any) -> Iterator[Stand]:
    with stand(telegram_settings, rabbitmq.url) as ready:
        ready.consumer(lambda event, tx: None).declare()
        sleep(4.0)  # a quorum queue's first seconds are not like the others
        yield ready


def fill(at: Stand, events: int, channels: int = CHANNELS) -> None:
    """Commit so many events of 1 KB, in turns over the channels."""
    values = {"events": events, "channels": channels, "shards": SHARDS, "body": BODY}
    with at.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(FILL.format(s=at.schema)), values)


def purge(at: Stand) -> None:
    connection = at.broker()
    connection.channel().queue_purge(at.queue)
    connection.release()


def taken(at: Stand, events: int) -> set[str]:
    """Take all messages out of the queue, which have to be so many, and return their ids."""
    found: list[str] = []
    with at.broker() as connection:
        channel = connection.channel()
        channel.basic_consume(
            at.queue, no_ack=True, callback=lambda each: found.append(each.properties["message_id"])
        )
        while len(found) < events:
            connection.drain_events(timeout=30)
        channel.queue_declare(at.queue, passive=True)  # answered after what was there before
    assert len(found) == events
    return set(found)


def relayed(at: Stand, events: int, **options: Any) -> float:
    """Seconds from a relay's start until `events` are published and deleted."""
    relay = at.relay(**options)
    began = monotonic()
    relay.start()
    while relay.counters.published < events:
        assert relay.running
        sleep(0.002)
    seconds = monotonic() - began
    assert relay.stop()
    return seconds


def bare(at: Stand, url: str, events: int, window: int = WINDOW) -> float:
    """Seconds in which py-amqp alone publishes as many, with as many unconfirmed."""
    place = make_url(url)
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
    body = b"x" * BODY
    began = monotonic()
    for number in range(events):
        message = amqp.Message(
            body,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            message_id="0" * 36,
            type="message.received",
            application_headers=headers,
        )
        confirms.sent(str(number))
        channel.basic_publish(
            message,
            exchange=at.topology.exchange,
            routing_key=f"telegram.channel.-{number % CHANNELS}",
            mandatory=True,
        )
        while confirms.waiting >= window:
            connection.drain_events(timeout=30)
    while confirms.waiting:
        connection.drain_events(timeout=30)
    seconds = monotonic() - began
    connection.close()
    return seconds


def compare(contenders: dict[str, Callable[[], float]], events: int) -> dict[str, float]:
    """Run all in random order, several times; print and return events a second, the median."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # warm up
    for _ in range(ROUNDS):
        for name in random.sample(list(contenders), len(contenders)):
            rates[name].append(events / contenders[name]())
    found = {name: median(each) for name, each in rates.items()}
    print(f"\nload {os.getloadavg()[0]:.1f}")
    for name, each in rates.items():
        print(
            f"{name:40} {found[name]:8,.0f}/s  from {min(each):,.0f} to {max(each):,.0f}, "
            f"{found[name] / found['py-amqp alone']:.2f} of the limit"
        )
    return found


@contextmanager
def further(at: Stand, seconds: float) -> Iterator[Stand]:
    """The same stand, with so much more on each round trip to the broker."""
    if not seconds:
        yield at
        return
    place = make_url(at.settings.broker_url or "")
    with delayed(place.host or "", place.port or 5672, seconds) as port:
        url = place.set(port=port).render_as_string(hide_password=False)
        yield attrs.evolve(at, settings=attrs.evolve(at.settings, broker_url=url))


@pytest.mark.parametrize("milliseconds", [0, 2])
def test_relay_beside_a_bare_publisher(at: Stand, milliseconds: int) -> None:
    """Both deliver all of theirs once: the queue holds what the outbox held."""
    with further(at, milliseconds / 1000) as there:

        def relay(**options: Any) -> float:
            purge(at)
            fill(at, EVENTS)
            stored = {str(row.event_id) for row in at.rows("SELECT event_id FROM {s}.outbox")}
            seconds = relayed(there, EVENTS, **options)
            assert taken(at, EVENTS) == stored
            assert at.outbox() == []
            return seconds

        def limit() -> float:
            purge(at)
            seconds = bare(there, there.settings.broker_url or "", EVENTS)
            assert len(taken(at, EVENTS)) == 1, "all have the same id"
            return seconds

        compare(
            {
                "py-amqp alone": limit,
                f"relay, {CHANNELS} channels": relay,
                "relay, not strict": lambda: relay(strict=False),
            },
            EVENTS,
        )
