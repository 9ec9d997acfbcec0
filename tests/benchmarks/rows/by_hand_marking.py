"""From a stored message to its mark as published, and to the news of that, by hand: the least.

psycopg with prepared statements, redis-py and py-amqp. What has to be done for each message is two
events, each confirmed before the next one of its channel; the status with a new version, under the
channel's lock; and the inbox, by the batch. No more than that: no
leases, no floors, no retries, no dead letters, no check of the step, nothing cached. Whoever keeps
the order, and loses nothing, takes at least this long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

import amqp
import msgspec
import psycopg
import redis
import uuid_utils.compat

from benchmarks.rows import by_hand
from benchmarks.rows.reports import Report
from telegram_hybrid.outbox.locks import lock_prefix
from telegram_hybrid.schema.postgres.tables import shard_of
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.settings import Settings

_LOOK = """
SELECT id, event_id, type, channel_id, payload::text FROM "{}".outbox ORDER BY id LIMIT 500
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_MARK = """
UPDATE "{0}".messages
SET status = 'published', published_at = now(), updated_at = now(),
    version = nextval('"{0}".message_version')
WHERE channel_id = %s AND message_id = %s AND sent_at = %s
RETURNING version
"""
_ANNOUNCE = """
INSERT INTO "{}".outbox (shard, event_id, type, channel_id, message_id, payload)
VALUES (%s, %s, 'message.status_changed', %s, %s, %s)
"""


def relay(settings: Settings, ready: Any) -> None:
    """Publish what is there, each event when its channel's one before is confirmed; for ever."""
    look = _LOOK.format(settings.database_schema)
    delete = f'DELETE FROM "{settings.database_schema}".outbox WHERE id = ANY(%s)'
    database = psycopg.connect(settings.database_url, autocommit=True)
    database.execute("SET synchronous_commit TO off")
    woken = redis.Redis.from_url(settings.redis_url or "").pubsub()
    woken.subscribe(Keys(settings.redis_prefix).wake)
    connection = by_hand.connected(settings.broker_url or "")
    channel = connection.channel()
    confirmed, sent = _Confirmed(), 0
    channel.events["basic_ack"].add(confirmed)
    channel.confirm_select()
    ready.release()
    while True:
        rows = database.execute(look).fetchall()
        for wave in _waves(rows):
            for _, event_id, kind, of_channel, payload in wave:
                message = amqp.Message(
                    payload.encode(),
                    content_type="application/json",
                    delivery_mode=2,
                    message_id=str(event_id),
                    type=kind,
                )
                channel.basic_publish(
                    message,
                    exchange=settings.exchange,
                    routing_key=f"telegram.channel.{of_channel}",
                    mandatory=True,
                )
            sent += len(wave)
            while confirmed.upto < sent:
                connection.drain_events(timeout=30)
        if rows:
            database.execute(delete, [[row[0] for row in rows]])
        else:
            woken.get_message(timeout=1.0)


class _Confirmed:
    """Up to which tag all are confirmed; RabbitMQ may do so in any order."""

    def __init__(self) -> None:
        self.upto = 0
        self._beyond = set[int]()

    def __call__(self, tag: int, multiple: bool) -> None:
        self._beyond.update(range(self.upto + 1, tag) if multiple else (), (tag,))
        while self.upto + 1 in self._beyond:
            self.upto += 1
            self._beyond.remove(self.upto)


def _waves(rows: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """What may be under way together: of each channel one event, in order."""
    of_channels = defaultdict(list)
    for row in rows:
        of_channels[row[3]].append(row)
    for wave in zip_longest(*of_channels.values()):
        yield [row for row in wave if row is not None]


def publish(settings: Settings, queue: str, told: Any, ready: Any) -> None:
    """Mark what arrived, up to 20 in a transaction; tell of which the news has come; for ever."""
    schema = settings.database_schema
    receive = by_hand.RECEIVE.format(schema)
    mark, announce = _MARK.format(schema), _ANNOUNCE.format(schema)
    report = Report(told)
    database = psycopg.connect(settings.database_url)
    wake = redis.Redis.from_url(settings.redis_url or "")
    connection = by_hand.connected(settings.broker_url or "")
    channel = connection.channel()
    arrived: list[Any] = []
    channel.basic_qos(0, 100, False)
    channel.basic_consume(queue, callback=arrived.append)
    ready.release()
    for messages in by_hand.some(connection, arrived):
        events = [(each.properties["type"], msgspec.json.decode(each.body)) for each in messages]
        ids = [each.properties["message_id"] for each in messages]
        database.execute(receive, [queue, ids, [body["channel_id"] for _, body in events]])
        for kind, body in events:
            key = body["channel_id"], body["message_id"]
            if kind == "message.status_changed":
                report(key[1])
                continue
            database.execute(_LOCK, [f"{lock_prefix(schema)}{key[0]}"])
            sent_at = datetime.fromisoformat(body["sent_at"])
            (version,) = database.execute(mark, [*key, sent_at]).fetchone() or (0,)
            body |= {"status": "published", "version": version}
            payload = msgspec.json.encode(body).decode()
            event_id = uuid_utils.compat.uuid7()
            database.execute(announce, [shard_of(key[0]), event_id, *key, payload])
        database.commit()
        wake.publish(Keys(settings.redis_prefix).wake, b"")
        channel.basic_ack(messages[-1].delivery_tag, multiple=True)
