"""faststream-outbox as a relay: from its own table, by its documented way, to the same queue.

Its handler gives what it takes to the decorator that publishes with FastStream's RabbitMQ broker,
whose channel confirms. Set up as well as we know: uvloop, asyncpg, many workers and thus many
confirms awaited at once, fetches and deletes in batches, bytes passed on undecoded, no log line
for each message. In its favour, one routing key for all, and no order within a channel.
"""

from __future__ import annotations

import asyncio
import os
from time import perf_counter, process_time
from typing import Any

import stand as delivery
from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url

NEEDS = ("faststream-outbox", "faststream", "aio-pika", "asyncpg", "sqlalchemy", "uvloop")
_QUEUE, _TABLE = "events", "faststream_outbox"
_WORKERS, _FETCHED, _DELETED = 20, 500, 20
_FILL = f"""
INSERT INTO {{s}}.{_TABLE} (queue, payload, headers)
SELECT '{_QUEUE}',
       convert_to(json_build_object('version', n, 'text', repeat('x', :body))::text, 'utf8'),
       jsonb_build_object('correlation_id', gen_random_uuid())
FROM generate_series(1, :events) AS n
"""


def relayed(at: delivery.Stand, events: int, *, body: int) -> tuple[float, float]:
    """From its start until `events` that wait are published, confirmed and deleted."""
    from faststream_outbox import make_outbox_table

    table = make_outbox_table(MetaData(schema=at.schema), _TABLE)
    with at.engine.begin() as connection:
        table.create(connection, checkfirst=True)
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(_FILL.format(s=at.schema)), {"events": events, "body": body})
    os.sync()
    with _loop() as runner:
        told = runner.run(_relay(at, table, events))
    if left := at.value(f"SELECT count(*) FROM {{s}}.{_TABLE}"):
        raise RuntimeError(f"{left:,} events are in the table of faststream-outbox still")
    return told


def _loop() -> asyncio.Runner:
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _relay(at: delivery.Stand, table: Any, events: int) -> tuple[float, float]:
    from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitResponse
    from faststream_outbox import OutboxBroker
    from faststream_outbox.annotations import OutboxMessage
    from sqlalchemy.ext.asyncio import create_async_engine

    deleted, done = 0, asyncio.Event()

    def record(event: str, _: object) -> None:
        nonlocal deleted
        deleted += event == "acked"
        if deleted == events:
            done.set()

    url = make_url(at.settings.database_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, pool_size=_WORKERS + 1)
    source = OutboxBroker(engine, outbox_table=table, metrics_recorder=record, logger=None)
    target = RabbitBroker(at.settings.broker_url or "", logger=None)
    exchange = RabbitExchange(at.topology.exchange, type=ExchangeType.TOPIC, durable=True)
    published = target.publisher(
        routing_key="telegram.channel.-1", exchange=exchange, persist=True, mandatory=True
    )

    @published
    @source.subscriber(
        _QUEUE,
        max_workers=_WORKERS,
        fetch_batch_size=_FETCHED,
        terminal_flush_batch_size=_DELETED,
        decoder=_as_it_is,
    )
    async def relay(message: OutboxMessage) -> RabbitResponse:
        number = message.correlation_id
        return RabbitResponse(message.body, message_id=number, content_type="application/json")

    await target.connect()
    began, burnt = perf_counter(), process_time()
    await source.start()
    try:
        await asyncio.wait_for(done.wait(), 300)
        return perf_counter() - began, process_time() - burnt
    finally:
        await source.stop()
        await target.stop()
        await engine.dispose()


async def _as_it_is(message: Any) -> bytes:
    body: bytes = message.body
    return body
