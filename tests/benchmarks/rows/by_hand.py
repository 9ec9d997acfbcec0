"""The path from commit to handler by hand, for its latency: the least that an outbox does.

psycopg with prepared statements, redis-py and py-amqp, each thread on connections of its own, and
no more than the path itself: one relay, which nobody relieves, and which keeps no order in a
channel whose event is refused; no locks, no leases, no retries, no dead letters. What this takes,
the machine takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import local
from time import monotonic
from typing import Any

import amqp
import msgspec
import psycopg
import redis
import uuid_utils.compat
from sqlalchemy.engine import make_url

from benchmarks.rows.reports import Report
from telegram_hybrid.schema.postgres.tables import shard_of
from telegram_hybrid.settings import Settings

_WAKE = "{}:by_hand"
_INSERT = """
INSERT INTO "{}".outbox (shard, event_id, type, channel_id, payload) VALUES (%s, %s, %s, %s, %s)
"""
_LOOK = 'SELECT id, event_id, channel_id, payload::text FROM "{}".outbox ORDER BY id LIMIT 500'
_DELETE = 'DELETE FROM "{}".outbox WHERE id = ANY(%s)'
RECEIVE = """
INSERT INTO "{}".inbox (queue, event_id, channel_id)
SELECT %s, unnest(%s::uuid[]), unnest(%s::bigint[]) ON CONFLICT DO NOTHING
"""


def connected(url: str) -> amqp.Connection:
    """A connection of py-amqp alone."""
    place = make_url(url)
    connection = amqp.Connection(
        f"{place.host}:{place.port}", place.username, place.password, virtual_host=place.database
    )
    connection.connect()
    return connection


def writer(
    settings: Settings, topic: str, channel_of: Callable[[int], int]
) -> Callable[[Sequence[int]], float]:
    """What commits events of these numbers, and returns when it began to."""
    mine = local()
    insert = _INSERT.format(settings.database_schema)

    def send(numbers: Sequence[int]) -> float:
        if not hasattr(mine, "postgres"):
            mine.postgres = psycopg.connect(settings.database_url)
            mine.redis = redis.Redis.from_url(settings.redis_url or "")
        with mine.postgres.cursor() as cursor:
            for number in numbers:
                channel, payload = channel_of(number), msgspec.json.encode({"number": number})
                event_id = uuid_utils.compat.uuid7()
                row = (shard_of(channel), event_id, topic, channel, payload.decode())
                cursor.execute(insert, row)
        began = monotonic()
        mine.postgres.commit()
        mine.redis.publish(_WAKE.format(settings.redis_prefix), b"")
        return began

    return send


def relay(settings: Settings, ready: Any) -> None:
    """Publish what is there, wait for the confirms, delete it, wait for more; for ever."""
    look, delete = (each.format(settings.database_schema) for each in (_LOOK, _DELETE))
    database = psycopg.connect(settings.database_url, autocommit=True)
    database.execute("SET synchronous_commit TO off")
    woken = redis.Redis.from_url(settings.redis_url or "").pubsub()
    woken.subscribe(_WAKE.format(settings.redis_prefix))
    connection = connected(settings.broker_url or "")
    channel = connection.channel()
    confirmed = set[int]()
    channel.events["basic_ack"].add(lambda tag, multiple: confirmed.update(_upto(tag, multiple)))
    channel.confirm_select()
    last = 0

    def _upto(tag: int, multiple: bool) -> range:
        return range(last - 500 if multiple else tag, tag + 1)

    ready.release()
    while True:
        rows = database.execute(look).fetchall()
        for _, event_id, _, payload in rows:
            last += 1
            message = amqp.Message(
                payload.encode(),
                content_type="application/json",
                delivery_mode=2,
                message_id=str(event_id),
            )
            channel.basic_publish(
                message, exchange=settings.exchange, routing_key="bench.ticked", mandatory=True
            )
        while not confirmed.issuperset(range(last - len(rows) + 1, last + 1)):
            connection.drain_events(timeout=30)
        confirmed.clear()
        if rows:
            database.execute(delete, [[row[0] for row in rows]])
        else:
            woken.get_message(timeout=1.0)


def consume(settings: Settings, queue: str, told: Any, ready: Any) -> None:
    """Take what is there, note it in the inbox, handle it, commit, acknowledge; for ever."""
    receive = RECEIVE.format(settings.database_schema)
    report = Report(told)
    database = psycopg.connect(settings.database_url)
    connection = connected(settings.broker_url or "")
    channel = connection.channel()
    arrived: list[Any] = []
    channel.basic_qos(0, 50, False)
    channel.basic_consume(queue, callback=arrived.append)
    ready.release()
    for messages in some(connection, arrived):
        ids = [each.properties["message_id"] for each in messages]
        database.execute(receive, [queue, ids, [0] * len(ids)])
        for each in messages:
            report(msgspec.json.decode(each.body)["number"])
        database.commit()
        channel.basic_ack(messages[-1].delivery_tag, multiple=True)


def some(connection: amqp.Connection, arrived: list[Any]) -> Iterator[list[Any]]:
    """What arrived, again and again; up to 20 at once."""
    while True:
        connection.drain_events()
        try:
            while len(arrived) < 20:
                connection.drain_events(timeout=0)
        except TimeoutError:
            pass
        yield arrived[:]
        arrived.clear()
