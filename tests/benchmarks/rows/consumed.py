"""consume: from the queue into a handler's transaction, with the inbox and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from time import perf_counter, process_time, sleep
from typing import Any

import attrs
import kombu
import stand as delivery
from sqlalchemy import text

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.stand import Stand

_EVENTS = (3_000, 500, 100)
_PREFETCH = 50
_AMQP = ("amqp", "kombu")

_EFFECT = "INSERT INTO {s}.effects (sequence, channel_id) VALUES (:sequence, :channel_id)"
#: Seconds and CPU seconds of handling so many events, whose effects are in the table then.
Consume = Callable[[delivery.Stand, int], tuple[float, float]]


@attrs.frozen
class _Place:
    at: delivery.Stand
    events: int


@contextmanager
def _queue(stand: Stand) -> Iterator[_Place]:
    with stand.delivery("bench_consume") as at:
        at.execute("CREATE TABLE {s}.effects (sequence bigint, channel_id bigint)")
        yield _Place(at, stand.sized(_EVENTS))


def _consuming(consume: Consume) -> Callable[[_Place], AbstractContextManager[Operation]]:
    """A call handles that many events that wait in the queue, and proves their effects."""

    @contextmanager
    def opened(place: _Place) -> Iterator[Operation]:
        at, events = place.at, place.events

        def call(_: object) -> tuple[float, float]:
            at.execute("TRUNCATE {s}.effects")
            at.feed(events, channels=range(-50, 0), text="x" * 800)
            relay = at.relay(owner="bench")
            while relay.step():
                pass
            relay.close()
            told = consume(at, events)
            if (found := at.value("SELECT count(DISTINCT sequence) FROM {s}.effects")) != events:
                raise RuntimeError(f"{found:,} of {events:,} events had an effect")
            return told

        yield Operation(call=call, per=events, tells=True)

    return opened


def _with_inbox(at: delivery.Stand, events: int, **options: Any) -> tuple[float, float]:
    statement = text(_EFFECT.format(s=at.schema))

    def handle(event: Any, tx: Any) -> None:
        values = {"sequence": event.sequence, "channel_id": event.channel_id}
        tx.connection.execute(statement, values)

    consumer = at.consumer(handle, prefetch=_PREFETCH, **options)
    began, burnt = perf_counter(), process_time()
    consumer.start()
    while consumer.counters.consumed < events:
        if not consumer.running:
            raise RuntimeError(f"the consumer ended: {consumer.failure}")
        sleep(0.005)
    told = perf_counter() - began, process_time() - burnt
    if not consumer.stop():
        raise RuntimeError("the consumer does not end")
    return told


def _by_kombu(at: delivery.Stand, events: int) -> tuple[float, float]:
    """The same transaction, then the ack; no inbox: what is delivered twice is handled twice."""
    statement = text(_EFFECT.format(s=at.schema))
    handled = 0

    def handle(message: kombu.Message) -> None:
        nonlocal handled
        head = message.headers
        channel_id = int(message.delivery_info["routing_key"].rpartition(".")[2])
        with at.engine.begin() as connection:
            values = {"sequence": int(head["cloudEvents_sequence"]), "channel_id": channel_id}
            connection.execute(statement, values)
        message.ack()
        handled += 1

    began, burnt = perf_counter(), process_time()
    with kombu.Connection(at.settings.broker_url) as connection:
        channel = connection.channel()
        queue = kombu.Queue(at.queue, no_declare=True)
        consumer = kombu.Consumer(
            channel, [queue], on_message=handle, prefetch_count=_PREFETCH, auto_declare=False
        )
        with consumer:
            while handled < events:
                connection.drain_events(timeout=30)
        return perf_counter() - began, process_time() - burnt


CONSUME = Benchmark(
    id="consume",
    what="an event from RabbitMQ, its effect committed with its inbox row, acknowledged",
    contenders=(
        Contender("consumer", Role.OURS, _consuming(_with_inbox)),
        Contender("kombu, without inbox", Role.LIMIT, _consuming(_by_kombu), needs=_AMQP),
        Contender("consumer, batch=20", Role.FLOOR, _consuming(partial(_with_inbox, batch=20))),
    ),
    plan=Plan(rounds=5, calls=1, warmup=1),
    quick=Plan(rounds=2, calls=1, warmup=1),
    aim=Aim(limit=1 / 0.6),
    around=_queue,
)

ROWS = (CONSUME,)
